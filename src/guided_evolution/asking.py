"""The asking lane: how many questions at a time, what they may cost, and what happens when nobody answers."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import time
from collections.abc import AsyncIterator, Callable, Mapping

from guided_evolution.budget import Budget, Ledger
from guided_evolution.errors import ModelError, RequestRefusedError
from guided_evolution.events import Event
from guided_evolution.llm import LLM, Reply, Request

PAUSE_SECONDS = 60.0
LONGEST_PAUSE_SECONDS = 600.0
OUTAGE_SECONDS = 3600.0
_LOOK_SECONDS = 0.25


class Lane:
    """Some places for many children; a place that gets free goes to the lowest number that waits, of equals the first.

    So the first child of a generation is soon done with its questions, and evaluated while the others are asked for.
    """

    def __init__(self, places: int) -> None:
        self._free = places
        self._come = itertools.count()
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []

    @contextlib.asynccontextmanager
    async def place(self, number: int) -> AsyncIterator[None]:
        """Waits for a place, and holds it."""
        if self._free:
            self._free -= 1
        else:
            turn = asyncio.get_running_loop().create_future()
            heapq.heappush(self._waiting, (number, next(self._come), turn))
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():  # it was given a place in the same moment
                    self._leave()
                raise
        try:
            yield
        finally:
            self._leave()

    def _leave(self) -> None:
        while self._waiting:
            turn = heapq.heappop(self._waiting)[2]
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1


class Asker:
    """Asks models for a run: some at a time, within its budget, patiently.

    A question that fails for a passing reason, after all the attempts of the model's client, pauses the lane:
    nobody asks anything new, what is on its way may come, and the same question is asked again after 60 seconds,
    then after twice as long, up to ten minutes; a longer pause that the model asks for is kept. The lane goes on with
    the first answer.

    Attributes:
        before_asking: Called before every question and every fraction of a second of a pause; it raises to stop.
        stop: Called with a cap's name when the next question would go over it; it must make `before_asking` raise.
        outage_seconds: How long an outage may last before it is raised; 0 raises the first failure.
    """

    def __init__(
        self, parallel: int, budget: Budget, spending: Callable[[], Mapping[str, float]], emit: Callable[[Event], None]
    ) -> None:
        """Sets the lane up.

        Args:
            parallel: Questions at the same time, at least 1.
            budget: Caps on tokens and money; its other caps are not looked at here.
            spending: Gives what was recorded so far; see `Store.spending`.
            emit: Told of pauses and of their ends.
        """
        self._lane = Lane(parallel)
        self._ledger = Ledger(budget, spending)
        self._emit = emit
        self._answering = asyncio.Event()
        self._answering.set()
        self._settled = asyncio.Condition()
        self.before_asking: Callable[[], None] = lambda: None
        self.stop: Callable[[str], None] = lambda reason: None
        self.outage_seconds = OUTAGE_SECONDS

    async def ask(self, llm: LLM, request: Request, number: int, record: Callable[[Reply], None]) -> Reply:
        """The answer to a request for a child; `record` keeps it while the lane and the reservation are still held.

        Raises:
            ModelError: When the model refuses for good, or an outage lasts longer than `outage_seconds`.
        """
        async with self._lane.place(number):
            held = await self._reserve(llm, request)
            self._emit(Event("ask", number, request.purpose))
            reply = None
            try:
                reply = await self._patiently(llm, request, lambda piece: self._emit(Event("text", number, piece)))
                record(reply)
            finally:
                async with self._settled:
                    self._ledger.settle(held, request, reply)
                    self._settled.notify_all()
        return reply

    async def _reserve(self, llm: LLM, request: Request) -> int:
        """Waits for room in the budget; with nothing left in flight and still no room, the run ends."""
        async with self._settled:
            while True:
                self.before_asking()
                cap = self._ledger.lacking(llm, request)
                if not cap:
                    return self._ledger.reserve(llm, request)
                if not self._ledger.in_flight:
                    self.stop(cap)
                    self.before_asking()
                    raise ModelError(cap, permanent=True)
                await self._settled.wait()

    async def _patiently(self, llm: LLM, request: Request, on_text: Callable[[str], None]) -> Reply:
        while True:
            while not self._answering.is_set():
                await self._wait(_LOOK_SECONDS)
            self.before_asking()
            try:
                return await llm.ask(request, on_text)
            except RequestRefusedError:
                raise
            except ModelError as error:
                if error.permanent or self.outage_seconds <= 0:
                    raise
                if self._answering.is_set():
                    return await self._through_outage(llm, request, on_text, error)

    async def _through_outage(
        self, llm: LLM, request: Request, on_text: Callable[[str], None], error: ModelError
    ) -> Reply:
        """Asks again and again, alone, until there is an answer; everybody else waits."""
        begun, pause = time.monotonic(), PAUSE_SECONDS
        self._answering.clear()
        try:
            while (left := self.outage_seconds - (time.monotonic() - begun)) > 0:
                if error.retry_after > left:
                    break
                wait = max(pause, error.retry_after)
                trouble = str(error).strip().rstrip(".")
                text = f"the model does not answer ({trouble}); trying again in {wait:.0f} s, Ctrl-C stops, "
                self._emit(Event("note", text=text + "`ge resume` goes on"))
                await self._wait(wait)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
                try:
                    reply = await llm.ask(request, on_text)
                except RequestRefusedError:
                    raise
                except ModelError as again:
                    if again.permanent:
                        raise
                    error = again
                else:
                    self._emit(Event("note", text=f"the model answers again after {time.monotonic() - begun:.0f} s"))
                    return reply
            raise error
        finally:
            self._answering.set()

    async def _wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.before_asking()
            await asyncio.sleep(min(left, _LOOK_SECONDS))
        self.before_asking()
