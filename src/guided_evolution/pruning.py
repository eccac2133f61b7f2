"""Which evaluations are hopeless by their partial results: successive halving for several objectives.

After Li, Jamieson, Rostamizadeh, Gonina, Ben-tzur, Hardt, Recht, Talwalkar, "A System for Massively Parallel
Hyperparameter Tuning" (ASHA), MLSys 2020: at rungs of geometrically growing effort, a candidate goes on only when it
isn't among the worse half of those that came so far. The first step is no rung: the best may still be at chance there.
Two things differ, because here a front is looked for and a run can be repeated:

* Worse is what is *dominated*. A candidate stops when at least half of the earlier evaluations dominate it at the same
  step: each of them is better in one objective there and worse in none. So whatever nobody dominates goes on, a small
  network that learns less included.
* It is compared with evaluations that ended before it was planned, never with those that run beside it, so that the
  order in which things finish decides nothing.

Everything here is a pure function of its arguments; only values decide, never the order of the curves.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from guided_evolution.curves import Curve
from guided_evolution.problem import Problem

# Fewer curves than this say too little to stop anything.
MINIMUM = 5
# A candidate stops when at least this share of the curves dominates it.
SHARE = 0.5
# After the first step nobody has learned much, the best included: nothing is stopped before this one.
FIRST = 2


def is_rung(step: int) -> bool:
    """Whether something may be decided at a step: at 2, 4, 8 and so on, each at twice the effort of the last."""
    return step >= FIRST and step & (step - 1) == 0


def usual_length(curves: Sequence[Curve]) -> int:
    """The number of steps that at least half of the whole evaluations reach; 0 when there are none."""
    lengths = [curve.last for curve in curves if curve.whole and curve.last]
    return statistics.median_low(lengths) if lengths else 0


def hopeless(problem: Problem, curves: Sequence[Curve], step: int, scores: Mapping[str, float]) -> str:
    """Why an evaluation needn't go on after a step; empty when it goes on.

    It always goes on where nothing can be said: away from the rungs, at the last step that evaluations usually have,
    with fewer than `MINIMUM` curves at this step, and when an objective or a constrained number is missing from the
    partial result.

    Args:
        problem: Its objectives and constraints.
        curves: The earlier evaluations, those included that were stopped after some steps.
        step: Number of the partial result, from 1.
        scores: Its finite numbers by name.
    """
    if not is_rung(step) or lacking(problem, scores):
        return ""
    length = usual_length(curves)
    found = [result.scores for curve in curves if (result := curve.at(step)) is not None]
    peers = [each for each in found if not lacking(problem, each)]
    if step >= length or len(peers) < MINIMUM:
        return ""
    better = int(dominators(problem, scores, peers).sum())
    if better < SHARE * len(peers):
        return ""
    where = f"{better} of {len(peers)} were better"
    return f"stopped after step {step} of {length}: {named(problem, scores)}, where {where}"


def dominators(
    problem: Problem, scores: Mapping[str, float], peers: Sequence[Mapping[str, float]]
) -> NDArray[np.bool_]:
    """Marks the peers that dominate a candidate: less violation, or as much, no objective worse and one better.

    Returns:
        Shape (n,) for n peers.
    """
    rows = [problem.point(each) for each in (scores, *peers)]
    points = np.array(rows, dtype=float).reshape(len(rows), len(problem.objectives))
    violations = np.array([problem.violation(each) for each in (scores, *peers)], dtype=float)
    mine, theirs = points[0], points[1:]
    better = (theirs <= mine).all(axis=1) & (theirs < mine).any(axis=1)
    result: NDArray[np.bool_] = (violations[1:] < violations[0]) | ((violations[1:] == violations[0]) & better)
    return result


def lacking(problem: Problem, scores: Mapping[str, float]) -> list[str]:
    """The objectives and constrained numbers that a partial result doesn't hold: by those it may yet be the best."""
    names = dict.fromkeys([*(each.name for each in problem.objectives), *(each.name for each in problem.constraints)])
    return [name for name in names if name not in scores]


def obstacle(problem: Problem, curve: Curve) -> str:
    """Why nothing can ever be stopped early, judged by one whole evaluation; empty when something can."""
    if curve.last <= FIRST:
        return f"nothing can be stopped early: evaluate yields no more than {FIRST} partial results"
    names = lacking(problem, curve.results[0].scores)
    return f"nothing can be stopped early: the partial results hold no {', no '.join(names)}" if names else ""


def named(problem: Problem, scores: Mapping[str, float]) -> str:
    """The objectives that a partial result holds, in words."""
    known = {each.name: float(scores[each.name]) for each in problem.objectives if each.name in scores}
    return ", ".join(
        f"{name} {f'{value:,.0f}' if value.is_integer() else f'{value:.4g}'}" for name, value in known.items()
    )
