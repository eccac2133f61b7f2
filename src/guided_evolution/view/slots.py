"""When the model and the evaluations were busy."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from typing import Any

from guided_evolution.run import Run
from guided_evolution.view.course import evaluated

MODEL, EVALUATION = "model", "evaluation"


def lanes(run: Run) -> list[dict[str, Any]]:
    """The busy intervals of both lanes in the order of their beginnings.

    Each has `lane` ("model" or "evaluation"), `slot` (from 0), `start` and `end` in wall-clock seconds since the run
    began, `individual`, and `kind`: a question's purpose or an evaluation's status. The problem's cheap check, which is
    not timed to a moment, is left out.
    """
    asked = ((call.finished, call.seconds, call.individual, call.purpose) for call in run.calls)
    scored = (
        (run.finished.get(each.id, 0.0), each.outcome.seconds, each.id, each.status.value)
        for each in evaluated(run)
        if each.outcome is not None
    )
    rows = [*_placed(MODEL, asked, run.created), *_placed(EVALUATION, scored, run.created)]
    return sorted(rows, key=lambda row: row["start"])


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
