"""Runs from beginning to end: the record, the model and the evaluation lane, opened, used and closed."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import functools
import os
import platform
import re
import signal
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from guided_evolution.budget import require_price
from guided_evolution.errors import GuidedEvolutionError, ModelError, RunError
from guided_evolution.evaluation import Job
from guided_evolution.events import Event, Listener
from guided_evolution.evolution import Evolution
from guided_evolution.executors import Executor
from guided_evolution.executors.opening import check_executor, jail_in_force, open_executor
from guided_evolution.llm import LLM, Opening
from guided_evolution.llm.spec import open_llms
from guided_evolution.locations import data_folder
from guided_evolution.nursery import INTERRUPTED
from guided_evolution.problem import Problem
from guided_evolution.prompts.book import Book
from guided_evolution.reuse import borrow, lender
from guided_evolution.run import LOCK, Run, accept_changes, problem_to_json, recorded_model
from guided_evolution.settings import EARLIER, Settings
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


def open_model(settings: Settings) -> LLM:
    """The model that the settings name.

    Raises:
        UsageError: As `open_llm`.
        RunError: When a recorded run is named that can't be read.
    """
    return open_llms(settings.models, threads=cores(), recorded=recorded_model)


def resolved(settings: Settings) -> Settings:
    """The settings with workers and threads decided for this machine; a cluster decides on its workers itself."""
    if settings.executor != "local":
        return replace(settings, threads=settings.threads or 1)
    workers = settings.workers or max(1, cores() // 2)
    # a small network trains no faster on two threads, and the model needs cores as well
    threads = settings.threads or max(1, cores() // (2 * workers))
    return replace(settings, workers=workers, threads=threads)


def start(
    problem: Problem,
    settings: Settings,
    folder: Path,
    listeners: Iterable[Listener] = (),
    llm: LLM | None = None,
    *,
    reuse: Sequence[Path] = (),
    fill: Callable[[Store], None] = lambda store: None,
) -> Run:
    """Begins a run in a new folder and goes through with it.

    Args:
        llm: A model to use instead of the one the settings name; it is closed at the end.
        reuse: Other runs of the problem; what was scored or asked there isn't scored or asked again.
        fill: Gets the new record before anything else happens.

    Raises:
        GuidedEvolutionError: As `Evolution.run`; the record says what happened until then.
    """
    problem.genome()
    Book(problem.prompts).check()
    settings = resolved(settings)
    check_executor(settings)
    llm = llm or open_model(settings)  # a missing key must leave no run behind
    require_price(settings, llm)
    for path in reuse:
        lender(path, problem.digest, settings.seed).close()
    versions = {"guided_evolution": metadata.version("guided-evolution"), "python": platform.python_version()}

    def create() -> Store:
        kept = {"problem": problem_to_json(problem), "settings": settings.to_json()}
        kept["machine"] = {"system": platform.system(), "processor": platform.machine(), "cores": cores()}
        lenders = [str(path.resolve()) for path in reuse]
        store = Store.create(folder, **kept, versions=versions, status="running", reuse=lenders)
        fill(store)
        return store

    return _go(problem, settings, folder, create, listeners, llm)


def resume(
    folder: Path,
    listeners: Iterable[Listener] = (),
    changes: Mapping[str, Any] | None = None,
    llm: LLM | None = None,
    *,
    accept_problem: bool = False,
) -> Run:
    """Goes on with a run that was stopped in whatever way; what is recorded is not done again.

    Args:
        changes: Settings to replace, e.g. a larger budget or another number of workers.
        accept_problem: Whether to go on when the problem changed since the run began. The seed and the scores
            stay, what is scored from now on is scored by the changed problem, and the record says so.

    Raises:
        RunError: When there is no run, or another process is working on it.
        ProblemError: When the problem's seed, evaluator or limits changed since it began; its objectives never may.
    """
    run = Run(folder)
    problem = run.problem
    changed = accept_problem and Problem.load(problem.folder).digest != run.problem_digest
    if changed:
        problem = run.changed_problem()
    else:
        run.require_unchanged_problem()
    # a run that began when nothing was evaluated twice keeps the past by which it chose
    settings = resolved(EARLIER.with_changes(run.settings, str(folder)))
    run.close()
    settings = settings.with_changes(changes or {}, "ge resume")
    check_executor(settings)
    llm = llm or open_model(settings)
    require_price(settings, llm)

    def opened() -> Store:
        store = Store.open(folder, write=True)
        if changed:
            accept_changes(store, problem)
        return store

    return _go(problem, settings, folder, opened, listeners, llm)


def _go(
    problem: Problem,
    settings: Settings,
    folder: Path,
    opened: Callable[[], Store],
    listeners: Iterable[Listener],
    llm: LLM,
) -> Run:
    listeners = tuple(listeners)
    with locked(folder), contextlib.closing(opened()) as store:
        jail = jail_in_force(settings)
        store.put_meta(status="running", stop_reason="", settings=settings.to_json(), small=llm.small, sandbox=jail)
        begun = {"problem": problem, "settings": settings, "folder": folder, "spending": store.spending()}
        text = f"{problem.name}: {llm.name}, seed {settings.seed}, sandbox {jail}; kept in {folder}"
        note = Event("note", text=text)
        gone = [Event("note", text=line) for line in borrow(store)]
        for event in (Event("start", data=begun), note, *gone):
            for listener in listeners:
                listener.on(event)
        try:
            run_async(lambda: _evolve(problem, settings, store, listeners, llm))
        except ModelError as error:
            store.put_meta(status="failed", stop_reason=str(error))
            hint = f"{str(error).strip()} Nothing is lost: `ge resume {folder}` goes on."
            raise ModelError(hint, permanent=error.permanent) from error
        except GuidedEvolutionError as error:
            store.put_meta(status="failed", stop_reason=str(error))
            raise
        except (KeyboardInterrupt, asyncio.CancelledError):
            store.put_meta(status=INTERRUPTED, stop_reason=INTERRUPTED)
            raise KeyboardInterrupt from None
        finally:
            for listener in listeners:
                listener.on(Event("end", data={"status": store.meta("status")}))
    return Run(folder)


async def _evolve(problem: Problem, settings: Settings, store: Store, listeners: Sequence[Listener], llm: LLM) -> None:
    executor = open_executor(settings, store.path.parent / "jobs")
    # seconds of the run so far, and the slots from then on: a later session may have others
    store.put_meta(slots=[*store.meta("slots", []), [store.meta("seconds", 0.0), executor.slots]])
    try:
        evolution = Evolution(problem, settings, store, llm, executor, listeners)
        with _interruptible(evolution, listeners), _opening(llm):
            await prepare(problem, executor, listeners)
            await evolution.run()
    finally:
        await asyncio.to_thread(executor.close)
        with contextlib.suppress(ModelError):
            await llm.close()
        with contextlib.suppress(OSError):
            (store.path.parent / "jobs").rmdir()


@contextlib.contextmanager
def _opening(llm: LLM) -> Iterator[None]:
    """Gets the model ready while the seed is scored; a failure is told by the first request, which meets it too."""
    task = asyncio.ensure_future(llm.open()) if isinstance(llm, Opening) else None
    try:
        yield
    finally:
        if task is not None and not task.cancel():
            task.exception()


@contextlib.contextmanager
def _interruptible(evolution: Evolution, listeners: Sequence[Listener]) -> Iterator[None]:
    """The first Ctrl-C lets what is in flight finish, the second stops now; on another thread, listeners hear how."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    count = 0

    def interrupt() -> None:
        nonlocal count
        count += 1
        evolution.stop(INTERRUPTED)
        if count > 1 and task is not None:
            task.cancel()

    if threading.current_thread() is not threading.main_thread():
        for listener in listeners:
            data = {"interrupt": functools.partial(loop.call_soon_threadsafe, interrupt)}
            listener.on(Event("interruptible", data=data))
        yield
        return
    loop.add_signal_handler(signal.SIGINT, interrupt)
    loop.add_signal_handler(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        loop.remove_signal_handler(signal.SIGTERM)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the run for this process alone; the lock goes with the process, however it ends.

    Raises:
        RunError: When another process holds it, or the folder can't be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("w")
    except OSError as error:
        raise RunError(f"{folder} can't be written: {error.strerror}. A run needs a folder that can be.") from None
    with file:
        for again in (True, True, True, False):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not again:
                    raise RunError(f"{folder}: another process is working on this run.") from None
                time.sleep(0.05)  # a reader that asks whether the run goes holds the lock for a moment
        yield


async def prepare(problem: Problem, executor: Executor, listeners: Iterable[Listener] = ()) -> None:
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


def run_async(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Runs a coroutine to its end, also from inside a notebook whose own loop is running.

    There it works on a thread; an interrupt of the notebook cancels the work and waits for it to clean up.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work())
    loops: list[asyncio.AbstractEventLoop] = []

    def target() -> T:
        with asyncio.Runner() as runner:
            loops.append(runner.get_loop())
            return runner.run(work())

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(target)
        try:
            return future.result()
        except KeyboardInterrupt:
            for loop in loops:
                loop.call_soon_threadsafe(_cancel_all, loop)
            raise


def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    for task in asyncio.all_tasks(loop):
        task.cancel()
