"""The embedded engine with a real model of half a billion parameters, fetched by the project's own code."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest

from guided_evolution.errors import ModelError
from guided_evolution.llm import Request, download, models
from guided_evolution.llm.local import Engine, LocalLLM

NAME = "qwen2.5-coder-0.5b"
THREADS = 2
ASK = Request("mutate", "Write a Python function that adds two numbers.", temperature=0.8, max_tokens=40, seed=3)

T = TypeVar("T")


def test_a_broken_file_is_a_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF" + bytes(4000))
    engine = Engine(path, alias="broken", threads=1)
    with pytest.raises(ModelError, match=r"broken\.gguf can't be loaded.*failed to load") as caught:
        engine.start()
    assert caught.value.permanent
    assert not engine.running
    assert "Traceback" not in str(caught.value)


def test_a_closed_model_says_so() -> None:
    async def run() -> None:
        llm = LocalLLM(NAME)
        await llm.close()
        await llm.ask(ASK)

    with pytest.raises(ModelError, match="closed"):
        asyncio.run(run())


@pytest.fixture(scope="module")
def path() -> Path:
    return download.fetch(models.get(NAME))


@pytest.fixture(scope="module")
def llm(path: Path) -> Iterator[LocalLLM]:
    llm = LocalLLM(NAME, THREADS)
    yield llm
    asyncio.run(llm.close())


@pytest.fixture(scope="module")
def engine(llm: LocalLLM) -> Engine:
    run(llm.ask(ASK))
    assert llm.engine is not None
    return llm.engine


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(coroutine)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return condition()


@pytest.mark.slow
def test_a_seed_fixes_the_text_whatever_came_before(llm: LocalLLM) -> None:
    others = [Request("mutate", ASK.prompt + " Be brief.", max_tokens=5), Request("mutate", "hello", max_tokens=5)]
    texts = [run(llm.ask(ASK)).text]
    for other in [ASK, *others]:
        run(llm.ask(other))
        texts.append(run(llm.ask(ASK)).text)
    assert len(set(texts)) == 1
    assert run(llm.ask(Request("mutate", ASK.prompt, temperature=0.8, max_tokens=40, seed=4))).text != texts[0]


@pytest.mark.slow
def test_a_reply_is_complete(llm: LocalLLM) -> None:
    reply = run(llm.ask(ASK))
    assert reply.model == NAME
    assert llm.name == f"local:{NAME}"
    assert (reply.usd, reply.tokens_out, reply.cut) == (0.0, 40, True)
    assert reply.tokens_in is not None
    assert 20 < reply.tokens_in < 60
    whole = run(llm.ask(Request("mutate", "Answer with the single word yes.", temperature=0.0, max_tokens=30, seed=1)))
    assert not whole.cut


@pytest.mark.slow
def test_streamed_pieces_add_up_to_the_text(llm: LocalLLM) -> None:
    pieces: list[str] = []
    reply = run(llm.ask(ASK, pieces.append))
    assert "".join(pieces) == reply.text == run(llm.ask(ASK)).text
    assert len(pieces) > 20
    assert reply.tokens_out == 40


@pytest.mark.slow
def test_callers_share_one_engine(llm: LocalLLM, engine: Engine) -> None:
    async def several() -> list[str]:
        replies = await asyncio.gather(*(llm.ask(ASK) for _ in range(3)))
        return [reply.text for reply in replies]

    texts = run(several())
    assert len(set(texts)) == 1
    assert llm.engine is engine


@pytest.mark.slow
def test_a_prompt_longer_than_the_context_is_a_plain_error(llm: LocalLLM) -> None:
    with pytest.raises(ModelError, match="context") as caught:
        run(llm.ask(Request("mutate", "word " * 5000, max_tokens=5)))
    assert not caught.value.permanent
    assert run(llm.ask(ASK)).text


@pytest.mark.slow
def test_the_server_listens_here_only_and_asks_for_its_key(engine: Engine) -> None:
    assert engine.address.startswith("http://127.0.0.1:")
    port = int(engine.address.rpartition(":")[2])
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening = [row[1] for row in rows if row[3] == "0A" and row[1].endswith(f":{port:04X}")]
    assert listening == [f"0100007F:{port:04X}"]
    request = urllib.request.Request(f"{engine.address}/v1/chat/completions", data=b"{}")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request)
    assert caught.value.code == 401


@pytest.mark.slow
def test_no_key_reaches_the_process_list_or_the_environment(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "very-secret")
    engine = Engine(path, alias="m", threads=1)
    engine.start()
    try:
        environment = Path(f"/proc/{engine.pid}/environ").read_bytes()
        command = Path(f"/proc/{engine.pid}/cmdline").read_bytes()
    finally:
        engine.stop()
    assert b"very-secret" not in environment
    assert engine.key.encode() not in environment + command
    assert b"OMP_WAIT_POLICY=PASSIVE" in environment
    assert not engine.running


@pytest.mark.slow
def test_a_killed_engine_is_started_again(path: Path) -> None:
    async def scenario() -> None:
        llm = LocalLLM(NAME, THREADS)
        before = await llm.ask(ASK)
        assert llm.engine is not None
        pid = llm.engine.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        after = await llm.ask(ASK)
        assert after.text == before.text
        assert llm.engine.pid != pid
        assert not is_alive(pid)
        await llm.close()
        assert llm.engine is None

    run(scenario())


@pytest.mark.slow
def test_an_engine_killed_while_it_answers(path: Path) -> None:
    async def scenario() -> None:
        llm = LocalLLM(NAME, THREADS)
        killed: list[int] = []

        def kill_once(piece: str) -> None:
            if not killed and llm.engine is not None and llm.engine.pid is not None:
                killed.append(llm.engine.pid)
                os.kill(llm.engine.pid, signal.SIGKILL)

        reply = await llm.ask(ASK, kill_once)
        assert killed
        assert reply.tokens_out == 40
        await llm.close()

    run(scenario())


PARENT = """
import os, sys, threading, time
from pathlib import Path
from guided_evolution.llm.local import Engine

engine = Engine(Path(sys.argv[1]), alias="m", threads=1)
if sys.argv[2] == "loading":
    threading.Thread(target=engine.start, daemon=True).start()
    while engine.pid is None:
        time.sleep(0.01)
else:
    engine.start()
print(engine.pid, flush=True)
if sys.argv[2] == "forked" and os.fork() == 0:
    time.sleep(20)
    os._exit(0)
time.sleep(60)
"""


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["loading", "idle", "forked"])
def test_the_engine_dies_with_its_parent(path: Path, moment: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(path), moment], stdout=subprocess.PIPE, start_new_session=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_alive(pid)
        time.sleep(0.3)
        parent.kill()
        try:
            assert wait_until(lambda: not is_alive(pid))
        finally:
            # What the parent forked is in its session; the engine is in one of its own.
            with suppress(ProcessLookupError):
                os.killpg(parent.pid, signal.SIGKILL)
