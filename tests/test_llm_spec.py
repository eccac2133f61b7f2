"""What `--llm SPEC` accepts, and what it says when it doesn't."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from guided_evolution.errors import ModelError, UsageError
from guided_evolution.llm import Request
from guided_evolution.llm.client import ClientLLM
from guided_evolution.llm.local import LocalLLM
from guided_evolution.llm.scripted import FunctionLLM, ScriptedLLM
from guided_evolution.llm.spec import keys_found, open_llm

ASK = Request("mutate", "abc")


@pytest.fixture(autouse=True)
def without_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*keys_found(), "GUIDED_EVOLUTION_MODEL", "GUIDED_EVOLUTION_CACHE", "SAMBANOVA_API_KEY"]:
        monkeypatch.delenv(name, raising=False)


def script(folder: Path, text: str) -> str:
    path = folder / "script.py"
    path.write_text(text)
    return f"scripted:{path}"


def test_local_forms(tmp_path: Path) -> None:
    own = tmp_path / "mine.gguf"
    own.touch()
    names = [open_llm(spec).name for spec in ("local", "local:qwen2.5-coder-0.5b", f"local:{own}")]
    assert names == ["local:qwen2.5-coder-1.5b", "local:qwen2.5-coder-0.5b", "local:mine"]
    assert isinstance(open_llm("local"), LocalLLM)
    assert open_llm("local").small


def test_an_own_file_replaces_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "mine.gguf"
    own.touch()
    monkeypatch.setenv("GUIDED_EVOLUTION_MODEL", str(own))
    assert open_llm("local").name == "local:mine"
    assert open_llm("local:qwen2.5-coder-0.5b").name == "local:qwen2.5-coder-0.5b"


def test_server_form() -> None:
    llm = open_llm("http://localhost:8000/v1#qwen3:4b")
    assert isinstance(llm, ClientLLM)
    assert (llm.name, llm.small) == ("http://localhost:8000/v1#qwen3:4b", True)


def test_provider_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    llm = open_llm("openai:gpt-5-mini")
    assert (llm.name, llm.small) == ("openai:gpt-5-mini", False)


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        ("openai:gpt-5-mini", "OPENAI_API_KEY"),
        ("anthropic:claude-haiku-4-5", "ANTHROPIC_API_KEY"),
        ("google:gemini-3-flash", "GOOGLE_API_KEY or GEMINI_API_KEY"),
        ("sambanova:m", "SAMBANOVA_API_KEY"),
    ],
)
def test_a_missing_key_is_named_at_once(spec: str, word: str) -> None:
    with pytest.raises(UsageError, match=word):
        open_llm(spec)


@pytest.mark.parametrize("spec", ["", "local:", "gpt-5", "openai:", "nobody:model", "scripted:", "localhost:8000/v1#m"])
def test_nonsense_lists_the_forms(spec: str) -> None:
    with pytest.raises(UsageError, match=r"scripted:FILE\.py"):
        open_llm(spec)


@pytest.mark.parametrize("spec", ["http://localhost:8000/v1", "http://#m", "http://localhost:8000/v1#"])
def test_an_address_needs_host_and_model(spec: str) -> None:
    with pytest.raises(UsageError, match="#MODEL"):
        open_llm(spec)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nothing\.py"):
        open_llm(f"scripted:{tmp_path}/nothing.py")
    with pytest.raises(UsageError, match=r"nothing\.gguf"):
        open_llm(f"local:{tmp_path}/nothing.gguf")
    with pytest.raises(UsageError, match=r"qwen2\.5-coder-0\.5b"):
        open_llm("local:nothing")


def test_keys_found_tells_presence_only(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not any(keys_found().values())
    monkeypatch.setenv("GEMINI_API_KEY", "very secret")
    assert {name for name, found in keys_found().items() if found} == {"GEMINI_API_KEY"}
    assert "very secret" not in repr(keys_found())


def test_scripted_file(tmp_path: Path) -> None:
    llm = open_llm(script(tmp_path, "small = True\ndef reply(prompt: str) -> str:\n    return prompt.upper()\n"))
    pieces: list[str] = []
    reply = asyncio.run(llm.ask(ASK, pieces.append))
    assert (reply.text, reply.model, reply.usd, pieces) == ("ABC", "scripted:script.py", 0.0, ["ABC"])
    assert (llm.name, llm.small) == ("scripted:script.py", True)


def test_a_second_parameter_gets_the_request(tmp_path: Path) -> None:
    llm = open_llm(script(tmp_path, "def reply(prompt, request):\n    return request.purpose + prompt\n"))
    assert asyncio.run(llm.ask(ASK)).text == "mutateabc"


def test_a_sleeping_function_does_not_block_others() -> None:
    def slow(prompt: str) -> str:
        time.sleep(0.3)
        return prompt

    async def run() -> float:
        llm = FunctionLLM(slow, "slow")
        start = time.monotonic()
        await asyncio.gather(*(llm.ask(ASK) for _ in range(3)))
        return time.monotonic() - start

    assert asyncio.run(run()) < 0.8


@pytest.mark.parametrize(
    "body", ["raise RuntimeError('the server\\nis down')", "next(iter(()))", "return {}['missing']"]
)
def test_whatever_a_script_raises_is_a_passing_trouble(tmp_path: Path, body: str) -> None:
    llm = open_llm(script(tmp_path, f"def reply(prompt):\n    {body}\n"))
    with pytest.raises(ModelError, match=r"scripted:script\.py failed: \w+") as caught:
        asyncio.run(llm.ask(ASK))
    assert not caught.value.permanent
    assert "\n" not in str(caught.value)


def test_a_script_may_raise_a_permanent_trouble(tmp_path: Path) -> None:
    text = (
        "from guided_evolution.errors import ModelError\n"
        "def reply(prompt):\n    raise ModelError('no', permanent=True)\n"
    )
    with pytest.raises(ModelError, match=r"^no$") as caught:
        asyncio.run(open_llm(script(tmp_path, text)).ask(ASK))
    assert caught.value.permanent


def test_a_reply_must_be_text(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="NoneType") as caught:
        asyncio.run(open_llm(script(tmp_path, "def reply(prompt):\n    pass\n")).ask(ASK))
    assert caught.value.permanent


@pytest.mark.parametrize("text", ["x = 1\n", "def reply(:\n", "import nothing_of_this_name\n", "reply = 3\n"])
def test_a_script_that_cannot_be_used(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match=r"script\.py"):
        open_llm(script(tmp_path, text))


def test_scripted_keeps_state_between_calls(tmp_path: Path) -> None:
    text = "calls = []\ndef reply(prompt):\n    calls.append(prompt)\n    return str(len(calls))\n"
    llm = ScriptedLLM(Path(script(tmp_path, text).removeprefix("scripted:")))
    assert [asyncio.run(llm.ask(ASK)).text for _ in range(3)] == ["1", "2", "3"]
