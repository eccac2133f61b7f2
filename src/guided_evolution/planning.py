"""Decides what each child is to become: every decision of the loop that needs no model, in one place.

`search` "evolution" is the paper's: SPEA-2 keeps elites, NSGA-II's tournament picks parents. The two baselines differ
from it in these decisions alone: "best-of-n" always changes the seed, "sequential" the best program so far; neither
mates, and neither has elites that teach.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from guided_evolution import selection
from guided_evolution.breeding import Plan
from guided_evolution.budget import Budget
from guided_evolution.individual import Individual
from guided_evolution.lessons import Change, changes_of
from guided_evolution.odds import OperatorOdds
from guided_evolution.population import champion, points, violations
from guided_evolution.problem import Problem
from guided_evolution.randomness import stream
from guided_evolution.settings import Settings
from guided_evolution.store import Store


class Planner:
    """Chooses survivors and parents, and plans children; the same state of a run always gives the same plans."""

    def __init__(
        self,
        problem: Problem,
        settings: Settings,
        store: Store,
        individuals: Mapping[int, Individual],
        front: Callable[[], Collection[Individual]],
    ) -> None:
        """Sets the planner up.

        Args:
            individuals: All of the run, by id; it grows while the run goes.
            front: Gives the non-dominated ones of this moment.
        """
        self._problem = problem
        self._settings = settings
        self._store = store
        self._individuals = individuals
        self._budget = Budget.of(settings)
        self._odds = OperatorOdds(problem, settings, store, individuals, front)
        self._taught: dict[int, list[Change]] = {}

    @property
    def total(self) -> int:
        """Children of the whole run, where no budget ends it."""
        return self._settings.first_population + self._settings.generations * self._settings.population

    # -- selection ----------------------------------------------------------------------------------------------

    def elites(self, population: Sequence[Individual]) -> list[Individual]:
        """Those that live on; for a baseline, the one that is changed next."""
        if self._settings.search == "evolution":
            return self._spea2(population, self._settings.population)
        if self._settings.search == "best-of-n":
            return [self._individuals[0]]
        return [champion(self._problem, population, self._individuals[0])]

    def _spea2(self, population: Sequence[Individual], k: int) -> list[Individual]:
        where = points(self._problem, population)
        kept = selection.spea2_survivors(where, k, violations(self._problem, population))
        return [population[index] for index in kept]

    def parents(self, population: Sequence[Individual], count: int, rng: np.random.Generator) -> list[Individual]:
        """As many parents as are asked for, from everybody who is there."""
        if self._settings.search != "evolution":
            return self.elites(population) * count
        where, broken = points(self._problem, population), violations(self._problem, population)
        return [population[index] for index in selection.tournament(where, count, rng, broken)]

    # -- plans --------------------------------------------------------------------------------------------------

    def first(self, seed: Individual) -> list[Plan]:
        """The initial population: the seed after one mutation of one block; nothing was scored, so no thought."""
        wanted = self._affordable(0, self._settings.first_population, evaluated=1)
        return [self.initial(number, seed) for number in range(1, wanted + 1)]

    def initial(self, number: int, seed: Individual) -> Plan:
        """One child of the initial population."""
        return Plan(number, 0, (seed,), mate=False, mutate=True)

    def generation(
        self, generation: int, population: Sequence[Individual], elites: Sequence[Individual], evaluated: int
    ) -> list[Plan]:
        """The children of a generation after the initial one; none when no evaluation is left.

        Args:
            population: Whoever may be a parent.
            elites: Whoever may teach.
            evaluated: How many programs were scored so far.
        """
        rng = stream(self._settings.seed, "parents", generation)
        parents = self.parents(population, self._settings.population, rng)
        changes = self._changes(elites)
        odds = self._odds.of(generation)
        first = 1 + self._settings.first_population + (generation - 1) * self._settings.population
        plans = []
        for slot in range(self._affordable(generation, len(parents), evaluated)):
            partner = parents[slot ^ 1] if slot ^ 1 < len(parents) else parents[0]
            pair = stream(self._settings.seed, "pair", generation, slot // 2)
            own = stream(self._settings.seed, "plan", generation, slot)
            mate = self._mates(pair, odds.p_mate)
            plans.append(
                Plan(
                    number=first + slot,
                    generation=generation,
                    parents=(parents[slot], partner) if mate else (parents[slot],),
                    mate=mate,
                    mutate=self._mutates(own, mate),
                    changes=changes,
                    odds=odds,
                )
            )
        return plans

    def single(self, number: int, population: Sequence[Individual]) -> Plan:
        """One child of whoever lives at this moment, for a run without generations.

        The plan is recorded before anything comes of it: who lived then can't be found out later.
        """
        first = self._settings.first_population
        if number <= first:
            return self.initial(number, self._individuals[0])
        generation = 1 + (number - first - 1) // self._settings.population
        rng = stream(self._settings.seed, "single", number)
        parents = self.parents(population, 2, rng)
        odds = self._odds.of(generation)
        mate = self._mates(rng, odds.p_mate)
        mutate = self._mutates(rng, mate)
        teachers = self._teachers(population)
        document = {
            "parents": [each.id for each in (parents if mate else parents[:1])],
            "mate": mate,
            "mutate": mutate,
            "teachers": [each.id for each in teachers],
            "p_eot": odds.p_eot,
        }
        self._store.put_meta(**{_key(number): document})
        return self._from_record(number, generation, document)

    def recorded(self, number: int) -> tuple[Plan | None, set[int]]:
        """The recorded plan of a child, or None, and the individuals that it needs which aren't there yet."""
        first = self._settings.first_population
        document = self._store.meta(_key(number))
        if document is None:
            return None, set()
        missing = {*document["parents"], *document["teachers"]} - self._individuals.keys()
        if missing:
            return None, missing
        return self._from_record(number, 1 + (number - first - 1) // self._settings.population, document), set()

    def _from_record(self, number: int, generation: int, document: Mapping[str, Any]) -> Plan:
        return Plan(
            number=number,
            generation=generation,
            parents=tuple(self._individuals[each] for each in document["parents"]),
            mate=document["mate"],
            mutate=document["mutate"],
            changes=self._lessons([self._individuals[each] for each in document["teachers"]]),
            # records of before it was kept have the set one
            odds=replace(self._odds.of(generation), p_eot=document.get("p_eot", self._settings.p_eot)),
        )

    def _mates(self, rng: np.random.Generator, p_mate: float) -> bool:
        return bool(rng.random() < p_mate) and self._settings.search == "evolution"

    def _mutates(self, rng: np.random.Generator, mate: bool) -> bool:
        # a child that is neither mated nor mutated would be its parent again, so it is mutated
        return not mate or bool(rng.random() < self._settings.p_mutate)

    def _affordable(self, generation: int, children: int, evaluated: int) -> int:
        """How many children a generation gets; recorded, so that a larger budget later leaves the past as it was."""
        planned: int | None = self._store.meta(f"planned {generation}")
        if planned is None:
            planned = self._budget.children(children, evaluated)
            if planned:
                self._store.put_meta(**{f"planned {generation}": planned})
        return planned

    # -- teaching -----------------------------------------------------------------------------------------------

    def _changes(self, elites: Sequence[Individual]) -> list[Change]:
        return self._lessons(self._teachers(elites))

    def _teachers(self, elites: Sequence[Individual]) -> list[Individual]:
        if self._settings.search != "evolution":
            return []
        return self._spea2(elites, self._settings.eot_elites)

    def _lessons(self, teachers: Sequence[Individual]) -> list[Change]:
        # what was measured of an individual and its ancestors doesn't change any more
        for teacher in teachers:
            if teacher.id not in self._taught:
                seed = self._individuals[0].genome
                self._taught[teacher.id] = changes_of(teacher, seed, self._problem, self._individuals.get)
        return [change for teacher in teachers for change in self._taught[teacher.id]]


def _key(number: int) -> str:
    return f"planned child {number}"
