"""What all trackers have in common: which numbers they are sent, on a thread of their own."""

from __future__ import annotations

import logging
import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from guided_evolution import population
from guided_evolution.events import Event
from guided_evolution.individual import Individual, Status
from guided_evolution.problem import Problem

Values = Mapping[str, float]
_LOG = logging.getLogger(__name__)


class Tracker(ABC):
    """A listener that sends a run to an experiment tracker.

    For each individual that is scored or has failed it sends, with the number of evaluations as the step: its scores
    (as `score/NAME`), the best so far of each objective (`best/NAME`), the size of the front, the counts of
    evaluations and failures, tokens and US dollars spent, and the front's hypervolume where every objective has a
    reference (without one it would be measured against something else at each step). At the end it sends the front.

    Everything is sent on a thread, so a slow tracker doesn't slow the run. The first failure is told in one line and is
    the tracker's last.
    """

    name = "tracker"
    patience = 60.0

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._failed = False
        self._problem: Problem | None = None
        self._spent = {"tokens": 0.0, "usd": 0.0}
        self._programs: set[str] = set()
        self._failures = 0
        self._front: list[Individual] = []

    @abstractmethod
    def begin(self, problem: Problem, folder: Path, parameters: Mapping[str, str]) -> None:
        """Opens the tracker's run."""

    @abstractmethod
    def send(self, step: int, values: Values) -> None:
        """Sends numbers of one step."""

    @abstractmethod
    def finish(self, status: str, head: list[str], rows: list[list[Any]]) -> None:
        """Sends the front as a table and closes the tracker's run.

        Args:
            status: "done", "interrupted" or "failed".
        """

    def on(self, event: Event) -> None:
        """Takes one event; see `Listener.on`."""
        if event.kind == "start":
            self._start(event.data)
        elif event.kind == "reply":
            self._spent["tokens"] += (event.data.get("tokens_in") or 0) + (event.data.get("tokens_out") or 0)
            self._spent["usd"] += event.data.get("usd") or 0.0
        elif event.kind == "individual" and self._problem is not None:
            self._individual(self._problem, event.data["individual"])
        elif event.kind == "verified":
            self._failures += not event.data["second"].ok
        elif event.kind == "generation":
            self._front = list(event.data["front"])  # what was evaluated twice may have left it
        elif event.kind == "end":
            # a session that a fault of ours ended leaves the record as running
            status = str(event.data["status"])
            self._end("failed" if status == "running" else status)

    def close(self) -> None:
        """Ends the tracker's run as interrupted, if it is still open."""
        self._end("interrupted")

    def _start(self, data: Mapping[str, Any]) -> None:
        self._problem = data["problem"]
        problem, folder = data["problem"], Path(data["folder"])
        spent = data["spending"]
        self._spent = {"tokens": spent["tokens_in"] + spent["tokens_out"], "usd": spent["usd"]}
        parameters = {name: str(value) for name, value in data["settings"].to_json().items() if value is not None}
        parameters |= {"problem": problem.name, "problem_digest": problem.digest}
        self._thread = threading.Thread(target=self._empty_queue, name=f"tracker {self.name}", daemon=True)
        self._thread.start()
        self._work.put(lambda: self.begin(problem, folder, parameters))

    def _individual(self, problem: Problem, individual: Individual) -> None:
        if individual.twin is not None or individual.genome.digest in self._programs:
            return
        if individual.status is not Status.REJECTED:
            self._programs.add(individual.genome.digest)
        self._failures += not individual.ok
        values: dict[str, float] = {f"score/{name}": value for name, value in individual.scores.items()}
        if individual.ok:
            self._front = population.front(problem, [*self._front, individual])
        for objective in problem.objectives:
            found = [objective.minimised(each.scores[objective.name]) for each in self._front]
            if found:
                values[f"best/{objective.name}"] = objective.minimised(min(found))
        if self._front and all(each.reference is not None for each in problem.objectives):
            reference = population.reference_point(problem, self._front)
            values["hypervolume"] = population.hypervolume(problem, self._front, reference)
        values |= {
            "front": len(self._front),
            "evaluations": len(self._programs),
            "failures": self._failures,
            "generation": individual.generation,
            **self._spent,
        }
        step = len(self._programs)
        self._work.put(lambda: self.send(step, values))

    def _end(self, status: str) -> None:
        thread, self._thread = self._thread, None
        if thread is None or self._problem is None:
            return
        names = [each.name for each in self._problem.objectives]
        head = ["id", *names, "operator", "block", "category", "character", "parents"]
        rows = [self._row(names, each) for each in self._front]
        self._work.put(lambda: self.finish(status, head, rows))
        self._work.put(None)
        thread.join(self.patience)
        if thread.is_alive():
            _LOG.warning("%s: not done after %.0f s; what it has not sent is lost.", self.name, self.patience)

    @staticmethod
    def _row(names: list[str], each: Individual) -> list[Any]:
        origin = each.origin
        parents = " ".join(map(str, origin.parents))
        scores = [each.scores[name] for name in names]
        return [each.id, *scores, origin.operator, origin.block, origin.category, origin.character, parents]

    def _empty_queue(self) -> None:
        while (work := self._work.get()) is not None:
            if self._failed:
                continue
            try:
                work()
            except Exception as error:  # noqa: BLE001 - another project's client, and a network behind it
                self._failed = True
                reason = " ".join(str(error).split())[:200]
                _LOG.warning("%s: %s: %s. The run goes on without it.", self.name, type(error).__name__, reason)
