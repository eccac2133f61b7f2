"""From programs to outcomes: the evaluation lane as the loop sees it.

A program that was scored before, under whatever id, is never evaluated again; what is recorded is never run again.
"""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from guided_evolution.curves import Curve, Decision, Watch
from guided_evolution.errors import RunError
from guided_evolution.evaluation import Job
from guided_evolution.events import Event
from guided_evolution.executors import Executor
from guided_evolution.genome import Genome
from guided_evolution.individual import Individual, Outcome, Status
from guided_evolution.locations import data_folder
from guided_evolution.problem import Problem
from guided_evolution.pruning import hopeless, obstacle
from guided_evolution.settings import Settings
from guided_evolution.store import Store

_CHECK_SECONDS = 60.0
_ROOM = 1 << 20
# the name itself, or an import of everything, which may bring it
_MAY_CHECK = re.compile(r"\bcheck\b|\bimport\s*\*")


class LostError(Exception):
    """Raised inside a child's making when its check was cut short from outside."""


class Scorer:
    """Checks and evaluates programs through an executor, each distinct program once."""

    def __init__(
        self,
        problem: Problem,
        settings: Settings,
        store: Store,
        executor: Executor,
        emit: Callable[[Event], None],
    ) -> None:
        self._problem = problem
        self._settings = settings
        self._store = store
        self._executor = executor
        self._emit = emit
        self._checks: dict[str, asyncio.Task[Outcome]] = {}
        self._scores: dict[str, asyncio.Task[Outcome]] = {}
        self._curves: tuple[int, Sequence[Curve]] = (0, ())
        self._told = not settings.prune
        self.threads = settings.threads or 1

    def job(self, name: str, stage: str, genome: Genome, *, fresh: bool = False) -> Job:
        """The job that runs one stage of a program; a fresh one never starts from the fork server."""
        limits = self._problem.limits
        quick = stage == "check"
        return Job(
            name=name,
            stage=stage,
            files=genome.files,
            problem=self._problem.folder,
            evaluator=self._problem.evaluator,
            objectives=tuple(objective.name for objective in self._problem.objectives),
            seconds=min(limits.seconds, _CHECK_SECONDS) if quick else limits.seconds,
            memory_mb=limits.memory_mb,
            threads=self.threads,
            seed=self._settings.seed,
            device="cuda" if limits.gpus and not quick else "cpu",
            data=data_folder(),
            network=limits.network,
            disk_mb=limits.disk_mb,
            gpus=0 if quick else limits.gpus,
            ranges={each.name: each.range for each in self._problem.objectives if each.range is not None},
            sandbox=self._settings.sandbox,
            readable=tuple(self._problem.folder / Path(name).expanduser() for name in self._problem.sandbox.readable),
            held_out=self._problem.sandbox.held_out,
            preload=self._problem.sandbox.preload,
            fresh=fresh or stage == "test",
        )

    async def check(self, number: int, genome: Genome) -> Outcome:
        """Runs the problem's cheap check on a program, once for each distinct one; without it all pass."""
        digest = genome.digest
        if digest in self._scores or not self._has_check:
            return Outcome(Status.OK)
        if digest not in self._checks:
            recorded = self._store.check(digest)
            if recorded is not None:
                return recorded
            self._checks[digest] = _begun(self._check(number, genome))
        return await asyncio.shield(self._checks[digest])

    @cached_property
    def _has_check(self) -> bool:
        """Whether the evaluator may have a check: a process that finds none takes as long as one that finds one."""
        return _MAY_CHECK.search(self._problem.evaluator_text) is not None

    async def _check(self, number: int, genome: Genome) -> Outcome:
        self._emit(Event("check", number))
        name = f"{number}-check-{genome.digest[:12]}"
        outcome = await asyncio.wrap_future(self._executor.submit(self.job(name, "check", genome)))
        if outcome.status is Status.LOST:
            del self._checks[genome.digest]
            raise LostError(outcome.reason)
        self._require_room(outcome)
        self._store.put_check(genome.digest, outcome)
        return outcome

    async def evaluate(self, individual: Individual) -> Outcome:
        """Scores an individual; one with the program of another inherits that one's outcome."""
        digest = individual.genome.digest
        if digest not in self._scores:
            recorded = self._store.outcome_of(digest)
            if recorded is not None and recorded.taken_from:
                recorded = self._taken(individual, recorded)
            work = self._evaluate(individual) if recorded is None else _ready(recorded)
            self._scores[digest] = _begun(work)
        return await asyncio.shield(self._scores[digest])

    async def again(self, individual: Individual) -> Outcome:
        """Scores an individual once more, in a fresh process."""
        self._emit(Event("verify", individual.id))
        job = self.job(f"{individual.id}-verify", "evaluate", individual.genome, fresh=True)
        outcome = await asyncio.wrap_future(self._executor.submit(job))
        self._require_room(outcome)
        return outcome

    def remember(self, individual: Individual, outcome: Outcome, *, again: bool = False) -> None:
        """Takes over what a record holds, so that the program is not scored again.

        Args:
            again: Whether it replaces what was known of the program.
        """
        known = individual.genome.digest in self._scores and not again
        if outcome.status is not Status.REJECTED and not known:
            self._scores[individual.genome.digest] = asyncio.ensure_future(_ready(outcome))

    async def _evaluate(self, individual: Individual) -> Outcome:
        self._emit(Event("evaluate", individual.id))
        job = self.job(f"{individual.id}-evaluate", "evaluate", individual.genome)
        outcome, curve = await self.follow(individual, job, self._decision(individual.generation))
        if outcome.status is Status.LOST:
            del self._scores[individual.genome.digest]
        self._require_room(outcome)
        if outcome.ok and not self._told:
            self._told = True
            if text := obstacle(self._problem, curve):
                self._emit(Event("note", text=text))
        return outcome

    def _taken(self, individual: Individual, outcome: Outcome) -> Outcome:
        """What another run measured, as far as it would have been measured here; its curve is recorded here too."""
        curve = self._store.curve(individual.genome.digest)
        decide = self._decision(individual.generation)
        for number, result in enumerate(curve, start=1) if outcome.ok else ():
            if reason := decide(result.step, result.scores):
                outcome = replace(_cut(outcome, reason, result.scores), seconds=result.seconds)
                curve = curve[:number]
                break
        self._store.put_curve(individual.genome.digest, curve)
        return outcome

    async def follow(self, individual: Individual, job: Job, decide: Decision) -> tuple[Outcome, Curve]:
        """Runs an evaluation to its end, or to where it is stopped early, and records its learning curve.

        Once `decide` gave a reason the outcome is PRUNED, also when the evaluation ended before it could be stopped:
        how fast a machine is decides nothing.
        """
        loop = asyncio.get_running_loop()
        watch = Watch(decide)

        def partial(values: dict[str, float]) -> bool:
            loop.call_soon_threadsafe(self._emit, Event("partial", individual.id, data=values))
            return watch.take(values)

        outcome = await asyncio.wrap_future(self._executor.submit(job, partial))
        curve = watch.curve(outcome.seconds)
        if watch.stopped_at is not None:
            outcome = _cut(outcome, watch.verdict, watch.stopped_at)
        if outcome.status is not Status.LOST:
            self._store.put_curve(individual.genome.digest, curve.results)
        return outcome, curve

    def _decision(self, generation: int) -> Decision:
        """By what an evaluation of a generation is stopped early: by those that ended before anything of it began."""
        if not self._settings.prune:
            return _go_on
        if self._settings.schedule == "steady":  # there are no generations that wait for each other
            curves: Sequence[Curve] = [*self._store.curves().values()]
        else:
            if self._curves[0] != generation:
                self._curves = (generation, [*self._store.curves(generation).values()])
            curves = self._curves[1]
        return lambda step, scores: hopeless(self._problem, curves, step, scores)

    def _require_room(self, outcome: Outcome) -> None:
        """Makes sure that a failure is the candidate's own: on a full disk any program fails."""
        folder = self._store.path.parent
        if not outcome.ok and shutil.disk_usage(folder).free < _ROOM:
            raise RunError(f"{folder}: the disk is full. Nothing is lost: make room, and `ge resume {folder}` goes on.")


def _begun(work: Coroutine[Any, Any, Outcome]) -> asyncio.Task[Outcome]:
    """A task of its own; the run's first failure ends the run, and later ones have nobody left who listens."""
    task = asyncio.ensure_future(work)
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return task


def _cut(outcome: Outcome, reason: str, last: Mapping[str, float]) -> Outcome:
    """The outcome of an evaluation that was stopped early, for a reason, after its last partial result."""
    return replace(outcome, status=Status.PRUNED, reason=reason, scores={}, metrics=last, feedback="")


async def _ready(outcome: Outcome) -> Outcome:
    return outcome


def _go_on(step: int, scores: Mapping[str, float]) -> str:
    return ""
