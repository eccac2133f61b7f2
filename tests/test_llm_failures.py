"""Providers that fail, as a real server on the loopback interface, and what a run makes of each failure."""

from __future__ import annotations

import asyncio
import email.utils
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from guided_evolution import asking, session
from guided_evolution.errors import ModelError, RequestRefusedError
from guided_evolution.llm import Request
from guided_evolution.llm.client import ClientLLM, Endpoint, Patience
from guided_evolution.problem import Problem
from guided_evolution.run import Run
from guided_evolution.settings import Settings
from guided_evolution.testing import Recorder, scripted_reply
from test_llm_client import WORDS, Answer, Handler, Server, ask, dropped, failing, ok

GE = Path(sys.executable).with_name("ge")


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def page(handler: Handler, body: dict[str, Any]) -> None:
    data = b"<html>proxy</html>"
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data)


def silent(handler: Handler, body: dict[str, Any]) -> None:
    time.sleep(1.5)
    handler.close_connection = True


def without(name: str) -> Answer:
    def answer(handler: Handler, body: dict[str, Any]) -> None:
        sent = {"max_tokens": {"max_tokens", "max_completion_tokens"}}.get(name, {name}) & set(body)
        if sent:
            failing(400, f"Unsupported parameter: '{sent.pop()}' is not supported with this model.")(handler, body)
        else:
            ok(handler, body)

    return answer


def evolving(handler: Handler, body: dict[str, Any]) -> None:
    """Answers as the scripted model does, in a stream."""
    text = scripted_reply(body["messages"][-1]["content"])
    handler.open_stream()
    handler.event({"role": "assistant", "content": text})
    handler.event({}, "stop")
    handler.event({}, None, choices=[], usage={"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150})
    handler.chunk(b"data: [DONE]\n\n")
    handler.chunk(b"")


def story(run: Run) -> list[tuple[object, ...]]:
    return [
        (each.id, each.generation, each.genome.digest, each.origin.parents, each.status) for each in run.individuals
    ]


def llm_of(server: Server, tries: int = 2, timeout: float = 20) -> ClientLLM:
    return ClientLLM(Endpoint(server.spec, key="k"), patience=Patience(tries=tries, pause=0.01, timeout=timeout))


def test_a_date_in_retry_after_is_kept(server: Server) -> None:
    def later(handler: Handler, body: dict[str, Any]) -> None:
        failing(429, "slow", Retry_After=email.utils.formatdate(time.time() + 3, usegmt=True))(handler, body)

    server.answers = [later, ok]
    assert ask(server).text == "".join(WORDS)
    assert server.times[1] - server.times[0] >= 1.0


@pytest.mark.parametrize(
    "answer", [failing(500), failing(502), failing(503), dropped, page], ids=["500", "502", "503", "dropped", "page"]
)
def test_passing_troubles_are_asked_again(server: Server, answer: Answer) -> None:
    server.answers = [answer, answer, ok]
    assert ask(server, on_text=lambda piece: None).text == "".join(WORDS)
    assert len(server.bodies) == 3


def test_no_json_is_asked_again_and_then_said(server: Server) -> None:
    server.answers = [page]
    with pytest.raises(ModelError) as caught:
        ask(server, tries=2)
    assert not caught.value.permanent
    assert len(server.bodies) == 2
    assert "\n" not in str(caught.value)


def test_a_server_that_never_answers_times_out(server: Server) -> None:
    server.answers = [silent, ok]

    async def run() -> str:
        llm = llm_of(server, timeout=0.3)
        reply = await llm.ask(Request("mutate", "hello"))
        await llm.close()
        return reply.text

    assert asyncio.run(run()) == "".join(WORDS)


def test_a_filtered_reply_is_recorded_and_costs_one_draw(server: Server, tiny: Problem, tmp_path: Path) -> None:
    def filtered(handler: Handler, body: dict[str, Any]) -> None:
        handler.open_stream()
        handler.event({"role": "assistant", "content": ""})
        handler.event({}, "content_filter")
        handler.event({}, None, choices=[], usage={"prompt_tokens": 90, "completion_tokens": 0, "total_tokens": 90})
        handler.chunk(b"data: [DONE]\n\n")
        handler.chunk(b"")

    server.answers = [filtered, evolving]
    run = session.start(tiny, Settings(population=1, generations=0, llm="x"), tmp_path / "run", (), llm_of(server))
    first, second = run.individual(1).origin.exchanges
    assert (first.reply, first.tokens_in, bool(first.verdict)) == ("", 90, True)
    assert second.reply
    assert run.individual(1).ok


@pytest.mark.parametrize("name", ["temperature", "top_p", "max_tokens"])
def test_a_setting_that_is_refused_is_left_out_from_then_on(server: Server, name: str) -> None:
    server.answers = [without(name)]

    async def run() -> None:
        llm = llm_of(server)
        for _ in range(2):
            await llm.ask(Request("mutate", "hello", temperature=0.2, top_p=0.9, max_tokens=50))
        await llm.close()

    asyncio.run(run())
    assert len(server.bodies) == 3, "refused once, and never sent again"


def test_a_limit_that_is_too_large_is_not_dropped(server: Server) -> None:
    server.answers = [failing(400, "max_tokens is too large: 50")]
    with pytest.raises(RequestRefusedError):
        ask(server)


@pytest.mark.parametrize(("status", "word"), [(401, "OPENAI_API_KEY"), (404, "model's name")])
def test_a_permanent_failure_stops_the_run_with_one_line(
    server: Server, tiny: Problem, tmp_path: Path, status: int, word: str
) -> None:
    server.answers = [failing(status)]
    command = [str(GE), "run", str(tiny.folder), "--llm", server.spec, "--run", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ)
    assert done.returncode == 1
    assert [line for line in done.stderr.splitlines() if line.startswith("Error")] == [done.stderr.splitlines()[-1]]
    assert word in done.stderr
    assert "Traceback" not in done.stderr
    assert Run(tmp_path / "run").status == "failed"


def test_a_server_that_is_down_for_a_while_changes_nothing(
    server: Server, tiny: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "PAUSE_SECONDS", 0.05)
    settings = Settings(population=4, generations=2, llm="x", llm_parallel=3)
    server.answers = [evolving]
    whole = session.start(tiny, settings, tmp_path / "whole", (), llm_of(server))
    calls = whole.spending["calls"]
    server.bodies.clear()
    server.answers = [evolving] * 5 + [failing(503, "down")] * 12 + [evolving]
    recorder = Recorder()
    run = session.start(tiny, settings, tmp_path / "run", [recorder], llm_of(server))
    assert story(run) == story(whole)
    assert run.spending["calls"] == calls
    notes = [event.text for event in recorder.events if event.kind == "note"]
    assert any("does not answer" in note and "503" in note and "ge resume" in note for note in notes)
    assert any("answers again" in note for note in notes)


def test_an_outage_without_end_fails_and_can_be_resumed(
    server: Server, tiny: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(asking, "OUTAGE_SECONDS", 0.3)
    settings = Settings(population=4, generations=1, llm="x")
    server.answers = [evolving] * 3 + [failing(500)]
    with pytest.raises(ModelError, match="ge resume"):
        session.start(tiny, settings, tmp_path / "run", (), llm_of(server))
    assert Run(tmp_path / "run").status == "failed"
    server.answers = [evolving]
    resumed = session.resume(tmp_path / "run", llm=llm_of(server))
    assert story(resumed) == story(session.start(tiny, settings, tmp_path / "whole", (), llm_of(server)))
