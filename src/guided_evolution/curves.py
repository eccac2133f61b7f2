"""Learning curves: what an evaluation reports on its way to its scores."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

# From the number of a partial result (from 1) and its numbers to why the evaluation stops there; empty goes on.
Decision: TypeAlias = Callable[[int, Mapping[str, float]], str]

_DENSE = 7


@dataclass(frozen=True, slots=True)
class PartialResult:
    """What an evaluation reported at one step.

    Attributes:
        step: Which of its partial results it is, from 1.
        seconds: Wall time from the evaluation's beginning until it arrived.
        scores: Its finite numbers by name, objectives and metrics alike.
    """

    step: int
    seconds: float
    scores: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Curve:
    """The partial results of one evaluation, in their order.

    Attributes:
        whole: Whether it went to its end; False for one that was stopped early.
    """

    results: tuple[PartialResult, ...]
    whole: bool = True

    @property
    def last(self) -> int:
        """The number of its last step; 0 for an evaluation that reported nothing."""
        return self.results[-1].step if self.results else 0

    def at(self, step: int) -> PartialResult | None:
        """What it reported at a step; None where it did not come so far, or the step was not kept."""
        return next((result for result in self.results if result.step == step), None)


def is_kept(step: int) -> bool:
    """Whether a step is recorded: each of the first 127, then evenly spaced ones, 64 for every doubling.

    Every power of two is among them, so that what is decided at those can be looked up.
    """
    return step % (1 << max(0, step.bit_length() - _DENSE)) == 0


class Watch:
    """Follows one evaluation: keeps its learning curve, and decides at every step whether it goes on.

    Attributes:
        verdict: Why it was stopped; empty while it goes on.
        stopped_at: The partial result that decided; None while it goes on.
    """

    def __init__(self, decide: Decision) -> None:
        self.verdict = ""
        self.stopped_at: Mapping[str, float] | None = None
        self._decide = decide
        self._step = 0
        self._kept: list[tuple[int, float, Mapping[str, float]]] = []
        self._last: tuple[int, float, Mapping[str, float]] | None = None

    def take(self, scores: Mapping[str, float]) -> bool:
        """Takes the next partial result; True when the evaluation is to stop.

        What arrives after that is left out, so that how fast it was stopped makes no difference.
        """
        if not self.verdict:
            self._step += 1
            self._last = (self._step, time.monotonic(), scores)
            if is_kept(self._step):
                self._kept.append(self._last)
            if verdict := self._decide(self._step, scores):
                self.verdict, self.stopped_at = verdict, scores
        return bool(self.verdict)

    def curve(self, seconds: float) -> Curve:
        """The curve of an evaluation that ended just now, and took so many seconds."""
        began = time.monotonic() - seconds
        kept = [*self._kept, self._last] if self._last is not None and self._last not in self._kept[-1:] else self._kept
        results = (PartialResult(step, min(max(0.0, at - began), seconds), scores) for step, at, scores in kept)
        return Curve(tuple(results), whole=not self.verdict)
