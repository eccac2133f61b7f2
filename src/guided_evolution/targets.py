"""Which blocks and which categories pay: shares of the mutations that follow what earlier ones added to the front."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from guided_evolution import population, selection
from guided_evolution.individual import SWAP, Individual
from guided_evolution.problem import Problem
from guided_evolution.prompts.book import CATEGORIES

# what a name is taken to have been tried before anything is known of it, with the mean gain
_PRIOR = 3
# the part of the mutations that is drawn with all names alike, whatever was learned
_FLOOR = 0.25
# gains are shares of a hypervolume: what is less than this in sum is rounding
_NOTHING = 1e-12

Row = dict[str, Any]


def learned(known: Sequence[Mapping[str, Any]], names: Sequence[str], tries: Iterable[tuple[str, float]]) -> list[Row]:
    """The shares of names after further tries: one row per name with its `tried`, `gain` and `share`; shares sum to 1.

    A share follows the mean gain of a try, as in probability matching with a lower bound (Thierens, "An Adaptive
    Pursuit Strategy for Allocating Operator Probabilities", GECCO 2005). The mean is drawn towards that of all names,
    so that one lucky first try doesn't decide, and a quarter of the mutations stays with all names alike. Without any
    gain all shares are equal.

    Args:
        known: The rows as they were before; empty at the beginning.
        names: At least one.
        tries: A name and what came of it, at least 0, for each try; other names are passed over.
    """
    tried = dict.fromkeys(names, 0) | {row["name"]: row["tried"] for row in known}
    gain = dict.fromkeys(names, 0.0) | {row["name"]: row["gain"] for row in known}
    for name, gained in tries:
        if name in tried:
            tried[name] += 1
            gain[name] += gained
    mean = sum(gain.values()) / max(1, sum(tried.values()))
    worth = {name: (_PRIOR * mean + gain[name]) / (_PRIOR + tried[name]) for name in tried}
    whole = sum(worth.values())
    even = 1 / len(worth)
    return [
        {
            "name": name,
            "tried": tried[name],
            "gain": gain[name],
            "share": (1 - _FLOOR) * worth[name] / whole + _FLOOR * even if whole > _NOTHING else even,
        }
        for name in tried
    ]


def gains(problem: Problem, front: Collection[Individual], seed: Individual) -> dict[int, float]:
    """What the front would lack without each of its members: the share of its hypervolume that is theirs alone, by id.

    Args:
        front: The non-dominated individuals.
        seed: Its scores bound the hypervolume where an objective has no reference.
    """
    members = [each for each in front if each.ok]
    bound = population.reference_point(problem, [*members, seed])
    whole = population.hypervolume(problem, members, bound)
    if not whole:
        return {}
    alone = selection.contributions(population.points(problem, members), bound)
    return {each.id: float(value) / whole for each, value in zip(members, alone, strict=True)}


def blocks_tried(children: Iterable[Individual], gained: Mapping[int, float]) -> list[tuple[str, float]]:
    """Each block that was rewritten, with the gain of the child; one that was taken from a partner is no try."""
    steps = ((step, child) for child in children for step in child.origin.steps)
    return [(step.block, gained.get(child.id, 0.0)) for step, child in steps if step.category != SWAP]


def categories_tried(children: Iterable[Individual], gained: Mapping[int, float]) -> list[tuple[str, float]]:
    """Each category that was asked for, with the gain of the child."""
    steps = ((step, child) for child in children for step in child.origin.steps)
    return [(step.category, gained.get(child.id, 0.0)) for step, child in steps if step.category in CATEGORIES]
