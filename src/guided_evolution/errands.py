"""Shorter errands than a run: trying a problem once, and the held-out test."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from guided_evolution.breeding import Breeder, Plan
from guided_evolution.budget import require_price
from guided_evolution.errors import ProblemError, RunError
from guided_evolution.estimate import Estimate, as_usual, estimate, planned_generations
from guided_evolution.events import Event
from guided_evolution.executors import Executor
from guided_evolution.executors.local import LocalExecutor
from guided_evolution.executors.opening import open_executor
from guided_evolution.individual import Individual, Outcome, Status
from guided_evolution.llm import LLM
from guided_evolution.problem import Problem
from guided_evolution.prompts.book import Book
from guided_evolution.run import Run
from guided_evolution.scoring import Scorer
from guided_evolution.session import locked, open_model, prepare, resolved, run_async
from guided_evolution.settings import Settings
from guided_evolution.store import Store

TEST_JOBS = "test-jobs"


class Errand:
    """An executor, a scorer and a record for a few jobs outside a run."""

    def __init__(self, problem: Problem, settings: Settings, executor: Executor, store: Store) -> None:
        self.problem, self.settings, self.store = problem, resolved(settings), store
        self.executor = executor
        self.scorer = Scorer(problem, self.settings, store, self.executor, lambda event: None)

    async def run(self, name: str, stage: str, individual: Individual) -> Outcome:
        """Runs one stage of an individual."""
        job = self.scorer.job(name, stage, individual.genome)
        return await asyncio.wrap_future(self.executor.submit(job))


def test(
    folder: Path, numbers: Sequence[int], on_outcome: Callable[[int, Outcome], None], *, again: bool = False
) -> dict[int, Outcome]:
    """Measures individuals on held-out data, each once and in a fresh process; a recorded result is not repeated.

    Args:
        numbers: Ids; empty means the front and the seed.
        on_outcome: Told of each result, recorded ones included.
        again: Whether to measure again what was recorded.

    Raises:
        RunError: When an id is unknown or has no program of its own, or a process works on the run.
        ProblemError: When the evaluator has no `test`, or the problem changed since the run began.
    """
    run = Run(folder)
    problem, settings = run.problem, Settings().with_changes(run.settings, str(folder))
    if "def test(" not in problem.evaluator_text:
        raise ProblemError(f"{problem.folder / problem.evaluator} has no test(program), so nothing is held out.")
    run.require_unchanged_problem()
    wanted = [run.individual(number) for number in numbers] or [run.seed, *run.front]
    run.close()
    for individual in wanted:
        if individual.status is Status.REJECTED:
            raise RunError(f"{folder}: individual {individual.id} was rejected: it has no program of its own.")
    try:
        with (
            locked(folder),
            contextlib.closing(Store.open(folder, write=True)) as store,
            contextlib.closing(_for_tests(settings, folder, store, wanted, again)) as executor,
        ):
            errand = Errand(problem, settings, executor, store)
            return run_async(lambda: _test(errand, wanted, on_outcome, again=again))
    finally:
        with contextlib.suppress(OSError):
            (folder / TEST_JOBS).rmdir()


def _for_tests(settings: Settings, folder: Path, store: Store, wanted: Sequence[Individual], again: bool) -> Executor:
    """The run's executor, with a folder of its own: what a killed run left in its own is for `ge resume`."""
    recorded = {} if again else store.outcomes("test")
    if all(each.id in recorded for each in wanted):
        return LocalExecutor(1, folder / TEST_JOBS)  # results are read without a cluster
    return open_executor(resolved(settings), folder / TEST_JOBS)


async def _test(
    errand: Errand, wanted: Sequence[Individual], on_outcome: Callable[[int, Outcome], None], *, again: bool
) -> dict[int, Outcome]:
    recorded = {} if again else errand.store.outcomes("test")
    await prepare(errand.problem, errand.executor)
    results = {}
    for individual in {each.id: each for each in wanted}.values():
        outcome = recorded.get(individual.id)
        if outcome is None:
            outcome = await errand.run(f"{individual.id}-test", "test", individual)
            if outcome.status is not Status.LOST:
                errand.store.put_outcome(individual.id, outcome, "test")
        results[individual.id] = outcome
        on_outcome(individual.id, outcome)
    return results


def check(
    problem: Problem, settings: Settings, folder: Path, tell: Callable[[str, Any], None], llm: LLM | None = None
) -> Estimate:
    """Tries every part of a problem once (blocks, prompts, the seed's check and evaluation, one mutation), and
    estimates a run by it.

    Args:
        folder: A scratch folder.
        tell: Told of each finding: "blocks", "check", "evaluate", and "mutation" with the child and what became of it.

    Raises:
        GuidedEvolutionError: At the first part that does not work.
    """
    genome = problem.genome()
    Book(problem.prompts).check()
    tell("blocks", [(block.name, block.file, block.line) for block in genome.blocks])
    store = Store.create(folder)
    errand = Errand(problem, settings, LocalExecutor(1, folder / "jobs"), store)
    try:
        return run_async(lambda: _check(errand, llm or open_model(settings), tell))
    finally:
        errand.executor.close()
        store.close()


async def _check(errand: Errand, llm: LLM, tell: Callable[[str, Any], None]) -> Estimate:
    seed = Individual(0, 0, errand.problem.genome())
    try:
        require_price(errand.settings, llm)
        await prepare(errand.problem, errand.executor)
        checked: Mapping[str, float] = {}
        for stage in ("check", "evaluate"):
            outcome = await errand.run(stage, stage, seed)
            if not outcome.ok:
                tail = f"\n{outcome.log_tail[-2000:]}" if outcome.log_tail else ""
                raise RunError(f"the seed fails {stage} ({outcome.status}): {outcome.reason}{tail}")
            for name, value in checked.items():
                if value != outcome.scores[name]:
                    raise RunError(f"{name} of the seed: check says {value:g}, and evaluate {outcome.scores[name]:g}")
            tell(stage, outcome)
            checked = outcome.scores
        seed = replace(seed, outcome=outcome)
        breeder = Breeder(
            errand.problem, errand.settings, errand.store, llm, errand.scorer, lambda event: _pass_on(event, tell)
        )
        breeder.asker.outage_seconds = 0.0  # a person waits for the answer
        child, rejected = await breeder.breed(Plan(1, 0, (seed,), mate=False, mutate=True))
        tell("mutation", (child, rejected))
        planned = planned_generations(errand.settings)
        usual = as_usual(child.origin.exchanges, seed.genome, child.origin.steps)
        return estimate(errand.settings, planned, usual, outcome.seconds)
    finally:
        await llm.close()


def _pass_on(event: Event, tell: Callable[[str, Any], None]) -> None:
    if event.kind == "note":
        tell("note", event.text)
