"""The loop: Algorithm 1 of Morris, Jurado and Zutty (GECCO 2024), with its two lanes overlapped.

`Evolution.run` reads as the algorithm does. Algorithm 2, the mutation, is `operators.Mutate` and
`operators.EvolutionOfThought`; `breeding.Breeder` chooses between them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import replace

from guided_evolution import selection
from guided_evolution.breeding import Breeder, Plan
from guided_evolution.budget import Budget, Clock
from guided_evolution.errors import ModelError, RunError
from guided_evolution.estimate import compare
from guided_evolution.events import Event, Listener
from guided_evolution.executors import Executor
from guided_evolution.individual import Individual, Outcome, Status
from guided_evolution.llm import LLM
from guided_evolution.operators import Change, changes_of
from guided_evolution.population import front, points, violations
from guided_evolution.problem import Problem
from guided_evolution.randomness import stream
from guided_evolution.scoring import LostError, Scorer
from guided_evolution.settings import Settings
from guided_evolution.store import Store
from guided_evolution.verification import FIRST, VERIFY, worse_of

INTERRUPTED = "interrupted"


class _StoppedError(Exception):
    """Raised inside a child's making when nothing new may be started."""


class Evolution:
    """One run: a problem, a model, an evaluation lane, and the record of what happens."""

    def __init__(
        self,
        problem: Problem,
        settings: Settings,
        store: Store,
        llm: LLM,
        executor: Executor,
        listeners: Iterable[Listener] = (),
    ) -> None:
        self.problem = problem
        self.settings = settings
        self._store = store
        self._listeners = tuple(listeners)
        self._scorer = Scorer(problem, settings, store, executor, self._emit)
        self._breeder = Breeder(problem, settings, store, llm, self._scorer, self._emit)
        self._breeder.asker.before_asking = self._may_start
        self._breeder.asker.stop = self.stop
        self._budget = Budget.of(settings)
        self._clock = Clock(store.meta("seconds", 0.0))
        self._individuals: dict[int, Individual] = {}
        self._digests: dict[str, int] = {}
        self._stop_reason = ""
        self._failure: ModelError | None = None
        self.hall_of_fame: list[Individual] = []

    async def run(self) -> str:
        """Evolves until the generations or a budget end, and gives the reason for stopping.

        Raises:
            RunError: When the seed can't be scored, or the record can't be written.
            ModelError: When the model can't be asked; what was recorded is kept, and the run can be resumed.
        """
        seed = await self._seed()
        population = [seed, *await self._children(0, self._first_plans(seed))]
        for generation in range(1, self.settings.generations + 1):
            elites = self._elites(population)
            parents = self._parents(population, generation)
            plans = self._plans(generation, parents, elites)
            if not plans:
                break
            offspring = await self._children(generation, plans)
            population = [*elites, *offspring]
            if self._stop_reason:
                break
        return self._finish()

    def stop(self, reason: str) -> None:
        """Starts nothing new: what is in flight is finished and recorded."""
        self._stop_reason = self._stop_reason or reason

    # -- selection ----------------------------------------------------------------------------------------------

    def _elites(self, population: Sequence[Individual]) -> list[Individual]:
        return self._spea2(population, self.settings.population)

    def _spea2(self, population: Sequence[Individual], k: int) -> list[Individual]:
        where = points(self.problem, population)
        kept = selection.spea2_survivors(where, k, violations(self.problem, population))
        return [population[index] for index in kept]

    def _parents(self, population: Sequence[Individual], generation: int) -> list[Individual]:
        rng = stream(self.settings.seed, "parents", generation)
        where, broken = points(self.problem, population), violations(self.problem, population)
        chosen = selection.tournament(where, self.settings.population, rng, broken)
        return [population[index] for index in chosen]

    # -- planning: every decision that needs no model, in one place and in one order --------------------------

    def _first_plans(self, seed: Individual) -> list[Plan]:
        """The initial population: the seed after one mutation of one block; nothing was scored, so no thought."""
        wanted = self._affordable(0, self.settings.first_population)
        return [Plan(number, 0, (seed,), mate=False, mutate=True) for number in range(1, wanted + 1)]

    def _affordable(self, generation: int, children: int) -> int:
        """How many children a generation gets; recorded, so that a larger budget later leaves the past as it was."""
        planned: int | None = self._store.meta(f"planned {generation}")
        if planned is None:
            planned = self._budget.children(children, self._evaluated)
            if planned:
                self._store.put_meta(**{f"planned {generation}": planned})
        return planned

    def _plans(self, generation: int, parents: Sequence[Individual], elites: Sequence[Individual]) -> list[Plan]:
        changes = self._changes(elites)
        wanted = self._affordable(generation, len(parents))
        if not wanted:
            self.stop(f"max_evaluations reached ({self._budget.evaluations})")
        first = 1 + self.settings.first_population + (generation - 1) * self.settings.population
        plans = []
        for slot in range(wanted):
            pair = stream(self.settings.seed, "pair", generation, slot // 2)
            mate = bool(pair.random() < self.settings.p_mate)
            own = stream(self.settings.seed, "plan", generation, slot)
            partner = parents[slot ^ 1] if slot ^ 1 < len(parents) else parents[0]
            plans.append(
                Plan(
                    number=first + slot,
                    generation=generation,
                    parents=(parents[slot], partner) if mate else (parents[slot],),
                    mate=mate,
                    # a child that is neither mated nor mutated would be its parent again, so it is mutated
                    mutate=not mate or bool(own.random() < self.settings.p_mutate),
                    changes=changes,
                )
            )
        return plans

    def _changes(self, elites: Sequence[Individual]) -> list[Change]:
        teachers = self._spea2(elites, self.settings.eot_elites)
        seed = self._individuals[0].genome
        return [
            change for teacher in teachers for change in changes_of(teacher, seed, self.problem, self._individuals.get)
        ]

    # -- children -----------------------------------------------------------------------------------------------

    async def _seed(self) -> Individual:
        seed = await self._score(Individual(0, 0, self.problem.genome()))
        if seed is None:
            raise RunError("stopped before the seed was scored")
        if not seed.ok:
            reason = seed.outcome.reason if seed.outcome else ""
            raise RunError(f"the seed can't be scored ({seed.status}): {reason}")
        self._enrol([seed])
        return seed

    async def _children(self, generation: int, plans: Sequence[Plan]) -> list[Individual]:
        """Breeds and scores the children of a generation, each as soon as it can be; gives those that may live."""
        self._breeder.choice.begin(generation, self._individuals, self.hall_of_fame)
        tasks = [asyncio.ensure_future(self._child(plan)) for plan in plans]
        try:
            born = await asyncio.gather(*tasks)
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise
        fresh = self._enrol(await self._believed([child for child in born if child is not None]))
        self._emit(Event("generation", data={"generation": generation, "front": self.hall_of_fame}))
        return fresh

    async def _child(self, plan: Plan) -> Individual | None:
        recorded = self._store.individual(plan.number)
        if recorded is not None and recorded.outcome is not None:
            return await self._score(recorded)
        try:
            child, rejected = await self._breeder.breed(plan)
        except (_StoppedError, LostError):
            return None
        except ModelError as error:
            # what is being scored was paid for: it is finished and recorded before the run gives up
            self._failure = self._failure or error
            self.stop(str(error))
            return None
        if rejected is None:
            return await self._score(child)
        self._store.put_individual(child)
        self._store.put_outcome(child.id, rejected)
        return self._announce(replace(child, outcome=rejected))

    async def _score(self, individual: Individual) -> Individual | None:
        """The individual with its outcome, recorded; None when its evaluation was cut short by a stop."""
        recorded = individual.outcome or self._store.outcome(individual.id)
        if recorded is not None:
            self._scorer.remember(individual, recorded)
            return self._announce(replace(individual, outcome=recorded), recorded=True)
        self._store.put_individual(individual)
        outcome = await self._scorer.evaluate(individual)
        if outcome.status is Status.LOST and not self._stop_reason:
            outcome = await self._scorer.evaluate(individual)
        if outcome.status is Status.LOST and self._stop_reason:
            return None
        self._store.put_outcome(individual.id, outcome)
        return self._announce(replace(individual, outcome=outcome))

    async def _believed(self, children: Sequence[Individual]) -> list[Individual]:
        """The children, after each that would enter the front was evaluated once more in a fresh process."""
        believed = {child.id: child for child in children}
        settled: set[int] = set()
        while self.settings.verify:
            programs = {child.genome.digest: child for child in sorted(believed.values(), key=lambda each: -each.id)}
            new = [child for child in programs.values() if child.ok and child.genome.digest not in self._digests]
            entrants = [each for each in front(self.problem, [*self.hall_of_fame, *new]) if each in new]
            # a champion that fell lets others in
            waiting = [each for each in entrants if each.id not in settled]
            if not waiting or self._stop_reason == INTERRUPTED:
                break
            settled.update(each.id for each in waiting)
            for child in await asyncio.gather(*(self._verify(each) for each in waiting)):
                believed[child.id] = child
        return list(believed.values())

    async def _verify(self, champion: Individual) -> Individual:
        """The individual with the worse of two measurements; both are recorded where they differ."""
        first = champion.outcome
        assert first is not None
        if self._store.outcome(champion.id, VERIFY) is not None:
            return champion
        second = self._measured_there(champion) or await self._scorer.again(champion)
        if second.status is Status.LOST and not self._stop_reason:
            second = await self._scorer.again(champion)
        if second.status is Status.LOST:
            return champion
        worse = worse_of(self.problem, first, second)
        if worse is first:
            self._store.put_outcome(champion.id, second, VERIFY)
        else:
            self._store.put_outcomes(champion.id, {VERIFY: second, "evaluate": worse}, aside=FIRST)
            champion = replace(champion, outcome=worse)
            self._scorer.remember(champion, worse, again=True)
        self._emit(Event("verified", champion.id, data={"first": first, "second": second, "agrees": worse is first}))
        return champion

    def _measured_there(self, champion: Individual) -> Outcome | None:
        """The second measurement of the run that the first was taken from; None when there was none."""
        borrowed = champion.outcome is not None and champion.outcome.taken_from
        return self._store.measured(champion.genome.digest, VERIFY) if borrowed else None

    def _enrol(self, children: Sequence[Individual]) -> list[Individual]:
        """Takes children into the run; gives those that are scored and new, in the order of their ids."""
        fresh = []
        for child in sorted(children, key=lambda each: each.id):
            twin = self._digests.get(child.genome.digest)
            if child.status is not Status.REJECTED:
                if twin is not None and child.twin != twin:
                    child = replace(child, twin=twin)
                    self._store.put_individual(child)
                if twin is not None and self._store.outcome(twin, FIRST) is not None:
                    child = self._inheriting(child, self._individuals[twin])
                self._digests.setdefault(child.genome.digest, child.id)
            self._individuals[child.id] = child
            if child.ok and twin is None:
                fresh.append(child)
        self.hall_of_fame = front(self.problem, [*self.hall_of_fame, *fresh])
        return fresh

    def _inheriting(self, child: Individual, twin: Individual) -> Individual:
        """A child with what is believed of its program by now: one of the same generation inherited the first score."""
        if twin.outcome is not None and child.outcome != twin.outcome:
            self._store.put_outcome(child.id, twin.outcome)
            child = replace(child, outcome=twin.outcome)
        return child

    # -- stopping and telling -----------------------------------------------------------------------------------

    @property
    def _evaluated(self) -> int:
        return len(self._digests)

    def _may_start(self) -> None:
        if not self._stop_reason:
            self.stop(self._budget.reached(self._store.spending(), self._clock.seconds / 3600))
        if self._stop_reason:
            raise _StoppedError

    def _finish(self) -> str:
        if self._failure is not None:
            raise self._failure
        reason = self._stop_reason or f"{self.settings.generations} generations done"
        status = INTERRUPTED if reason == INTERRUPTED else "done"
        seconds = self._clock.seconds
        judged = compare(self.settings, self._individuals.values(), self._store.calls(), seconds)
        self._store.put_meta(seconds=seconds, stop_reason=reason, status=status, estimate=judged)
        self._emit(Event("stop", text=reason))
        return reason

    def _announce(self, individual: Individual, *, recorded: bool = False) -> Individual:
        if not recorded:
            self._store.put_meta(seconds=self._clock.seconds)
        self._emit(Event("individual", individual.id, data={"individual": individual, "recorded": recorded}))
        return individual

    def _emit(self, event: Event) -> None:
        for listener in self._listeners:
            listener.on(event)
