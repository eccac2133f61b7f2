"""The loop: Algorithm 1 of Morris, Jurado and Zutty (GECCO 2024), with its two lanes overlapped.

`Evolution._generations` reads as the algorithm does; `steady.Steady` is the loop without generations. Algorithm 2, the
mutation, is `operators.Mutate` and `operators.EvolutionOfThought`; `breeding.Breeder` chooses between them.
"""

from __future__ import annotations

from collections.abc import Iterable

from guided_evolution.estimate import compare
from guided_evolution.events import Event, Listener
from guided_evolution.executors import Executor
from guided_evolution.individual import Individual
from guided_evolution.llm import LLM
from guided_evolution.nursery import INTERRUPTED, Nursery
from guided_evolution.planning import Planner
from guided_evolution.problem import Problem
from guided_evolution.settings import Settings
from guided_evolution.steady import Steady
from guided_evolution.store import Store


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
        self._slots = executor.slots
        self._listeners = tuple(listeners)
        self._nursery = Nursery(problem, settings, store, llm, executor, self._emit)
        self._planner = Planner(problem, settings, store, self._nursery.individuals, lambda: self._nursery.hall_of_fame)

    async def run(self) -> str:
        """Evolves until the generations or a budget end, and gives the reason for stopping.

        Raises:
            RunError: When the seed can't be scored, or the record can't be written.
            ModelError: When the model can't be asked; what was recorded is kept, and the run can be resumed.
        """
        seed = await self._nursery.seed()
        if self.settings.schedule == "steady":
            await Steady(self.settings, self._store, self._nursery, self._planner, self._slots).run(seed)
        else:
            await self._generations(seed)
        return self._finish()

    async def _generations(self, seed: Individual) -> None:
        nursery, planner = self._nursery, self._planner
        population = [seed, *await nursery.brood(0, planner.first(seed))]
        for generation in range(1, self.settings.generations + 1):
            elites = planner.elites(population)
            plans = planner.generation(generation, population, elites, nursery.evaluated)
            if not plans:
                nursery.stop(f"max_evaluations reached ({self.settings.max_evaluations})")
                break
            offspring = await nursery.brood(generation, plans)
            population = [*elites, *offspring]
            if nursery.stop_reason:
                break

    def stop(self, reason: str) -> None:
        """Starts nothing new: what is in flight is finished and recorded."""
        self._nursery.stop(reason)

    def _finish(self) -> str:
        nursery = self._nursery
        if nursery.failure is not None:
            raise nursery.failure
        reason = nursery.stop_reason or f"{self.settings.generations} generations done"
        status = INTERRUPTED if reason == INTERRUPTED else "done"
        seconds = nursery.clock.seconds
        judged = compare(self.settings, nursery.individuals.values(), self._store.calls(), seconds)
        self._store.put_meta(seconds=seconds, stop_reason=reason, status=status, estimate=judged)
        self._emit(Event("stop", text=reason))
        return reason

    def _emit(self, event: Event) -> None:
        for listener in self._listeners:
            listener.on(event)
