"""How a run got better: after each evaluation the hypervolume and the best so far, beside what was spent by then."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guided_evolution import selection
from guided_evolution.individual import Individual, Status
from guided_evolution.population import points, reference_point, violations
from guided_evolution.run import Run

Floats = NDArray[np.float64]


def evaluated(run: Run) -> list[Individual]:
    """What was evaluated, in the order of completion: each distinct program once, failures included, the seed first."""
    mine = [
        each
        for each in run.individuals
        if each.outcome is not None and each.twin is None and each.status is not Status.REJECTED
    ]
    return sorted(mine, key=lambda each: (run.finished.get(each.id, 0.0), each.id))


def series(run: Run, reference: Sequence[float] | None = None) -> dict[str, Any]:
    """The run's progress as columns of equal length, one entry per evaluation.

    `evaluations` counts from 1, the seed; `id` is the individual; `tokens`, `usd` and `seconds` (wall-clock since the
    run began, pauses between sessions included) are what was spent until then; `entered` says whether it joined the
    front at that moment. `best` holds the best value so far of each objective, and `best_within_seed` the best among
    those that are no worse than the seed in every other objective: the paper's curve of the best accuracy among
    networks no larger than the seed. Both leave out what breaks a constraint; None until there is one. Where tokens or
    money went on after the last evaluation, `tail` says how much it came to.

    Args:
        reference: The hypervolume's, to be minimised, for runs that are compared; None takes the run's own.
    """
    order = evaluated(run)
    spent = _spent(run, [run.finished.get(each.id, 0.0) for each in order])
    good = [index for index, each in enumerate(order) if each.ok]
    scored = [order[index] for index in good]
    values = points(run.problem, scored)
    feasible = violations(run.problem, scored) == 0
    bound = reference_point(run.problem, scored) if reference is None else reference
    volume, entered = _volumes(values, feasible, bound)
    within = {
        objective.name: feasible & _no_worse_elsewhere(values, scored, column)
        for column, objective in enumerate(run.problem.objectives)
    }
    columns = range(len(run.problem.objectives))
    signs = [-1.0 if objective.goal == "max" else 1.0 for objective in run.problem.objectives]
    names = [objective.name for objective in run.problem.objectives]

    def spread(rows: Sequence[Any], start: Any) -> list[Any]:
        return _spread(rows, good, len(order), start)

    return {
        "id": [each.id for each in order],
        "evaluations": list(range(1, len(order) + 1)),
        **spent,
        "hypervolume": spread(volume, 0.0),
        "entered": [bool(flag) for flag in _marks(entered, good, len(order))],
        "best": {names[column]: spread(_best(values[:, column], feasible, signs[column]), None) for column in columns},
        "best_within_seed": {
            names[column]: spread(_best(values[:, column], within[names[column]], signs[column]), None)
            for column in columns
        },
        "tail": {"tokens": run.spending["tokens_in"] + run.spending["tokens_out"], "usd": run.spending["usd"]},
    }


def entered(run: Run, progress: dict[str, Any] | None = None) -> set[int]:
    """The ids of those that joined the front when they were scored; `progress` is the run's `series`, if known."""
    progress = progress or series(run)
    return {number for number, joined in zip(progress["id"], progress["entered"], strict=True) if joined}


def _spent(run: Run, times: Sequence[float]) -> dict[str, list[float]]:
    ends = np.array([call.finished for call in run.paid_calls])
    tokens = np.cumsum([0, *((call.tokens_in or 0) + (call.tokens_out or 0) for call in run.paid_calls)])
    money = np.cumsum([0.0, *(call.usd or 0.0 for call in run.paid_calls)])
    upto = np.searchsorted(ends, np.array(times), side="right")
    begun = run.created
    return {
        "tokens": tokens[upto].tolist(),
        "usd": money[upto].tolist(),
        "seconds": [max(0.0, time - begun) for time in times],
    }


def _volumes(values: Floats, feasible: NDArray[np.bool_], reference: Sequence[float]) -> tuple[list[float], list[bool]]:
    """The hypervolume after each point, and whether the point joined the front; measured again only when it did."""
    archive = np.empty((0, values.shape[1]))
    volume, volumes, entered = 0.0, [], []
    for point, counts in zip(values, feasible, strict=True):
        joins = bool(counts) and not (archive <= point).all(axis=1).any()
        if joins:
            archive = np.vstack([archive[~(point <= archive).all(axis=1)], point])
            volume = selection.hypervolume(archive, reference)
        volumes.append(volume)
        entered.append(joins)
    return volumes, entered


def _no_worse_elsewhere(values: Floats, scored: Sequence[Individual], column: int) -> NDArray[np.bool_]:
    seed = next((index for index, each in enumerate(scored) if each.id == 0), None)
    if seed is None:
        return np.zeros(len(scored), dtype=bool)
    others = np.delete(np.arange(values.shape[1]), column)
    kept: NDArray[np.bool_] = (values[:, others] <= values[seed, others]).all(axis=1)
    return kept


def _best(values: Floats, counts: NDArray[np.bool_], sign: float) -> list[float | None]:
    best = np.minimum.accumulate(np.where(counts, values, np.inf))
    return [float(sign * value) if np.isfinite(value) else None for value in best]


def _spread(rows: Sequence[Any], places: Sequence[int], length: int, start: Any) -> list[Any]:
    """The rows at their places, each held until the next."""
    result, known, current = [], dict(zip(places, rows, strict=True)), start
    for index in range(length):
        current = known.get(index, current)
        result.append(current)
    return result


def _marks(flags: Sequence[bool], places: Sequence[int], length: int) -> NDArray[np.bool_]:
    marks = np.zeros(length, dtype=bool)
    marks[[place for place, flag in zip(places, flags, strict=True) if flag]] = True
    return marks
