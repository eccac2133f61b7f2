"""The loop without generations: both lanes stay full, and selection works on whoever is there.

Whenever the model has nothing to do and not too much waits for evaluation, the next child is planned, from the
population at that moment; whenever a child is scored, SPEA-2 decides anew who lives. Steady-state evolution with
NSGA-II's tournament, as in Durillo, Nebro, Luna and Alba, "On the effect of the steady-state selection scheme in
multi-objective genetic algorithms" (EMO 2009).

Who lives when a child is planned depends on what was faster, so two runs with one seed differ. Each plan is recorded,
so that a resumed run and a replay go the recorded way.
"""

from __future__ import annotations

import asyncio

from guided_evolution.breeding import Plan
from guided_evolution.individual import Individual
from guided_evolution.nursery import Nursery
from guided_evolution.planning import Planner
from guided_evolution.settings import Settings
from guided_evolution.store import Store


class Steady:
    """One child after the other, as many at a time as keep both lanes busy."""

    def __init__(self, settings: Settings, store: Store, nursery: Nursery, planner: Planner, slots: int) -> None:
        """Sets the loop up.

        Args:
            slots: Evaluations at the same time.
        """
        self._settings = settings
        self._store = store
        self._nursery = nursery
        self._planner = planner
        # a full lane of evaluations, one waiting for each of them, and the questions on their way
        self._most = settings.llm_parallel + 2 * slots
        self._population: list[Individual] = []
        self._raising: dict[int, asyncio.Task[None]] = {}
        self._raised = 0

    async def run(self, seed: Individual) -> None:
        """Raises children until there are as many as planned, or a budget ends it."""
        self._population = [seed]
        try:
            for number in self._numbers():
                if not await self._room():
                    break
                plan = await self._plan(number)
                if plan is None:
                    break
                self._raising[number] = asyncio.ensure_future(self._raise(plan))
                # it takes its place in the model's lane before the next one is thought of
                await asyncio.sleep(0)
            await self._all()
        finally:
            for task in self._raising.values():
                task.cancel()
            await asyncio.gather(*self._raising.values(), return_exceptions=True)

    def _numbers(self) -> list[int]:
        """Children in the order in which they are begun: those that are recorded first, as they were finished."""
        finished = self._store.finished("evaluate")
        known = sorted((number for number in finished if number), key=lambda each: finished[each])
        return [*known, *(number for number in range(1, self._planner.total + 1) if number not in finished)]

    async def _room(self) -> bool:
        """Waits until another child may be begun; False when none may be any more."""
        nursery, cap = self._nursery, self._settings.max_evaluations
        while not nursery.stop_reason:
            nursery.changed.clear()
            for number in [number for number, task in self._raising.items() if task.done()]:
                self._raising.pop(number).result()
            busy = len(self._raising)
            if cap is not None and nursery.evaluated >= cap:
                nursery.stop(f"max_evaluations reached ({cap})")
                break
            affordable = cap is None or nursery.evaluated + busy < cap
            if affordable and busy < self._most and len(nursery.hungry) < self._settings.llm_parallel:
                return True
            await nursery.changed.wait()
        return False

    async def _plan(self, number: int) -> Plan | None:
        """The recorded plan, once everyone it needs is there, else one for this moment; None when stopped."""
        while True:
            plan, missing = self._planner.recorded(number)
            if plan is not None:
                return plan
            waiting = [self._raising[each] for each in missing if each in self._raising]
            if not waiting:
                break
            await asyncio.wait(waiting)
        return None if self._nursery.stop_reason else self._planner.single(number, self._population)

    async def _raise(self, plan: Plan) -> None:
        try:
            fresh = await self._nursery.raise_one(plan)
            if fresh:
                self._population = self._planner.elites([*self._population, *fresh])
            self._count()
        finally:
            self._nursery.changed.set()

    def _count(self) -> None:
        """Tells of every `population` children as of a generation, so that all that shows a run can show this one."""
        self._raised += 1
        generation, beyond = divmod(self._raised - self._settings.first_population, self._settings.population)
        if generation >= 0 and not beyond:
            self._nursery.tell(generation)

    async def _all(self) -> None:
        """Waits for whatever is in flight; the first failure is raised."""
        for task in asyncio.as_completed(list(self._raising.values())):
            await task
        self._raising.clear()
