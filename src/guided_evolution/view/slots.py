"""When the model and the evaluations were busy."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from guided_evolution.individual import Outcome
from guided_evolution.run import Run
from guided_evolution.verification import FIRST, VERIFY
from guided_evolution.view.course import evaluated

MODEL, EVALUATION = "model", "evaluation"
FULL, IDLE = 0.9, 0.6  # a lane this busy holds the run up, one this busy has room


def lanes(run: Run) -> list[dict[str, Any]]:
    """The busy intervals of both lanes in the order of their beginnings.

    Each has `lane` ("model" or "evaluation"), `slot` (from 0), `start` and `end` in wall-clock seconds since the run
    began, `individual`, and `kind`: a question's purpose or an evaluation's status. The problem's cheap check, which is
    not timed to a moment, is left out.
    """
    asked = ((call.finished, call.seconds, call.individual, call.purpose) for call in run.paid_calls)
    scored = ((ended, outcome.seconds, number, kind) for ended, outcome, number, kind in _evaluations(run))
    rows = [*_placed(MODEL, asked, run.created), *_placed(EVALUATION, scored, run.created)]
    return sorted(rows, key=lambda row: row["start"])


def _evaluations(run: Run) -> Iterator[tuple[float, Outcome, int, str]]:
    """Every evaluation that ran here: when it ended, what it gave, of which individual, and its kind."""
    replaced = run.finished_stage(FIRST)
    for each in evaluated(run):
        first, _ = run.verifications.get(each.id, (each.outcome, None))
        if first is not None and not first.taken_from:
            ended = replaced.get(each.id) or run.finished.get(each.id, 0.0)
            yield ended, first, each.id, first.status.value
    for number, ended in run.finished_stage(VERIFY).items():
        if number in run.verifications and not (second := run.verifications[number][1]).taken_from:
            yield ended, second, number, VERIFY


def lane_use(run: Run) -> Mapping[str, float]:
    """How busy each lane was: the share of its slots' wall-clock time spent on calls or evaluations, 0 to 1."""
    seconds = run.seconds
    if not seconds:
        return {}
    asked = run.spending["seconds"] / (seconds * run.settings.get("llm_parallel", 1))
    scored = sum(outcome.seconds for _, outcome, _, _ in _evaluations(run))
    return {MODEL: asked, EVALUATION: scored / _capacity(run)}


def _capacity(run: Run) -> float:
    """The seconds that the run's evaluation slots had, over sessions that may have had more or fewer of them."""
    begun = [begin for begin, _ in run.slots]
    lengths = [max(0.0, end - begin) for begin, end in zip(begun, [*begun[1:], run.seconds], strict=True)]
    return sum(length * slots for length, (_, slots) in zip(lengths, run.slots, strict=True)) or run.seconds


def advice(use: Mapping[str, float]) -> str:
    """What follows where one lane was full while the other had room; empty where nothing does."""
    model, evaluation = use.get(MODEL, 0.0), use.get(EVALUATION, 0.0)
    if model >= FULL and evaluation <= IDLE:
        return "more evaluation workers won't help"
    if evaluation >= FULL and model <= IDLE:
        return "a faster model won't help"
    return ""


def _placed(lane: str, work: Iterable[tuple[float, float, int, str]], origin: float) -> list[dict[str, Any]]:
    """Each piece of work in the lowest slot that is free when it begins."""
    rows = []
    free: list[int] = []
    busy: list[tuple[float, int]] = []
    for finished, seconds, number, kind in sorted(work, key=lambda item: item[0] - item[1]):
        start, end = finished - seconds - origin, finished - origin
        while busy and busy[0][0] <= start:
            heapq.heappush(free, heapq.heappop(busy)[1])
        slot = heapq.heappop(free) if free else len(busy)
        heapq.heappush(busy, (end, slot))
        rows.append({"lane": lane, "slot": slot, "start": start, "end": end, "individual": number, "kind": kind})
    return rows
