"""What the finished runs of an ablation came to, and how each arm compares with the first."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from guided_evolution.ablation import statistics
from guided_evolution.ablation.earlier import Earlier
from guided_evolution.ablation.measures import Course, Measure, courses, joint_front, measures
from guided_evolution.ablation.operators import Tally, tally
from guided_evolution.ablation.plan import Plan
from guided_evolution.problem import Problem
from guided_evolution.run import Run
from guided_evolution.view.course import evaluated


@dataclass(frozen=True, slots=True)
class Ended:
    """One finished run.

    Attributes:
        evaluations: Distinct programs that were scored, the seed program included.
        taken: Those whose score was taken from another run.
        replies_taken: Replies that were taken from another run, and cost nothing.
        volume: Hypervolume of its front, in percent of that of the joint front of all runs.
        best: The first objective's best value among programs that satisfy the constraints and are no worse than the
            seed in every other objective; None where there is none.
    """

    arm: str
    seed: int
    evaluations: int
    children: int
    calls: int
    tokens: int
    seconds: float
    taken: int
    replies_taken: int
    volume: float
    best: float | None
    stop_reason: str

    def value(self, measure: Measure) -> float | None:
        """What it came to in one measure."""
        return self.volume if measure.key == "volume" else self.best


@dataclass(frozen=True, slots=True)
class Comparison:
    """An arm against the first in one measure, paired by seed; differences are the arm's value less the first's.

    A difference is None where one of the two has no value; nothing is computed from the others then, for what is
    missing is no accident.
    """

    arm: str
    differences: tuple[float | None, ...]
    interval: tuple[float, float] | None
    p: float | None
    corrected: float | None
    effect: float | None
    detectable: float | None
    comparisons: int
    measure: Measure

    @property
    def known(self) -> list[float]:
        """The differences that there are."""
        return [each for each in self.differences if each is not None]

    @property
    def mean(self) -> float | None:
        """The mean difference; None where one is missing."""
        return float(np.mean(self.known)) if len(self.known) == len(self.differences) else None

    def to_json(self) -> dict[str, Any]:
        """The comparison as plain values."""
        names = ("differences", "interval", "p", "corrected", "effect", "detectable", "comparisons", "mean")
        return {"measure": self.measure.key, "arm": self.arm, **{name: getattr(self, name) for name in names}}


@dataclass(frozen=True, slots=True)
class Curve:
    """An arm's mean over seeds in one measure after each evaluation, with pointwise 95 % intervals.

    Attributes:
        mean: One entry per evaluation, the seed program's first; None while a run has no value.
        low: Lower ends of the intervals; None where there are fewer than two seeds, too.
        high: Upper ends.
    """

    measure: Measure
    arm: str
    mean: tuple[float | None, ...]
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]

    def to_json(self) -> dict[str, Any]:
        """The curve as plain values."""
        lists = {name: list(getattr(self, name)) for name in ("mean", "low", "high")}
        return {"measure": self.measure.key, "arm": self.arm, **lists}


@dataclass(frozen=True, slots=True)
class Results:
    """Everything that a finished ablation says.

    Attributes:
        plan: With the seeds that were finished.
        planned: How many seeds there are to be.
        runs: In the order of the plan.
        comparisons: Measure by measure, each arm but the first.
        curves: Measure by measure, each arm.
        operators: Arm by arm, what each operator came to.
        fronts: By arm the pooled front of its runs; each member with its `seed`, `id` and `scores`.
        start: The seed program's scores; empty where it has none.
        versions: Of the packages and the interpreter, as the first run recorded them.
    """

    plan: Plan
    planned: int
    problem: Problem
    measures: tuple[Measure, ...]
    runs: tuple[Ended, ...]
    comparisons: tuple[Comparison, ...]
    curves: tuple[Curve, ...]
    operators: tuple[Tally, ...]
    fronts: Mapping[str, Sequence[Mapping[str, Any]]]
    start: Mapping[str, float]
    versions: Mapping[str, str]


def gather(plan: Plan, root: Path, planned: int | None = None) -> Results:
    """The results of a finished ablation, or of the first seeds or evaluations of one.

    Args:
        plan: All of its runs are finished; each is looked at as it was after the plan's number of evaluations.
        planned: How many seeds there are to be; None when these are all.
    """
    with contextlib.ExitStack() as stack:
        whole = [stack.enter_context(contextlib.closing(Run(plan.folder(root, cell)))) for cell in plan.cells]
        runs = [Earlier(run, plan.evaluations) for run in whole]
        problem = runs[0].problem
        found = courses(runs)
        ended = [
            _ended(cell.arm.name, cell.seed, run, course)
            for cell, run, course in zip(plan.cells, runs, found, strict=True)
        ]
        by_arm = {arm.name: [index for index, cell in enumerate(plan.cells) if cell.arm == arm] for arm in plan.arms}
        fronts = {name: _front(plan, problem, runs, places) for name, places in by_arm.items()}
        ways = measures(problem)
        return Results(
            plan,
            planned or len(plan.seeds),
            problem,
            ways,
            tuple(ended),
            tuple(each for way in ways for each in compare(plan, ended, way)),
            tuple(
                curve(way, name, [getattr(found[place], way.key) for place in places], plan.evaluations)
                for way in ways
                for name, places in by_arm.items()
            ),
            tuple(each for name, places in by_arm.items() for each in tally(name, [runs[place] for place in places])),
            fronts,
            dict(runs[0].individuals[0].scores) if runs[0].individuals[0].ok else {},
            dict(runs[0].versions),
        )


def _front(plan: Plan, problem: Problem, runs: Sequence[Run], places: Sequence[int]) -> list[dict[str, Any]]:
    seeds = {id(runs[place]): plan.cells[place].seed for place in places}
    members = joint_front(problem, [runs[place] for place in places])
    return [{"seed": seeds[id(run)], "id": each.id, "scores": dict(each.scores)} for run, each in members]


def _ended(arm: str, seed: int, run: Run, course: Course) -> Ended:
    spent, programs = run.spending, evaluated(run)
    return Ended(
        arm,
        seed,
        len(programs),
        len(run.individuals) - 1,
        int(spent["calls"]),
        int(spent["tokens_in"] + spent["tokens_out"]),
        run.seconds,
        sum(bool(each.outcome and each.outcome.taken_from) for each in programs),
        int(spent.get("taken", 0)),
        course.volume[-1],
        course.best[-1],
        run.stop_reason,
    )


def compare(plan: Plan, runs: Sequence[Ended], measure: Measure) -> list[Comparison]:
    """Each arm against the first in one measure; Holm's correction is over the arms."""
    values = {(run.arm, run.seed): run.value(measure) for run in runs}
    first, *others = (arm.name for arm in plan.arms)
    rng = np.random.default_rng(0)
    pairs = {name: [_less(values[name, seed], values[first, seed]) for seed in plan.seeds] for name in others}
    whole = {name: [each for each in row if each is not None] for name, row in pairs.items() if None not in row}
    ps = {name: statistics.sign_flip_p(row, rng) for name, row in whole.items()}
    # arms without a p count as well: how much is corrected must not depend on how it went
    corrected = dict(zip(pairs, statistics.holm([ps.get(name, 1.0) for name in pairs]), strict=True))
    return [
        Comparison(
            name,
            tuple(row),
            statistics.bootstrap_interval(whole[name], rng) if name in whole else None,
            ps.get(name),
            corrected[name] if name in whole else None,
            statistics.rank_biserial(whole[name]) if name in whole else None,
            statistics.detectable(whole[name], len(others)) if name in whole else None,
            len(others),
            measure,
        )
        for name, row in pairs.items()
    ]


def _less(mine: float | None, theirs: float | None) -> float | None:
    return None if mine is None or theirs is None else mine - theirs


def curve(measure: Measure, arm: str, rows: Sequence[Sequence[float | None]], evaluations: int) -> Curve:
    """The mean of an arm's runs after each evaluation up to the common number.

    Args:
        rows: The values of each run; one that ended early keeps its last.
    """
    held = [[*row[:evaluations], *[row[-1]] * (evaluations - len(row))] for row in rows]
    table = np.array(held, dtype=float)  # None becomes NaN
    known = ~np.isnan(table).any(axis=0)
    mean = np.full(evaluations, np.nan)
    low, high = mean.copy(), mean.copy()
    mean[known] = table[:, known].mean(axis=0)
    if len(table) > 1 and known.any():
        low[known], high[known] = statistics.bootstrap_band(table[:, known], np.random.default_rng(0))
    return Curve(measure, arm, _plain(mean), _plain(low), _plain(high))


def _plain(values: Any) -> tuple[float | None, ...]:
    return tuple(None if np.isnan(value) else float(value) for value in values)
