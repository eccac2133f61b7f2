"""The runs of an ablation: the missing ones are begun, the stopped ones gone on with, the finished ones kept."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path

from guided_evolution import session
from guided_evolution.ablation.plan import Cell, Plan
from guided_evolution.errors import GuidedEvolutionError, ModelError, RunError, UsageError
from guided_evolution.events import Event, Listener
from guided_evolution.problem import Problem
from guided_evolution.run import Run
from guided_evolution.settings import Settings
from guided_evolution.store import FILE

# what may differ between machines, and changes no program and no score
_MACHINE = ("workers", "threads", "executor", "sbatch", "sandbox", "llm_parallel")
_LOOK_SECONDS = 0.5
Listening = Callable[[Cell, Settings], Sequence[Listener]]


def state(folder: Path) -> str:
    """What became of a run: "missing", or as `Run.status`."""
    if not (folder / FILE).is_file():
        return "missing"
    with contextlib.closing(Run(folder)) as run:
        return run.status


def finished_seeds(plan: Plan, root: Path) -> tuple[int, ...]:
    """The seeds whose runs are finished in all arms.

    Raises:
        RunError: When there is none.
    """
    unfinished = {cell.seed for cell in plan.cells if state(plan.folder(root, cell)) != "done"}
    if unfinished >= set(plan.seeds):
        raise RunError(f"no seed has all its runs finished in {root} yet.")
    return tuple(seed for seed in plan.seeds if seed not in unfinished)


class Runner:
    """Goes through the runs of a plan, several at a time if asked to, each on a thread of its own."""

    def __init__(self, plan: Plan, root: Path, listening: Listening) -> None:
        """Takes a plan whose problem is as it was.

        Args:
            listening: Gives the listeners of each run, when it begins.

        Raises:
            UsageError: When the problem changed since the plan was made.
        """
        self.plan, self.root = plan, root
        self._listening = listening
        self._problem = Problem.load(plan.problem)
        if self._problem.digest != plan.digest:
            raise UsageError(f"{plan.problem} changed since this ablation began, so its scores would not compare.")
        self._lock = threading.RLock()  # a signal may come while it is held
        self._interrupts: dict[str, Callable[[], None]] = {}
        self._presses = 0

    def pending(self) -> list[Cell]:
        """The runs that are not finished, in the order of the plan."""
        return [cell for cell in self.plan.cells if state(self.plan.folder(self.root, cell)) != "done"]

    def run(self, parallel: int = 1) -> bool:
        """Goes through all pending runs, and tells whether it came to the end.

        Until then, a first Ctrl-C lets what is in flight finish, and a second stops now; nothing new begins after it.

        Raises:
            GuidedEvolutionError: When a run fails: the others are stopped, and all can be gone on with.
        """
        waiting, active = self.pending(), dict[Future[None], Cell]()
        failure: GuidedEvolutionError | None = None
        with self._interruptible(), ThreadPoolExecutor(parallel) as pool:
            while active or (waiting and not self._presses):
                while waiting and not self._presses and len(active) < parallel:
                    cell = self._next(waiting, list(active.values()))
                    waiting.remove(cell)
                    active[pool.submit(self._go, cell)] = cell
                done, _ = wait(active, timeout=_LOOK_SECONDS, return_when=FIRST_COMPLETED)
                for future in done:
                    cell = active.pop(future)
                    try:
                        future.result()
                    except KeyboardInterrupt:
                        continue
                    except GuidedEvolutionError as error:
                        if self._presses:
                            continue  # it was stopped before it could end well, and is gone on with like any other
                        failure = self._told(cell, error)
                        self.interrupt()
        if failure is not None:
            raise failure
        return not self.pending()

    @staticmethod
    def _next(waiting: Sequence[Cell], active: Sequence[Cell]) -> Cell:
        """The next run: of a seed that nobody works on, if there is one, for arms of a seed take from each other."""
        busy = {cell.seed for cell in active}
        return next((cell for cell in waiting if cell.seed not in busy), waiting[0])

    def _go(self, cell: Cell) -> None:
        folder, settings = self.plan.folder(self.root, cell), self.plan.settings_of(cell)
        listeners = [*self._listening(cell, settings), _Handle(cell, self._begun)]
        try:
            if state(folder) == "missing":
                session.start(self._problem, settings, folder, listeners, reuse=self._lenders(cell)).close()
            else:
                require_planned(folder, settings)
                session.resume(folder, listeners).close()
        finally:
            with self._lock:
                self._interrupts.pop(cell.label, None)

    def _lenders(self, cell: Cell) -> list[Path]:
        """The finished runs of the same seed: what was asked or scored there need not be again."""
        others = [self.plan.folder(self.root, Cell(arm, cell.seed)) for arm in self.plan.arms if arm != cell.arm]
        return [folder for folder in others if state(folder) == "done"]

    def _told(self, cell: Cell, error: GuidedEvolutionError) -> GuidedEvolutionError:
        text = f"{cell.label}: {error}"
        if isinstance(error, UsageError):
            return UsageError(text)
        kind = ModelError if isinstance(error, ModelError) else RunError
        return kind(f"{text} `ge ablate {self.root}` goes on with all runs.")

    # -- stopping ---------------------------------------------------------------------------------------------------

    def interrupt(self) -> None:
        """As one Ctrl-C: once, what is in flight is finished; twice, it is stopped now."""
        with self._lock:
            self._presses += 1
            interrupts = list(self._interrupts.values())
        for each in interrupts:
            with contextlib.suppress(RuntimeError):  # it ended meanwhile
                each()

    def _begun(self, cell: Cell, interrupt: Callable[[], None]) -> None:
        with self._lock:
            self._interrupts[cell.label] = interrupt
            presses = self._presses  # what came while the model was being loaded
        for _ in range(presses):
            interrupt()

    @contextlib.contextmanager
    def _interruptible(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(number, lambda *_: self.interrupt()) for number in numbers]
        try:
            yield
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)


class _Handle:
    """Hands on how a run can be interrupted, as soon as it can be."""

    def __init__(self, cell: Cell, begun: Callable[[Cell, Callable[[], None]], None]) -> None:
        self._cell, self._begun = cell, begun

    def on(self, event: Event) -> None:
        """Takes one event; see `Listener.on`."""
        if event.kind == "interruptible":
            self._begun(self._cell, event.data["interrupt"])


def require_planned(folder: Path, settings: Settings) -> None:
    """Makes sure that a run was begun with the options of its plan.

    Raises:
        RunError: When one differs that decides what comes about.
    """
    with contextlib.closing(Run(folder)) as run:
        kept = Settings().with_changes(run.settings, str(folder))
    same = {name: getattr(settings, name) for name in _MACHINE}
    if replace(kept, **same) != settings:
        raise RunError(f"{folder} holds a run with other options than its plan; move it away.")
