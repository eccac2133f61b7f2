"""The two lanes that every system is measured on: a model server and an evaluation lane, each with a number of places.

Both only wait. How long is decided by the number of the candidate alone, so that all systems have the same work: the
server numbers its replies 1, 2, 3, …, the program in the reply holds its number, and its evaluation reads it there.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import socket
import threading
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

SPREAD = 0.6
PROGRAM = """\
# EVOLVE-BLOCK-START
def number():
    return 0
# EVOLVE-BLOCK-END
"""


@dataclass(frozen=True)
class Work:
    """What one run has to do.

    Attributes:
        candidates: Programs that are asked for and evaluated; the seed's evaluation comes on top.
        slots: Places of each lane.
        seconds: What a reply and an evaluation take, each, on average.
        unequal: Whether they are drawn from a log-normal distribution (sigma 0.6, the same mean) instead.
    """

    candidates: int
    slots: int
    seconds: float = 1.0
    unequal: bool = False

    def duration(self, lane: str, number: int) -> float:
        """Seconds that a candidate takes in a lane, "model" or "evaluation"; the same in every run."""
        if not self.unequal:
            return self.seconds
        # seeded by a text: a sum of lane and number would make both lanes alike
        draw = random.Random(f"{lane} {number}").gauss(-(SPREAD**2) / 2, SPREAD)
        return self.seconds * 2.718281828459045**draw

    @property
    def floor(self) -> float:
        """Seconds that no schedule can go below, in a two-stage flow shop with this many places in each stage.

        The replies take their sum over the places, and the shortest evaluation still follows; or the shortest reply
        comes first, and the evaluations take their sum over the places. The seed's evaluation may run meanwhile.
        """
        numbers = range(1, self.candidates + 1)
        replies = [self.duration("model", number) for number in numbers]
        evaluations = [self.duration("evaluation", number) for number in numbers]
        return max(
            sum(replies) / self.slots + min(evaluations),
            min(replies) + sum(evaluations) / self.slots,
        )


@dataclass(frozen=True)
class Interval:
    """When a place was taken by a candidate, in seconds since the epoch."""

    number: int
    begin: float
    end: float


@dataclass
class Lanes:
    """A server and an evaluation lane for one run, and what they saw."""

    work: Work
    folder: Path
    replies: list[Interval] = field(default_factory=list)
    evaluations: list[Interval] = field(default_factory=list)
    requests: int = 0
    waiting: int = 0

    def __post_init__(self) -> None:
        self._places = asyncio.Semaphore(self.work.slots)
        self._app = Starlette(routes=[Route("/v1/chat/completions", self._complete, methods=["POST"])])

    # -- the evaluation lane: two pipes beside the evaluator, which reach into a jail ------------------------------

    def __enter__(self) -> Lanes:
        for name in ("places", "log"):
            os.mkfifo(self.folder / name)
            (self.folder / name).chmod(0o666)  # whatever the umask: a jailed evaluation is another user
        # opened for both, a pipe never ends and never blocks whoever opens it
        self._pool = os.open(self.folder / "places", os.O_RDWR)
        self._log = os.open(self.folder / "log", os.O_RDWR)
        os.write(self._pool, b"." * self.work.slots)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/v1"
        settings = uvicorn.Config(self._app, log_level="warning", lifespan="off", timeout_keep_alive=600)
        self._server = uvicorn.Server(settings)
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._server.serve(sockets=[self._socket])), daemon=True
        )
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = self._server.force_exit = True
        os.write(self._log, b"end\n")
        self._reader.join()
        self._thread.join()
        self._socket.close()
        os.close(self._pool)
        os.close(self._log)

    def _read(self) -> None:
        with open(self._log, encoding="ascii", closefd=False) as lines:
            for line in lines:
                if line == "end\n":
                    return
                number, begin, end = line.split()
                self.evaluations.append(Interval(int(number), float(begin), float(end)))

    # -- the model lane -----------------------------------------------------------------------------------------

    async def _complete(self, request: Request) -> Response:
        asked = json.loads(await request.body())
        self.requests += 1
        number = self.requests
        async with self._places:
            begin = time.time()
            await asyncio.sleep(self.work.duration("model", number))
            self.replies.append(Interval(number, begin, time.time()))
        text = _reply(asked["model"], asked["messages"][-1]["content"], number)
        usage = {"prompt_tokens": 500, "completion_tokens": 50, "total_tokens": 550}
        head = {"id": f"reply-{number}", "created": int(begin), "model": asked["model"]}
        if asked.get("stream"):
            return StreamingResponse(_stream(head, text, usage), media_type="text/event-stream")
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        return JSONResponse({**head, "object": "chat.completion", "choices": [choice], "usage": usage})


async def _stream(head: dict[str, Any], text: str, usage: dict[str, int]) -> AsyncIterator[str]:
    head = {**head, "object": "chat.completion.chunk"}
    delta = {"role": "assistant", "content": text}
    for choices, more in (
        ([{"index": 0, "delta": delta, "finish_reason": None}], {}),
        ([{"index": 0, "delta": {}, "finish_reason": "stop"}], {}),
        ([], {"usage": usage}),
    ):
        yield f"data: {json.dumps({**head, 'choices': choices, **more})}\n\n"
    yield "data: [DONE]\n\n"


def _reply(form: str, prompt: str, number: int) -> str:
    """A changed program in the form that the system asks for, which the model's name tells.

    "block" is the last block that the prompt shows; "program" is the whole file, with the name and the description
    that ShinkaEvolve wants around it and that OpenEvolve passes over.
    """
    if form == "block":
        shown = re.findall(r"```python\n(.*?)```", prompt, re.DOTALL)[-1]
        return f"```python\n{_numbered(shown, number)}```"
    program = f"<CODE>\n```python\n{_numbered(PROGRAM, number)}```\n</CODE>"
    return f"<NAME>\nnumber_{number}\n</NAME>\n<DESCRIPTION>\nAnother number.\n</DESCRIPTION>\n{program}"


def _numbered(code: str, number: int) -> str:
    return re.sub(r"return \d+", f"return {number}", code)


def busy(intervals: Sequence[Interval]) -> float:
    """Seconds that places were taken, summed over the places."""
    return sum(each.end - each.begin for each in intervals)
