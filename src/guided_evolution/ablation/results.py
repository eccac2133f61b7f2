"""What the finished runs of an ablation came to, and how each arm compares with the first."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from guided_evolution import population, view
from guided_evolution.ablation import statistics
from guided_evolution.ablation.plan import Plan
from guided_evolution.run import Run


@dataclass(frozen=True, slots=True)
class Ended:
    """One finished run.

    Attributes:
        evaluations: Distinct programs that were scored, the seed program included.
        taken: Those whose score was taken from another run.
        replies_taken: Replies that were taken from another run, and cost nothing.
        volume: Hypervolume of its front, in percent of the largest of any run.
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
    stop_reason: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """An arm against the first, paired by seed; differences are the arm's hypervolume less the first's, in points."""

    arm: str
    differences: tuple[float, ...]
    interval: tuple[float, float] | None
    p: float
    corrected: float
    effect: float
    detectable: float | None
    comparisons: int

    @property
    def mean(self) -> float:
        """The mean difference, in points."""
        return float(np.mean(self.differences))


def gather(plan: Plan, root: Path) -> list[Ended]:
    """All runs of a finished ablation, in the order of the plan."""
    opened = {(cell.arm.name, cell.seed): Run(plan.folder(root, cell)) for cell in plan.cells}
    problem = next(iter(opened.values())).problem
    everyone = [each for run in opened.values() for each in run.individuals]
    reference = population.reference_point(problem, everyone)
    whole = max((run_volume(run, reference) for run in opened.values()), default=0.0)
    return [
        _ended(arm, seed, run, 100 * run_volume(run, reference) / whole if whole else 0.0)
        for (arm, seed), run in opened.items()
    ]


def run_volume(run: Run, reference: tuple[float, ...]) -> float:
    """The hypervolume of a run's front against a common reference."""
    return population.hypervolume(run.problem, run.front, reference)


def _ended(arm: str, seed: int, run: Run, volume: float) -> Ended:
    spent, programs = run.spending, view.series(run)["id"]
    return Ended(
        arm,
        seed,
        len(programs),
        len(run.individuals) - 1,
        int(spent["calls"]),
        int(spent["tokens_in"] + spent["tokens_out"]),
        run.seconds,
        sum(bool((outcome := run.by_id[number].outcome) and outcome.taken_from) for number in programs),
        int(spent.get("taken", 0)),
        volume,
        run.stop_reason,
    )


def compare(plan: Plan, runs: list[Ended]) -> list[Comparison]:
    """Each arm against the first."""
    values = {(run.arm, run.seed): run.volume for run in runs}
    first, *others = (arm.name for arm in plan.arms)
    rng = np.random.default_rng(0)
    pairs = {name: [values[name, seed] - values[first, seed] for seed in plan.seeds] for name in others}
    ps = [statistics.sign_flip_p(each, rng) for each in pairs.values()]
    return [
        Comparison(
            name,
            tuple(each),
            statistics.bootstrap_interval(each, rng),
            p,
            corrected,
            statistics.rank_biserial(each),
            statistics.detectable(each, len(others)),
            len(others),
        )
        for (name, each), p, corrected in zip(pairs.items(), ps, statistics.holm(ps), strict=True)
    ]


def sentence(found: Comparison, first: str) -> str:
    """What may be concluded from a comparison, and what not."""
    n, count = len(found.differences), found.comparisons
    if not any(found.differences):
        return f"{found.arm}: the same hypervolume as {first} in all {n} seeds: nothing tells them apart."
    worse = sum(each < 0 for each in found.differences)
    low, high = found.interval or (float("nan"), float("nan"))
    within = f" (95 % interval {low:+.2g} to {high:+.2g})" if found.interval else ""
    head = (
        f"{found.arm}: hypervolume {abs(found.mean):.2g} points {'lower' if found.mean < 0 else 'higher'} than {first}"
        f"{within}, lower in {worse} of {n} seeds, p = {found.corrected:.2g} after Holm"
    )
    if (least := statistics.smallest_p(n, count)) > statistics.LEVEL:
        needed = statistics.pairs_needed(count)
        return (
            f"{head}: no conclusion is possible; with {n} seeds and {count} comparisons p can't fall "
            f"below {least:.2g}, it takes {needed} seeds."
        )
    if found.corrected <= statistics.LEVEL:
        return f"{head}: a difference, on this problem with these models at this budget; it says nothing of others."
    limit = f" only differences larger than about {found.detectable:.2g} points could be told apart" * (
        found.detectable is not None
    )
    return f"{head}: no conclusion{f'; with {n} seeds{limit}' if limit else ''}."
