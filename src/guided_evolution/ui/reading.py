"""A run at one moment as the pages show it: the documents of `view`, each made once and only when a page needs it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, TypeVar

from guided_evolution import population, view
from guided_evolution.individual import Individual, Outcome
from guided_evolution.problem import Objective
from guided_evolution.run import Run
from guided_evolution.view.course import evaluated

T = TypeVar("T")
RUNNING = "running"


class Reading:
    """One run, read at one moment.

    Attributes:
        name: The run's name: its folder's.
        run: The run itself, for what has no document.
        revision: Changes when the record does.
    """

    def __init__(self, name: str, run: Run, revision: str) -> None:
        self.name = name
        self.run = run
        self.revision = revision
        self._made: dict[Any, Any] = {}

    def once(self, key: object, make: Callable[[], T]) -> T:
        """What `make` gives, made once for this reading."""
        if key not in self._made:
            self._made[key] = make()
        made: T = self._made[key]
        return made

    @property
    def status(self) -> str:
        """The run's status now; a process that was killed changes it without changing the record."""
        return self.run.status

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """What is optimised."""
        return self.run.problem.objectives

    @cached_property
    def by_id(self) -> dict[int, Individual]:
        """The individuals by id."""
        return {each.id: each for each in self.run.individuals}

    @cached_property
    def children(self) -> dict[int, list[int]]:
        """The ids of each individual's children."""
        found: dict[int, list[int]] = defaultdict(list)
        for each in self.run.individuals:
            for parent in dict.fromkeys(each.origin.parents):
                found[parent].append(each.id)
        return found

    @cached_property
    def pupils(self) -> dict[int, list[int]]:
        """The ids of those that each elite taught."""
        found: dict[int, list[int]] = defaultdict(list)
        for each in self.run.individuals:
            for teacher in dict.fromkeys(step.teacher for step in each.origin.steps if step.teacher is not None):
                found[teacher].append(each.id)
        return found

    @cached_property
    def tests(self) -> dict[int, Outcome]:
        """The held-out outcomes by id."""
        return self.run.tests

    @cached_property
    def series(self) -> dict[str, Any]:
        """The run's progress; see `view.series`."""
        return view.series(self.run)

    @cached_property
    def headline(self) -> dict[str, Any] | None:
        """What won and by how much; see `view.headline`."""
        return view.headline(self.run, self.series)

    @cached_property
    def breakdown(self) -> list[dict[str, Any]]:
        """What every way of asking came to; see `view.breakdown`."""
        return view.breakdown(self.run, view.entered(self.run, self.series))

    @cached_property
    def hypervolume(self) -> float:
        """Of the front; see `Run.hypervolume`."""
        return self.run.hypervolume()

    @cached_property
    def front_ids(self) -> frozenset[int]:
        """The ids on the front."""
        return frozenset(each.id for each in self.run.front)

    @cached_property
    def last_generation(self) -> int:
        """The latest generation with an individual."""
        return max((each.generation for each in self.run.individuals), default=0)

    def front_after(self, generation: int) -> list[Individual]:
        """The front as it was when a generation had ended, best by the first objective first."""
        early = (each for each in self.run.individuals if each.generation <= generation)
        return self.once(("front", generation), lambda: population.front(self.run.problem, list(early)))

    @cached_property
    def progress(self) -> dict[str, Any]:
        """How far the run is: see `progress_of`."""
        return progress_of(self)

    def in_flight(self) -> Iterator[dict[str, Any]]:
        """What the record knows to be under way: children that are being written, programs that are being scored."""
        asked: dict[int, int] = defaultdict(int)
        for call in self.run.calls:
            if call.turn >= 0 and call.individual not in self.by_id:
                asked[call.individual] += 1
        for each in self.run.individuals:
            if each.outcome is None:
                yield {"id": each.id, "stage": "scoring", "individual": each}
        for number, questions in sorted(asked.items()):
            yield {"id": number, "stage": "writing", "questions": questions}


def progress_of(reading: Reading) -> dict[str, Any]:
    """How many individuals are done of how many that were planned; of the evaluations, where those are capped."""
    run, settings = reading.run, reading.run.settings
    done = [each for each in run.individuals if each.outcome is not None]
    cap = settings.get("max_evaluations")
    if cap:
        count, total, unit = len(evaluated(run)), int(cap), "evaluations"
    else:
        first = settings.get("initial") or settings["population"]
        count, total, unit = len(done), 1 + first + settings["generations"] * settings["population"], "individuals"
    scored = sum(each.ok for each in done)
    return {
        "done": count,
        "total": max(total, count),
        "unit": unit,
        "scored": scored,
        "failed": len(done) - scored,
        "generation": reading.last_generation,
        "generations": settings["generations"],
    }


def row_of(reading: Reading) -> dict[str, Any]:
    """What the list of runs shows of one."""
    run = reading.run
    best = {objective.name: run.best(objective.name) for objective in reading.objectives} if run.front else {}
    return {
        "name": reading.name,
        "problem": run.problem.name,
        "status": reading.status,
        "stop_reason": run.stop_reason,
        "created": run.created,
        "seconds": run.seconds,
        "model": ", ".join(named) if isinstance(named := run.settings.get("llm", ""), list) else named,
        "progress": reading.progress,
        "best": [{"name": name, "value": each.scores[name], "id": each.id} for name, each in best.items()],
        "front": len(run.front),
        "hypervolume": reading.hypervolume if run.front else None,
        "spending": dict(run.spending),
    }
