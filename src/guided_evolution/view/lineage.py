"""Who comes from whom."""

from __future__ import annotations

from collections.abc import Iterable

from guided_evolution.run import Run

PARENT, PARTNER, TEACHER = "parent", "partner", "teacher"


def edges(run: Run) -> list[tuple[int, int, str]]:
    """Every link as (from, to, kind), in the order of the children.

    The kind is "parent" (whose program was changed), "partner" (the other parent of a mating) or "teacher" (the elite
    whose lesson was applied).
    """
    links = []
    for child in run.individuals:
        for place, parent in enumerate(child.origin.parents):
            links.append((parent, child.id, PARTNER if place else PARENT))
        links += [(step.teacher, child.id, TEACHER) for step in child.origin.steps if step.teacher is not None]
    return links


def ancestry(run: Run, numbers: Iterable[int]) -> set[int]:
    """The ids of some individuals and of every parent and partner behind them."""
    found: set[int] = set()
    open_ends = list(numbers)
    while open_ends:
        number = open_ends.pop()
        if number not in found:
            found.add(number)
            open_ends.extend(run.by_id[number].origin.parents)
    return found


def trunk(run: Run, number: int) -> list[int]:
    """The ids from the seed to an individual, along the parents whose program was changed."""
    chain = [number]
    while parents := run.by_id[chain[-1]].origin.parents:
        chain.append(parents[0])
    return chain[::-1]
