"""What is measured of every run, at the end and after each evaluation, on a scale that all runs share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from guided_evolution import population, selection, view
from guided_evolution.individual import Individual
from guided_evolution.problem import Problem
from guided_evolution.run import Run

# fronts that are the same must give the same number, in whatever order their members came
_DECIMALS = 9


@dataclass(frozen=True, slots=True)
class Measure:
    """One number that says how far a run came.

    Attributes:
        key: "volume" or "best".
        name: How people call it.
        unit: What a difference is counted in; empty for an objective's own unit.
        larger: Whether more is better.
    """

    key: str
    name: str
    unit: str
    larger: bool


@dataclass(frozen=True, slots=True)
class Course:
    """The measures of a run after each evaluation, the seed program's first.

    Attributes:
        volume: Hypervolume in percent of that of the joint front of all runs.
        best: The first objective's best value so far, of programs that satisfy the constraints and are no worse than
            the seed in every other objective (`population.champion`); None until there is one.
    """

    volume: tuple[float, ...]
    best: tuple[float | None, ...]


def measures(problem: Problem) -> tuple[Measure, ...]:
    """What the runs of a problem are compared by."""
    first = problem.objectives[0]
    return Measure("volume", "hypervolume", "points", True), Measure(
        "best", f"best {first.name}", "", first.goal == "max"
    )


def reference(runs: Sequence[Run]) -> tuple[float, ...]:
    """The reference that all hypervolumes are measured against, to be minimised.

    It is the objectives' own, else the worst value among the runs' fronts and the seed: the worst of all programs would
    let a single wild one flatten every difference.
    """
    everyone = [each for run in runs for each in (*run.front, *(one for one in run.individuals if one.id == 0))]
    return population.reference_point(runs[0].problem, everyone)


def courses(runs: Sequence[Run]) -> list[Course]:
    """The course of every run, on one scale."""
    bound = reference(runs)
    pooled = [each for run in runs for each in run.front]
    whole = population.hypervolume(runs[0].problem, pooled, bound)
    return [_course(run, bound, whole) for run in runs]


def _course(run: Run, bound: Sequence[float], whole: float) -> Course:
    progress = view.series(run, bound)
    volume = tuple(round(100 * each / whole, _DECIMALS) if whole else 0.0 for each in progress["hypervolume"])
    seed = run.individuals[0]
    # a seed that breaks a constraint sets no bar
    barred = not population.violations(run.problem, [seed])[0]
    best = progress["best_within_seed" if barred else "best"][run.problem.objectives[0].name]
    return Course(volume, tuple(best))


def joint_front(problem: Problem, runs: Sequence[Run]) -> list[tuple[Run, Individual]]:
    """The members of the runs' fronts that no member of another one beats, by the first objective, best first."""
    members = [(run, each) for run in runs for each in run.front]
    if not members:
        return []
    individuals = [each for _, each in members]
    kept = selection.nondominated(population.points(problem, individuals), population.violations(problem, individuals))
    first: dict[tuple[float, ...], tuple[Run, Individual]] = {}
    for stays, (run, each) in zip(kept, members, strict=True):
        if stays:
            first.setdefault(problem.point(each.scores), (run, each))
    return [first[point] for point in sorted(first)]
