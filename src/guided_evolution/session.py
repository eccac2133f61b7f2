"""Runs from beginning to end: the record, the model and the evaluation lane, opened, used and closed."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import platform
import re
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from guided_evolution.errors import GuidedEvolutionError, ProblemError, RunError
from guided_evolution.evaluation import Job
from guided_evolution.events import Event, Listener
from guided_evolution.evolution import INTERRUPTED, Evolution
from guided_evolution.executors import Executor
from guided_evolution.executors.local import LocalExecutor
from guided_evolution.individual import Individual, Outcome, Status
from guided_evolution.llm import LLM, Request
from guided_evolution.llm.spec import open_llm
from guided_evolution.locations import data_folder
from guided_evolution.problem import Problem
from guided_evolution.prompts.book import Book
from guided_evolution.run import Run, problem_from_json, problem_to_json
from guided_evolution.scoring import Scorer
from guided_evolution.settings import Settings
from guided_evolution.store import Store

T = TypeVar("T")
PREPARE_SECONDS = 3600.0


def default_folder(problem: Problem, runs: Path) -> Path:
    """A fresh folder for a run: the problem's name and the time."""
    name = re.sub(r"[^\w.-]+", "-", problem.name).strip("-") or "run"
    stamp = time.strftime("%Y%m%d-%H%M%S")
    folder, number = runs / f"{name}-{stamp}", 2
    while folder.exists():
        folder, number = runs / f"{name}-{stamp}-{number}", number + 1
    return folder


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def resolved(settings: Settings) -> Settings:
    """The settings with workers and threads decided for this machine."""
    workers = settings.workers or max(1, cores() // 2)
    # a small network trains no faster on two threads, and the model needs cores as well
    threads = settings.threads or max(1, cores() // (2 * workers))
    return replace(settings, workers=workers, threads=threads)


def start(
    problem: Problem, settings: Settings, folder: Path, listeners: Iterable[Listener] = (), llm: LLM | None = None
) -> Run:
    """Begins a run in a new folder and goes through with it.

    Args:
        llm: A model to use instead of the one the settings name; it is closed at the end.

    Raises:
        GuidedEvolutionError: As `Evolution.run`; the record says what happened until then.
    """
    problem.genome()
    Book(problem.prompts).check()
    settings = resolved(settings)
    store = Store.create(folder)
    store.put_meta(
        problem=problem_to_json(problem),
        settings=settings.to_json(),
        versions={"guided_evolution": metadata.version("guided-evolution"), "python": platform.python_version()},
        status="running",
    )
    return _go(problem, settings, store, listeners, llm)


def resume(
    folder: Path, listeners: Iterable[Listener] = (), changes: Mapping[str, Any] | None = None, llm: LLM | None = None
) -> Run:
    """Goes on with a run that was stopped in whatever way; what is recorded is not done again.

    Args:
        changes: Settings to replace, e.g. a larger budget or another number of workers.

    Raises:
        RunError: When there is no run, or another process is working on it.
        ProblemError: When the problem's seed, evaluator or limits changed since it began.
    """
    store = Store.open(folder, write=True)
    kept = store.meta("problem")
    problem = Problem.load(kept["folder"])
    if problem.digest != kept["digest"]:
        store.close()
        raise ProblemError(
            f"{problem.folder} changed since this run began, so its scores would not compare. "
            "Undo the change, or begin a new run."
        )
    problem = replace(problem_from_json(kept), evolution=problem.evolution)
    settings = resolved(Settings().with_changes(store.meta("settings"), str(folder)))
    settings = settings.with_changes(changes or {}, "ge resume")
    store.put_meta(settings=settings.to_json())
    return _go(problem, settings, store, listeners, llm)


def _go(problem: Problem, settings: Settings, store: Store, listeners: Iterable[Listener], llm: LLM | None) -> Run:
    folder = store.path.parent
    try:
        with _locked(folder):
            store.put_meta(status="running", stop_reason="", pid=os.getpid())
            try:
                run_async(lambda: _evolve(problem, settings, store, tuple(listeners), llm))
            except GuidedEvolutionError as error:
                store.put_meta(status="failed", stop_reason=str(error))
                raise
            except (KeyboardInterrupt, asyncio.CancelledError):
                store.put_meta(status=INTERRUPTED, stop_reason=INTERRUPTED)
                raise KeyboardInterrupt from None
    finally:
        store.close()
    return Run(folder)


async def _evolve(
    problem: Problem, settings: Settings, store: Store, listeners: Sequence[Listener], llm: LLM | None
) -> None:
    llm = llm or open_llm(settings.llm, threads=cores())
    executor = LocalExecutor(settings.workers or 1, store.path.parent / "jobs")
    try:
        evolution = Evolution(problem, settings, store, llm, executor, listeners)
        with _interruptible(evolution):
            await _prepare(problem, executor, listeners)
            await evolution.run()
    finally:
        await asyncio.to_thread(executor.close)
        await llm.close()
        with contextlib.suppress(OSError):
            (store.path.parent / "jobs").rmdir()


@contextlib.contextmanager
def _interruptible(evolution: Evolution) -> Iterator[None]:
    """The first Ctrl-C lets what is in flight finish, the second stops now."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    count = 0

    def interrupt() -> None:
        nonlocal count
        count += 1
        evolution.stop(INTERRUPTED)
        if count > 1 and task is not None:
            task.cancel()

    loop.add_signal_handler(signal.SIGINT, interrupt)
    loop.add_signal_handler(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        loop.remove_signal_handler(signal.SIGTERM)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds the run for this process alone; the lock goes with the process, however it ends."""
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(f"{folder}: another process is working on this run.") from None
        yield


async def _prepare(problem: Problem, executor: Executor, listeners: Iterable[Listener] = ()) -> None:
    """Runs the evaluator's `prepare`, if it has one: the time to fetch and decode data."""
    if "def prepare(" not in problem.evaluator_text:
        return
    for listener in listeners:
        listener.on(Event("note", text="preparing the data"))
    job = Job(
        name="prepare",
        stage="prepare",
        files=problem.files,
        problem=problem.folder,
        evaluator=problem.evaluator,
        seconds=PREPARE_SECONDS,
        memory_mb=max(problem.limits.memory_mb, 8192),
        threads=cores(),
        data=data_folder(),
        network=True,
    )
    outcome = await asyncio.wrap_future(executor.submit(job))
    if not outcome.ok:
        raise RunError(f"{problem.folder / problem.evaluator}: prepare failed: {outcome.reason}")


# -- shorter errands ------------------------------------------------------------------------------------------------


class _Errand:
    """An executor and a scorer for a few jobs outside a run."""

    def __init__(self, problem: Problem, settings: Settings, folder: Path, store: Store) -> None:
        self.executor = LocalExecutor(1, folder)
        self.scorer = Scorer(problem, resolved(settings), store, self.executor, lambda event: None)

    async def run(self, name: str, stage: str, individual: Individual) -> Outcome:
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
        RunError: When an id is unknown.
        ProblemError: When the evaluator has no `test`.
    """
    run = Run(folder)
    problem, settings = run.problem, Settings().with_changes(run.settings, str(folder))
    if "def test(" not in problem.evaluator_text:
        raise ProblemError(f"{problem.folder / problem.evaluator} has no test(program), so nothing is held out.")
    wanted = [run.individual(number) for number in numbers] or [run.seed, *run.front]
    run.close()
    store = Store.open(folder, write=True)
    errand = _Errand(problem, settings, folder / "jobs", store)
    recorded = {} if again else store.outcomes("test")

    async def work() -> dict[int, Outcome]:
        await _prepare(problem, errand.executor)
        results = {}
        for individual in {each.id: each for each in wanted}.values():
            outcome = recorded.get(individual.id)
            if outcome is None:
                outcome = await errand.run(f"{individual.id}-test", "test", individual)
                if outcome.status is not Status.LOST:
                    store.put_outcome(individual.id, outcome, "test")
            results[individual.id] = outcome
            on_outcome(individual.id, outcome)
        return results

    try:
        results: dict[int, Outcome] = run_async(work)
        return results
    finally:
        errand.executor.close()
        store.close()


def check(
    problem: Problem, settings: Settings, folder: Path, tell: Callable[[str, Any], None], llm: LLM | None = None
) -> None:
    """Tries every part of a problem once: blocks, prompts, the seed's check and evaluation, one model reply.

    Args:
        folder: A scratch folder.
        tell: Told of each finding: a key and its value.

    Raises:
        GuidedEvolutionError: At the first part that does not work.
    """
    genome = problem.genome()
    Book(problem.prompts).check()
    tell("blocks", [(block.name, block.file, block.line) for block in genome.blocks])
    seed = Individual(0, 0, genome)
    store = Store.create(folder)
    errand = _Errand(problem, settings, folder / "jobs", store)
    model = llm or open_llm(settings.llm, threads=cores())

    async def work() -> None:
        try:
            await _prepare(problem, errand.executor)
            for stage in ("check", "evaluate"):
                outcome = await errand.run(stage, stage, seed)
                if not outcome.ok:
                    tail = f"\n{outcome.log_tail[-2000:]}" if outcome.log_tail else ""
                    raise RunError(f"the seed fails {stage} ({outcome.status}): {outcome.reason}{tail}")
                tell(stage, outcome)
            request = Request("check", "Reply with the single word: ready", max_tokens=20, temperature=0.0)
            tell("reply", await model.ask(request))
        finally:
            await model.close()
            await asyncio.to_thread(errand.executor.close)

    try:
        run_async(work)
    finally:
        store.close()


def run_async(work: Callable[[], Any]) -> Any:
    """Runs a coroutine to its end, also from inside a notebook whose own loop is running."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work())
    result: list[Any] = []
    failure: list[BaseException] = []

    def target() -> None:
        try:
            result.append(asyncio.run(work()))
        except BaseException as error:  # noqa: BLE001 - carried over to the caller's thread, where it is raised
            failure.append(error)

    thread = threading.Thread(target=target)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]
