"""Champions are measured twice: what two measurements of one program mean together."""

from __future__ import annotations

import math
from dataclasses import replace

from guided_evolution.individual import Outcome
from guided_evolution.problem import Problem

# Stages of the record: the second measurement, and the first one where it was not believed.
VERIFY, FIRST = "verify", "first"
TOLERANCE = 1e-9


def agree(problem: Problem, first: Outcome, second: Outcome) -> bool:
    """Whether two measurements give the same scores, but for rounding."""
    return second.ok and not differing(problem, first, second)


def differing(problem: Problem, first: Outcome, second: Outcome) -> list[str]:
    """The objectives whose values differ by more than rounding; both must have scores."""
    return [
        each.name
        for each in problem.objectives
        if not math.isclose(first.scores[each.name], second.scores[each.name], rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    ]


def worse_of(problem: Problem, first: Outcome, second: Outcome) -> Outcome:
    """What is believed of a program that was scored, and then measured again.

    Returns:
        `first` itself when both agree. Else the second with, in each objective, the worse of both values; a second
        measurement that failed makes the program a failure.
    """
    if agree(problem, first, second):
        return first
    if not second.ok:
        return replace(second, reason=f"scored once, and failed when it was evaluated again: {second.reason}")
    scores = {
        each.name: max(first.scores[each.name], second.scores[each.name], key=each.minimised)
        for each in problem.objectives
    }
    return replace(second, scores=scores)
