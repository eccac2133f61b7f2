"""Individuals as the arrays that selection works on."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from guided_evolution import selection
from guided_evolution.individual import Individual
from guided_evolution.problem import Problem


def points(problem: Problem, individuals: Sequence[Individual]) -> NDArray[np.float64]:
    """The scores, to be minimised: one row per individual, one column per objective; all must be OK."""
    rows = [problem.point(individual.scores) for individual in individuals]
    return np.array(rows, dtype=float).reshape(len(rows), len(problem.objectives))


def violations(problem: Problem, individuals: Sequence[Individual]) -> NDArray[np.float64]:
    """The sum of relative constraint violations of each individual; 0 is feasible."""
    return np.array([_violation(problem, individual) for individual in individuals], dtype=float)


def _violation(problem: Problem, individual: Individual) -> float:
    metrics = individual.outcome.metrics if individual.outcome else {}
    return problem.violation({**metrics, **individual.scores})


def distinct(individuals: Sequence[Individual]) -> list[Individual]:
    """Those that were scored, one for each program: the one with the lowest id."""
    first: dict[str, Individual] = {}
    for individual in sorted(individuals, key=lambda each: each.id):
        if individual.ok:
            first.setdefault(individual.genome.digest, individual)
    return list(first.values())


def front(problem: Problem, individuals: Sequence[Individual]) -> list[Individual]:
    """The non-dominated individuals, sorted by the first objective, best first; one for each point.

    Among individuals with equal scores the earliest stands for all.
    """
    scored = distinct(individuals)
    if not scored:
        return []
    where = points(problem, scored)
    kept = selection.nondominated(where, violations(problem, scored))
    first: dict[tuple[float, ...], Individual] = {}
    for index in np.flatnonzero(kept):
        first.setdefault(tuple(where[index]), scored[index])
    return [first[point] for point in sorted(first)]


def champion(problem: Problem, individuals: Sequence[Individual], seed: Individual) -> Individual:
    """The best in the first objective among those that are no worse than the seed in any other one.

    Equal ones are told apart by the other objectives, then by the id; where nobody else qualifies, it is the seed. A
    seed that breaks a constraint sets no bar: the least violating is the best then.
    """
    everyone = [seed, *(each for each in individuals if each.ok and each.id != seed.id)]
    if _violation(problem, seed) == 0:
        bar = problem.point(seed.scores)[1:]
        everyone = [each for each in everyone if _within(problem.point(each.scores)[1:], bar)]
    return min(everyone, key=lambda each: (_violation(problem, each), problem.point(each.scores), each.id))


def _within(point: Sequence[float], bar: Sequence[float]) -> bool:
    return all(mine <= theirs for mine, theirs in zip(point, bar, strict=True))


def reference_point(problem: Problem, individuals: Sequence[Individual]) -> tuple[float, ...]:
    """The hypervolume's reference, to be minimised: the objectives' own, else the worst value that was seen.

    Without any scored individual, an objective's missing reference is 0.
    """
    where = points(problem, [individual for individual in individuals if individual.ok])
    if not len(where):
        where = np.zeros((1, len(problem.objectives)))
    return tuple(
        float(where[:, column].max()) if objective.reference is None else objective.minimised(objective.reference)
        for column, objective in enumerate(problem.objectives)
    )


def hypervolume(problem: Problem, individuals: Sequence[Individual], reference: Sequence[float]) -> float:
    """The volume between the feasible individuals and the reference, in the objectives' own units."""
    feasible = [each for each in individuals if each.ok and _violation(problem, each) == 0]
    return selection.hypervolume(points(problem, feasible), reference) if feasible else 0.0


class Front:
    """The front of a run that grows: what `front` gives of everybody, without looking at everybody again.

    A newcomer costs a comparison with each member as one array, and nothing for those that were beaten before.

    Attributes:
        members: The non-dominated individuals, sorted by the first objective, best first; one for each point.
    """

    def __init__(self, problem: Problem) -> None:
        """Begins without anybody."""
        self._problem = problem
        self.members: list[Individual] = []
        self._places: list[tuple[float, ...]] = []
        self._points = np.zeros((0, len(problem.objectives)))
        self._violation = np.inf

    def entrants(self, newcomers: Sequence[Individual]) -> list[Individual]:
        """Those that would be members; none of their programs may be known to the front."""
        return [each for each in front(self._problem, newcomers) if self._enters(each)]

    def add(self, newcomers: Sequence[Individual]) -> None:
        """Takes in those that are members from now on, and leaves out whom they beat; see `entrants`."""
        for newcomer in self.entrants(newcomers):
            violation, place = _violation(self._problem, newcomer), self._problem.point(newcomer.scores)
            stay = ~(place <= self._points).all(axis=1) if violation == self._violation else np.False_
            if not np.all(stay):
                kept = np.flatnonzero(np.broadcast_to(stay, len(self.members)))
                self.members = [self.members[index] for index in kept]
                self._places = [self._places[index] for index in kept]
                self._points = self._points[kept]
            self._violation = violation
            index = bisect(self._places, place)
            self.members.insert(index, newcomer)
            self._places.insert(index, place)
            self._points = np.insert(self._points, index, place, axis=0)

    def _enters(self, newcomer: Individual) -> bool:
        violation = _violation(self._problem, newcomer)
        if violation != self._violation:
            return violation < self._violation
        place = self._problem.point(newcomer.scores)
        no_worse = np.flatnonzero((self._points <= place).all(axis=1))
        # of equal points the earliest individual stands for all
        return not len(no_worse) or (self._places[no_worse[0]] == place and self.members[no_worse[0]].id > newcomer.id)
