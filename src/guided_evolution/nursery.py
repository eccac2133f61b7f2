"""Raises children: from a plan to a scored, believed individual of the run, whatever happens on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from guided_evolution.breeding import Breeder, Plan
from guided_evolution.budget import Budget, Clock
from guided_evolution.drafts import Promise
from guided_evolution.errors import ModelError, RunError
from guided_evolution.events import Event
from guided_evolution.executors import Executor
from guided_evolution.individual import Individual, Outcome, Status
from guided_evolution.llm import LLM
from guided_evolution.population import Front
from guided_evolution.problem import Problem
from guided_evolution.scoring import LostError, Scorer
from guided_evolution.settings import Settings
from guided_evolution.store import Store
from guided_evolution.verification import FIRST, VERIFY, worse_of

INTERRUPTED = "interrupted"
T = TypeVar("T")


class _StoppedError(Exception):
    """Raised inside a child's making when nothing new may be started."""


class Nursery:
    """Every individual of a run, and how new ones come in.

    Attributes:
        individuals: Those that were taken into the run, by id; rejected and failed ones too.
        clock: Time of the run over all its sessions.
        stop_reason: Why nothing new is started; empty while all goes on.
        failure: What the model's failure was, where it is the reason.
        hungry: Children that have, or may yet have, a question for the model.
        changed: Set whenever one of the above changes.
    """

    def __init__(
        self,
        problem: Problem,
        settings: Settings,
        store: Store,
        llm: LLM,
        executor: Executor,
        emit: Callable[[Event], None],
    ) -> None:
        self._problem = problem
        self._settings = settings
        self._store = store
        self._emit = emit
        self._scorer = Scorer(problem, settings, store, executor, emit)
        self._front = Front(problem)
        self._digests: dict[str, int] = {}
        self._promise = Promise(problem, lambda: self._front.members, self._digests)
        self._breeder = Breeder(problem, settings, store, llm, self._scorer, emit, self._promise)
        self._breeder.asker.before_asking = self._may_start
        self._breeder.asker.stop = self.stop
        self._breeder.on_check = self._checking
        self._budget = Budget.of(settings)
        self._settling: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self.individuals: dict[int, Individual] = {}
        self.clock = Clock(store.meta("seconds", 0.0))
        self.stop_reason = ""
        self.failure: ModelError | None = None
        self.hungry: set[int] = set()
        self.changed = asyncio.Event()

    @property
    def hall_of_fame(self) -> list[Individual]:
        """The non-dominated individuals of the run so far."""
        return list(self._front.members)

    @property
    def evaluated(self) -> int:
        """How many distinct programs were scored, the seed included."""
        return len(self._digests)

    def tell(self, generation: int) -> None:
        """Tells the listeners that a generation is complete, and the front after it."""
        self._emit(Event("generation", data={"generation": generation, "front": self.hall_of_fame}))

    def stop(self, reason: str) -> None:
        """Starts nothing new: what is in flight is finished and recorded."""
        self.stop_reason = self.stop_reason or reason
        self.changed.set()

    async def seed(self) -> Individual:
        """The seed, scored.

        Raises:
            RunError: When it can't be.
        """
        seed = await self._score(Individual(0, 0, self._problem.genome()))
        if seed is None:
            raise RunError("stopped before the seed was scored")
        if not seed.ok:
            reason = seed.outcome.reason if seed.outcome else ""
            raise RunError(f"the seed can't be scored ({seed.status}): {reason}")
        self._enrol([seed])
        return seed

    async def brood(self, generation: int, plans: Sequence[Plan]) -> list[Individual]:
        """Raises the children of a generation, each as soon as it can be; gives those that may live."""
        self._breeder.choice.begin(generation, self.individuals, self.hall_of_fame)
        born = await together(self._child(plan) for plan in plans)
        fresh = self._enrol(await self._believed([child for child in born if child is not None]))
        self.tell(generation)
        return fresh

    async def raise_one(self, plan: Plan) -> list[Individual]:
        """Raises one child on its own; gives it when it may live, and nothing when it failed or was known."""
        self._breeder.choice.begin(plan.generation, self.individuals, self.hall_of_fame)
        child = await self._child(plan)
        if child is None:
            return []
        # a twin that arrives at the same time waits, and is then known
        async with self._settling.setdefault(child.genome.digest, asyncio.Lock()):
            return self._enrol(await self._believed([child]))

    async def _child(self, plan: Plan) -> Individual | None:
        recorded = self._store.individual(plan.number)
        if recorded is not None and recorded.outcome is not None:
            return await self._score(recorded)
        self._feed(plan.number, hungry=True)
        try:
            child, rejected = await self._breeder.breed(plan)
        except (_StoppedError, LostError):
            return None
        except ModelError as error:
            # what is being scored was paid for: it is finished and recorded before the run gives up
            self.failure = self.failure or error
            self.stop(str(error))
            return None
        finally:
            self._feed(plan.number, hungry=False)
        if rejected is None:
            return await self._score(child)
        self._store.put_individual(child)
        self._store.put_outcome(child.id, rejected)
        return self._announce(replace(child, outcome=rejected))

    def _checking(self, number: int, begins: bool) -> None:
        self._feed(number, hungry=not begins)

    def _feed(self, number: int, *, hungry: bool) -> None:
        (self.hungry.add if hungry else self.hungry.discard)(number)
        self.changed.set()

    async def _score(self, individual: Individual) -> Individual | None:
        """The individual with its outcome, recorded; None when its evaluation was cut short by a stop."""
        recorded = individual.outcome or self._store.outcome(individual.id)
        if recorded is not None:
            self._scorer.remember(individual, recorded)
            return self._announce(replace(individual, outcome=recorded), recorded=True)
        self._store.put_individual(individual)
        outcome = await self._scorer.evaluate(individual)
        if outcome.status is Status.LOST and not self.stop_reason:
            outcome = await self._scorer.evaluate(individual)
        if outcome.status is Status.LOST and self.stop_reason:
            return None
        self._store.put_outcome(individual.id, outcome)
        return self._announce(replace(individual, outcome=outcome))

    async def _believed(self, children: Sequence[Individual]) -> list[Individual]:
        """The children, after each that would enter the front was evaluated once more in a fresh process."""
        believed = {child.id: child for child in children}
        settled: set[int] = set()
        while self._settings.verify:
            programs = {child.genome.digest: child for child in sorted(believed.values(), key=lambda each: -each.id)}
            new = [child for child in programs.values() if child.ok and child.genome.digest not in self._digests]
            entrants = self._front.entrants(new)
            # a champion that fell lets others in
            waiting = [each for each in entrants if each.id not in settled]
            if not waiting or self.stop_reason == INTERRUPTED:
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
        if second.status is Status.LOST and not self.stop_reason:
            second = await self._scorer.again(champion)
        if second.status is Status.LOST:
            return champion
        worse = worse_of(self._problem, first, second)
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
                    child = self._inheriting(child, self.individuals[twin])
                self._digests.setdefault(child.genome.digest, child.id)
            self.individuals[child.id] = child
            if twin is None and child.status not in (Status.REJECTED, Status.LOST):
                self._learn(child)
            if child.ok and twin is None:
                fresh.append(child)
        self._front.add(fresh)
        return fresh

    def _learn(self, child: Individual) -> None:
        if self._settings.drafts > 1 and child.origin.parents:
            checked = None if child.ok else self._store.check(child.genome.digest)
            parent = self.individuals[child.origin.parents[0]]
            self._promise.learn(child, parent, checked.scores if checked else {})

    def _inheriting(self, child: Individual, twin: Individual) -> Individual:
        """A child with what is believed of its program by now: one of the same generation inherited the first score."""
        if twin.outcome is not None and child.outcome != twin.outcome:
            self._store.put_outcome(child.id, twin.outcome)
            child = replace(child, outcome=twin.outcome)
        return child

    def _may_start(self) -> None:
        if not self.stop_reason:
            self.stop(self._budget.reached(self._store.spending(), self.clock.seconds / 3600))
        if self.stop_reason:
            raise _StoppedError

    def _announce(self, individual: Individual, *, recorded: bool = False) -> Individual:
        if not recorded:
            self._store.put_meta(seconds=self.clock.seconds)
        self._emit(Event("individual", individual.id, data={"individual": individual, "recorded": recorded}))
        return individual


async def together(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of all; the first failure cancels the others and is raised when they have ended."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
