"""The client against a real server on the loopback interface that speaks minimal chat completions."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guided_evolution.errors import ModelError
from guided_evolution.llm import Reply, Request
from guided_evolution.llm.client import ClientLLM, Endpoint, Patience, is_small

WORDS = ["def ", "f(x)", ":\n", "    return", " x"]
USAGE = {"prompt_tokens": 11, "completion_tokens": 5, "total_tokens": 16}

Answer = Callable[["Handler", dict[str, Any]], None]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            number = len(self.server.bodies)
            self.server.bodies.append(body)
            self.server.times.append(time.monotonic())
            self.server.keys.append(self.headers.get("Authorization", ""))
        answers = self.server.answers
        answers[min(number, len(answers) - 1)](self, body)

    def send(self, status: int, content: dict[str, Any], **headers: str) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def event(self, delta: dict[str, Any], finish: str | None = None, **more: Any) -> None:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        content = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
        self.chunk(b"data: " + json.dumps(content | more).encode() + b"\n\n")

    def open_stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[Answer] = [ok]
        self.bodies: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.keys: list[str] = []
        self.lock = threading.Lock()

    @property
    def spec(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1#m"


def reply_with(text: str, finish: str = "stop", usage: dict[str, int] | None = USAGE, **message: str) -> Answer:
    def answer(handler: Handler, body: dict[str, Any]) -> None:
        choice = {
            "index": 0,
            "finish_reason": finish,
            "message": {"role": "assistant", "content": text, **message},
        }
        content = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
        handler.send(200, content | ({"usage": usage} if usage else {}))

    return answer


def ok(handler: Handler, body: dict[str, Any]) -> None:
    if not body.get("stream"):
        reply_with("".join(WORDS))(handler, body)
        return
    handler.open_stream()
    for word in WORDS:
        handler.event({"role": "assistant", "content": word})
    handler.event({}, "stop")
    handler.event({}, None, choices=[], usage=USAGE)
    handler.chunk(b"data: [DONE]\n\n")
    handler.chunk(b"")


def dropped(handler: Handler, body: dict[str, Any]) -> None:
    handler.open_stream()
    for word in WORDS[:2]:
        handler.event({"role": "assistant", "content": word})
    handler.close_connection = True


def failing(status: int, message: str = "no", **headers: str) -> Answer:
    def answer(handler: Handler, body: dict[str, Any]) -> None:
        handler.send(status, {"error": {"message": message, "type": "t", "code": status}}, **headers)

    return answer


def no_temperature(handler: Handler, body: dict[str, Any]) -> None:
    if "temperature" in body:
        failing(400, "Unsupported value: 'temperature' does not support 0.2 with this model.")(handler, body)
    else:
        ok(handler, body)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(
    server: Server,
    request: Request | None = None,
    *,
    on_text: Callable[[str], None] | None = None,
    tries: int = 4,
    endpoint: Endpoint | None = None,
) -> Reply:
    async def run() -> Reply:
        llm = ClientLLM(
            endpoint or Endpoint(server.spec, key="secret", key_variable="OPENAI_API_KEY"),
            patience=Patience(tries=tries, pause=0.05, timeout=20),
        )
        try:
            return await llm.ask(request or Request("mutate", "hello"), on_text)
        finally:
            await llm.close()

    return asyncio.run(run())


def test_a_plain_reply_fills_every_field(server: Server) -> None:
    request = Request("mutate", "hello", system="be brief", temperature=0.2, top_p=0.9, max_tokens=7, seed=2**31 + 5)
    reply = ask(server, request)
    assert (reply.text, reply.model) == ("def f(x):\n    return x", "m")
    assert (reply.tokens_in, reply.tokens_out, reply.usd, reply.cut) == (11, 5, None, False)
    assert 0 < reply.seconds < 20
    body = server.bodies[0]
    assert [(m["role"], m["content"]) for m in body["messages"]] == [("system", "be brief"), ("user", "hello")]
    assert (body["temperature"], body["top_p"], body["seed"], body["model"]) == (0.2, 0.9, 5, "m")
    assert 7 in (body.get("max_tokens"), body.get("max_completion_tokens"))
    assert "cache_prompt" not in body
    assert server.keys == ["Bearer secret"]


def test_what_is_not_asked_for_is_not_sent(server: Server) -> None:
    ask(server)
    assert not {"temperature", "top_p", "seed", "stream"} & {k for k, v in server.bodies[0].items() if v}
    assert [message["role"] for message in server.bodies[0]["messages"]] == ["user"]


def test_streamed_pieces_add_up_to_the_text(server: Server) -> None:
    pieces: list[str] = []
    reply = ask(server, on_text=pieces.append)
    assert len(pieces) == len(WORDS)
    assert "".join(pieces) == reply.text == "".join(WORDS)
    assert (reply.tokens_in, reply.tokens_out, reply.cut) == (11, 5, False)


def test_length_as_finish_reason_means_cut(server: Server) -> None:
    server.answers = [reply_with("def f", "length")]
    assert ask(server).cut


def test_reasoning_is_kept_apart(server: Server) -> None:
    server.answers = [reply_with("x = 1", reasoning_content="Let me think.")]
    reply = ask(server)
    assert (reply.text, reply.reasoning) == ("x = 1", "Let me think.")


def test_an_empty_reply_is_a_reply(server: Server) -> None:
    server.answers = [reply_with("")]
    assert ask(server).text == ""


def test_tokens_from_the_providers_cache_are_counted(server: Server) -> None:
    server.answers = [reply_with("x", usage=USAGE | {"prompt_tokens_details": {"cached_tokens": 5}})]
    assert ask(server).tokens_cached == 5
    server.answers = [reply_with("x")]
    assert ask(server).tokens_cached is None


def test_missing_usage_is_not_zero(server: Server) -> None:
    server.answers = [reply_with("x", usage=None)]
    reply = ask(server)
    assert (reply.tokens_in, reply.tokens_out) == (None, None)


@pytest.mark.parametrize(
    ("status", "word"), [(401, "OPENAI_API_KEY"), (403, "OPENAI_API_KEY"), (404, "model's name"), (402, "credit")]
)
def test_what_cannot_be_helped_by_asking_again(server: Server, status: int, word: str) -> None:
    server.answers = [failing(status)]
    with pytest.raises(ModelError, match=word) as caught:
        ask(server)
    assert caught.value.permanent
    assert len(server.bodies) == 1
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_refused_request_is_not_repeated(server: Server) -> None:
    server.answers = [failing(400, "the prompt is too long")]
    with pytest.raises(ModelError, match="the prompt is too long") as caught:
        ask(server)
    assert not caught.value.permanent
    assert len(server.bodies) == 1


def test_rate_limit_waits_as_long_as_it_is_told(server: Server) -> None:
    server.answers = [failing(429, "slow down", Retry_After="1"), ok]
    assert ask(server).text == "".join(WORDS)
    assert server.times[1] - server.times[0] >= 1.0


def test_a_wait_of_many_minutes_is_left_to_the_caller(server: Server) -> None:
    server.answers = [failing(429, "slow down", Retry_After="3600")]
    with pytest.raises(ModelError, match="429") as caught:
        ask(server)
    assert not caught.value.permanent
    assert len(server.bodies) == 1


def test_server_errors_are_tried_again_with_growing_pauses(server: Server) -> None:
    server.answers = [failing(500), failing(503), ok]
    assert ask(server).text == "".join(WORDS)
    first, second = (b - a for a, b in zip(server.times, server.times[1:], strict=False))
    assert first >= 0.05
    assert second >= 0.1


def test_a_lasting_outage_ends_after_the_tries(server: Server) -> None:
    server.answers = [failing(500)]
    with pytest.raises(ModelError, match="500") as caught:
        ask(server, tries=3)
    assert not caught.value.permanent
    assert len(server.bodies) == 3


def test_a_dropped_stream_is_asked_again(server: Server) -> None:
    server.answers = [dropped, ok]
    pieces: list[str] = []
    assert ask(server, on_text=pieces.append).text == "".join(WORDS)
    assert "".join(pieces) == "".join(WORDS[:2] + WORDS)


def test_nobody_listening(server: Server) -> None:
    with pytest.raises(ModelError, match="can't be reached") as caught:
        ask(server, endpoint=Endpoint("http://127.0.0.1:9/v1#m"), tries=2)
    assert not caught.value.permanent


def test_a_refused_temperature_is_dropped_and_remembered(server: Server) -> None:
    server.answers = [no_temperature]

    async def run() -> None:
        llm = ClientLLM(Endpoint(server.spec), patience=Patience(tries=1))
        for _ in range(2):
            reply = await llm.ask(Request("mutate", "hello", temperature=0.2, top_p=0.9))
            assert reply.text == "".join(WORDS)
        await llm.close()

    asyncio.run(run())
    assert ["temperature" in body for body in server.bodies] == [True, False, False]
    assert all(body["top_p"] == 0.9 for body in server.bodies)


def test_one_client_serves_several_event_loops_and_callers(server: Server) -> None:
    llm = ClientLLM(Endpoint(server.spec))

    async def run() -> list[Reply]:
        return await asyncio.gather(*(llm.ask(Request("mutate", str(number))) for number in range(4)))

    assert all(reply.text for _ in range(2) for reply in asyncio.run(run()))
    assert sorted(body["messages"][0]["content"] for body in server.bodies) == sorted("01230123")


def test_the_embedded_engine_reads_afresh_when_there_is_a_seed(server: Server) -> None:
    endpoint = Endpoint(server.spec, embedded=True)
    assert ask(server, Request("mutate", "hello", seed=1), endpoint=endpoint).usd == 0.0
    ask(server, Request("mutate", "hello"), endpoint=endpoint)
    assert [body["cache_prompt"] for body in server.bodies] == [False, True]


def test_importing_the_client_is_light() -> None:
    heavy = {"pydantic_ai", "openai", "xllamacpp", "huggingface_hub"}
    code = f"import sys, guided_evolution.llm.spec; print(sorted({heavy} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


@pytest.mark.parametrize(
    ("name", "small"),
    [
        ("qwen2.5-coder-1.5b", True),
        ("Qwen/Qwen3-4B-Instruct-2507", True),
        ("gemma3n:e4b", True),
        ("qwen2.5-coder:7b", False),
        ("qwen3-30b-a3b", False),
        ("gpt-5-mini", False),
        ("claude-haiku-4-5", False),
        ("llama3.2:3b-q4", True),
    ],
)
def test_small_models_say_so_in_their_name(name: str, small: bool) -> None:
    assert is_small(name) is small


@given(size=st.integers(min_value=1, max_value=2000), prefix=st.sampled_from(["m-", "org/m:", "m_v2-", ""]))
def test_the_size_in_the_name_decides(size: int, prefix: str) -> None:
    assert is_small(f"{prefix}{size}b-instruct") is (size <= 4)
