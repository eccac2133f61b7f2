"""How likely operators, blocks and categories are: as set, or as what they came to in this run suggests."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from guided_evolution import targets
from guided_evolution.bandit import Arm, shares
from guided_evolution.experience import due, earned
from guided_evolution.individual import Individual
from guided_evolution.problem import Problem
from guided_evolution.prompts.book import CATEGORIES
from guided_evolution.randomness import stream
from guided_evolution.settings import Settings
from guided_evolution.store import Store

ADAPTIVE = "adaptive"
MATE, EOT, MUTATE = "mate", "eot", "mutate"


@dataclass(frozen=True, slots=True)
class Odds:
    """What a generation's children are drawn with.

    Attributes:
        p_mate: Probability that a child's parents are mated.
        p_eot: Probability that a mutation is Evolution of Thought.
        blocks: Share of the mutations that each block gets, by name; empty where all are alike.
        categories: Share of the fixed prompts that each category gets; empty where all are alike.
    """

    p_mate: float = 0.0
    p_eot: float = 0.0
    blocks: Mapping[str, float] = field(default_factory=dict)
    categories: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Experience:
    tried: int = 0
    earned: int = 0
    questions: int = 0


class OperatorOdds:
    """The odds of each generation, the same ones in a resumed run.

    With `operators` "adaptive" there are three ways to make a child: mating (whatever follows it), Evolution of Thought
    and a plain mutation. Their shares begin with what `p_mate` and `p_eot` make of them and follow what their children
    earned for the questions that they took; see `bandit.shares`. They are settled once for each generation and kept in
    the record under "operators <generation>". Questions and not seconds are what a try costs, so that the same replies
    always give the same odds. The initial population teaches nothing of this: all of it are plain mutations.

    Which block is mutated, and which category asks for it, follows what such children, the initial ones included, added
    to the front; see `targets`.
    """

    def __init__(
        self,
        problem: Problem,
        settings: Settings,
        store: Store,
        individuals: Mapping[int, Individual],
        front: Callable[[], Collection[Individual]],
    ) -> None:
        """Sets them up.

        Args:
            individuals: All of the run, by id, with their exchanges; it grows while the run goes.
            front: Gives the non-dominated ones of this moment.
        """
        self._problem = problem
        self._settings = settings
        self._store = store
        self._individuals = individuals
        self._front = front
        self._settled: dict[int, Odds] = {}

    def of(self, generation: int) -> Odds:
        """The odds of a generation after the initial one; settled, and recorded, when they are asked for first."""
        settings = self._settings
        if settings.operators != ADAPTIVE or settings.search != "evolution":
            return Odds(settings.p_mate, settings.p_eot)
        if generation not in self._settled:
            document = self._store.meta(_key(generation))
            if document is None:
                document = self._settle(generation)
                self._store.put_meta(**{_key(generation): document})
            share = {row["operator"]: row["share"] for row in document["operators"]}
            mutations = share[EOT] + share[MUTATE]
            self._settled[generation] = Odds(
                share[MATE],
                share[EOT] / mutations if mutations else settings.p_eot,
                *({row["name"]: row["share"] for row in document.get(kind, [])} for kind in ("blocks", "categories")),
            )
        return self._settled[generation]

    def _settle(self, generation: int) -> dict[str, Any]:
        """The shares, and what they were computed from."""
        before = self._store.meta(_key(generation - 1)) or {"operators": [], "late": []}
        known = dict.fromkeys((MATE, EOT, MUTATE), _Experience())
        for row in before["operators"]:
            known[row["operator"]] = _Experience(row["tried"], row["earned"], row["questions"])
        children = due(self._settings, generation, before["late"])
        members = self._front()
        front = {each.id for each in members}
        born = [self._individuals[number] for number in children if number in self._individuals]
        for child in born:
            if child.generation and child.origin.parents:
                name, past = _way(child), known[_way(child)]
                known[name] = _Experience(
                    past.tried + 1,
                    past.earned + earned(self._problem, child, self._individuals, front),
                    past.questions + len(child.origin.exchanges),
                )
        weights = self._weights()
        arms = {
            name: Arm(weight, known[name].tried, known[name].earned, known[name].questions)
            for name, weight in weights.items()
            if weight
        }
        found = shares(list(arms.values()), stream(self._settings.seed, "odds", generation))
        share = dict(zip(arms, found, strict=True))
        rows = [
            {
                "operator": name,
                "weight": weights[name],
                "tried": past.tried,
                "earned": past.earned,
                "questions": past.questions,
                "share": share.get(name, 0.0),
            }
            for name, past in known.items()
        ]
        seed = self._individuals[0]
        gained = targets.gains(self._problem, members, seed)
        names = [block.name for block in seed.genome.blocks]
        return {
            "operators": rows,
            "blocks": targets.learned(before.get("blocks", []), names, targets.blocks_tried(born, gained)),
            "categories": targets.learned(
                before.get("categories", []), CATEGORIES, targets.categories_tried(born, gained)
            ),
            # without generations some are still on their way
            "late": [number for number in children if number not in self._individuals],
        }

    def _weights(self) -> dict[str, float]:
        p_mate, p_eot = self._settings.p_mate, self._settings.p_eot
        return {MATE: p_mate, EOT: (1 - p_mate) * p_eot, MUTATE: (1 - p_mate) * (1 - p_eot)}


def _way(child: Individual) -> str:
    """How a child was to be made: a mating that failed, and was followed by a mutation, was a mating."""
    asked = {exchange.purpose for exchange in child.origin.exchanges}
    done = {step.operator for step in child.origin.steps}
    if MATE in asked | done:
        return MATE
    # what other drafts asked doesn't say how this child came about
    return EOT if EOT in (done or asked) else MUTATE


def _key(generation: int) -> str:
    return f"operators {generation}"
