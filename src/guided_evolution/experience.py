"""What children came to, as far as a choice between generations can learn from it."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from guided_evolution.individual import Individual
from guided_evolution.problem import Problem
from guided_evolution.settings import Settings


def due(settings: Settings, generation: int, late: Collection[int]) -> list[int]:
    """The children that a generation learns from: those of the one before, and `late` ones of earlier generations.

    Args:
        late: Children that were still on their way when the generation before began, as without generations.
    """
    if generation == 0:
        return []
    first, size = settings.first_population, settings.population
    begin = 1 if generation == 1 else 1 + first + (generation - 2) * size
    return [*late, *range(begin, 1 + first + (generation - 1) * size)]


def earned(problem: Problem, child: Individual, individuals: Mapping[int, Individual], front: Collection[int]) -> bool:
    """Whether a child was worth having: a new program that improved on its first parent or is on the front.

    Improved is better in one objective and worse in none.

    Args:
        individuals: All of the run, by id.
        front: The ids of the non-dominated ones among them.
    """
    if not child.ok or child.twin is not None:
        return False
    return child.id in front or _improved(problem, child, individuals.get(child.origin.parents[0]))


def _improved(problem: Problem, child: Individual, parent: Individual | None) -> bool:
    if parent is None or not parent.ok:
        return False
    mine, theirs = problem.point(child.scores), problem.point(parent.scores)
    return mine != theirs and all(one <= two for one, two in zip(mine, theirs, strict=True))
