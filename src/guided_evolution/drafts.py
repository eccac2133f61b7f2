"""Which draft of a child is evaluated: the one that promises most, by what the cheap check measured of it.

A network's size is known before it is trained. So where a question costs little beside an evaluation, a child can be
made several times, and only the best draft is evaluated: preselection, as with the surrogate models of Emmerich,
Giannakoglou and Naujoks, "Single- and multiobjective evolutionary optimization assisted by Gaussian random field
metamodels" (IEEE Transactions on Evolutionary Computation 10, 2006). Here no model is fitted: what a draft may come to
is what became of the run's own children that changed the known objectives by about as much.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Container, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from guided_evolution import population, selection
from guided_evolution.individual import Individual
from guided_evolution.problem import Problem

# as many of the latest children are remembered
_REMEMBERED = 256
# as many of those that are most like a draft say what it may come to
_NEAREST = 16
# where an objective has no reference, it lies beyond the worst value of the front by this part of the front's range
_BEYOND = 0.1


@dataclass(frozen=True, slots=True)
class _Try:
    """An earlier child beside the parent that it was made from.

    Attributes:
        after: Its scores; those that its check measured where it failed.
    """

    before: Mapping[str, float]
    after: Mapping[str, float]
    ok: bool


class Promise:
    """What a draft may add to the front, and what was learned for it from the children of this run."""

    def __init__(
        self, problem: Problem, front: Callable[[], Collection[Individual]], known: Container[str] = frozenset()
    ) -> None:
        """Begins without experience.

        Args:
            front: Gives the non-dominated individuals of this moment.
            known: Digests of the programs that the run has scored.
        """
        self._problem = problem
        self._front = front
        self._known = known
        self._tries: deque[_Try] = deque(maxlen=_REMEMBERED)

    def learn(self, child: Individual, parent: Individual, checked: Mapping[str, float]) -> None:
        """Takes in what became of a program that was evaluated.

        Args:
            parent: What it was made from.
            checked: What its check measured; only looked at when it failed.
        """
        self._tries.append(_Try(parent.scores, child.scores if child.ok else checked, child.ok))

    def choose(self, parent: Individual, digests: Sequence[str], checked: Sequence[Mapping[str, float]]) -> int:
        """The index of the draft to be evaluated: the most promising of the new ones, of equals the first.

        As in selection, one that is known to break a constraint ranks behind every one that isn't.

        Args:
            parent: What the drafts were made from; its scores must be known.
            digests: The drafts' programs, at least one.
            checked: What the check measured of each.
        """
        new = [index for index, digest in enumerate(digests) if digest not in self._known]

        def promise(index: int) -> tuple[float, float, int]:
            known = checked[index]
            return -self._problem.violation(_kept(parent, known)), self.gain(parent, known), -index

        return max(new, key=promise, default=0)

    def gain(self, parent: Individual, checked: Mapping[str, float]) -> float:
        """The mean hypervolume that a program would add to the front, in the objectives' own units.

        The objectives that its check measured are taken as they are. The others are the parent's, changed as they
        changed in each of up to 16 earlier children that are most like it, of equals the latest; those that failed add
        nothing. A child that keeps its parent's values is always among them, so that there is an answer before the
        first child is scored.
        """
        front = [each for each in self._front() if each.ok]
        bound, where = self._bound([parent, *front]), self._feasible(front)
        whole = selection.hypervolume(where, bound)
        gains = []
        for change in [{}, *self._changes(parent, checked)]:
            values = {**_kept(parent, checked), **self._moved(parent, change or {})}
            point = self._problem.point(values)
            if change is None or self._problem.violation(values) > 0 or not np.isfinite(point).all():
                gains.append(0.0)
            else:
                gains.append(max(0.0, selection.hypervolume(np.vstack([where, point]), bound) - whole))
        return float(np.mean(gains))

    def _changes(self, parent: Individual, checked: Mapping[str, float]) -> list[Mapping[str, float] | None]:
        """How the objectives that are not known changed in the nearest earlier children; None for one that failed."""
        names = [each.name for each in self._problem.objectives if each.name in checked]
        tries = [each for each in reversed(self._tries) if all(name in each.after for name in names)]
        if not tries:
            return []
        mine = np.array(_relative(names, parent.scores, checked))
        theirs = np.array([_relative(names, each.before, each.after) for each in tries])
        order = np.argsort(((theirs - mine) ** 2).sum(axis=1), kind="stable")[:_NEAREST]
        rest = [each.name for each in self._problem.objectives if each.name not in checked]
        nearest = [tries[index] for index in order]
        return [{name: each.after[name] - each.before[name] for name in rest} if each.ok else None for each in nearest]

    def _moved(self, parent: Individual, change: Mapping[str, float]) -> dict[str, float]:
        """The parent's scores after a change, within their ranges."""
        moved = {}
        for objective in self._problem.objectives:
            if objective.name in change:
                low, high = objective.range or (-np.inf, np.inf)
                moved[objective.name] = min(high, max(low, parent.scores[objective.name] + change[objective.name]))
        return moved

    def _bound(self, individuals: Sequence[Individual]) -> NDArray[np.float64]:
        """The objectives' own references; where there is none, a little beyond the worst value of the individuals."""
        bound = np.array(population.reference_point(self._problem, individuals))
        with np.errstate(over="ignore"):
            spread = np.ptp(population.points(self._problem, individuals), axis=0)
            beyond = bound + _BEYOND * np.where(spread > 0, spread, np.maximum(1.0, np.abs(bound)))
        free = [each.reference is None for each in self._problem.objectives]
        result: NDArray[np.float64] = np.where(free & np.isfinite(beyond), beyond, bound)
        return result

    def _feasible(self, front: Sequence[Individual]) -> NDArray[np.float64]:
        broken = population.violations(self._problem, front)
        return population.points(self._problem, [each for each, by in zip(front, broken, strict=True) if not by])


def _relative(names: Sequence[str], before: Mapping[str, float], after: Mapping[str, float]) -> list[float]:
    """By which part of the larger value each named one changed, from -2 to 2."""
    return [(after[name] - before[name]) / (max(abs(after[name]), abs(before[name])) or 1.0) for name in names]


def _kept(parent: Individual, checked: Mapping[str, float]) -> dict[str, float]:
    """The numbers of a child that keeps its parent's, except for what its check measured."""
    metrics = parent.outcome.metrics if parent.outcome else {}
    return {**metrics, **parent.scores, **checked}
