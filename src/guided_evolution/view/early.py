"""What was stopped early, and what that saved."""

from __future__ import annotations

from typing import Any

from guided_evolution.individual import Individual, Status
from guided_evolution.run import Run


def pruned(run: Run) -> dict[str, Any]:
    """How many `programs` were stopped early here, and the `seconds` of evaluation that this saved, about.

    For each, what whole evaluations took on average after the step at which it was stopped, less the time that the
    stopping took. None where no whole evaluation tells.
    """
    programs = {each.genome.digest: each for each in reversed(run.individuals) if _measured(each)}
    stopped = [each for each in programs.values() if each.status is Status.PRUNED]
    after: dict[int, list[float]] = {}
    for each in programs.values() if stopped else ():
        first, _ = run.verifications.get(each.id, (each.outcome, None))
        if each.ok and first is not None:
            for result in run.curve(each.genome.digest):
                after.setdefault(result.step, []).append(first.seconds - result.seconds)
    saved = [_saved(run, each, after) for each in stopped]
    known = [seconds for seconds in saved if seconds is not None]
    return {"programs": len(stopped), "seconds": sum(known) if known else None}


def _measured(individual: Individual) -> bool:
    return individual.outcome is not None and not individual.outcome.taken_from


def _saved(run: Run, individual: Individual, after: dict[int, list[float]]) -> float | None:
    curve = run.curve(individual.genome.digest)
    left = after.get(curve[-1].step) if curve else None
    if not left or individual.outcome is None:
        return None
    stopping = individual.outcome.seconds - curve[-1].seconds
    return max(0.0, sum(left) / len(left) - stopping)
