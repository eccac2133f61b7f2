"""Jobs on this machine: a thread for each, that waits for the job's own process."""

from __future__ import annotations

import secrets
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from guided_evolution.errors import RunError, UsageError
from guided_evolution.evaluation import Job, launch
from guided_evolution.evaluation.forking import ForkServer
from guided_evolution.evaluation.supervisor import remove_tree
from guided_evolution.executors.cores import Cores
from guided_evolution.executors.gpus import Gpus
from guided_evolution.individual import Outcome, Status

SHORT = ("check", "prepare")


class LocalExecutor:
    """Runs up to `workers` jobs at once on this machine, and as many short ones beside them.

    Short are the stages "check" and "prepare": they must not wait behind trainings.

    Attributes:
        slots: The number of workers.
    """

    def __init__(self, workers: int, folder: Path) -> None:
        """Get ready; nothing starts before the first job.

        Args:
            workers: Jobs at once, 1 or more.
            folder: Where the job folders go; each is removed when its job has ended, and what a killed session left
                there is removed now.

        Raises:
            UsageError: When `workers` is less than 1.
        """
        if workers < 1:
            raise UsageError(f"--workers is {workers}, and has to be 1 or more")
        self.slots = workers
        self._folder = folder
        remove_tree(folder)
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._server: ForkServer | None = None
        self._gpus = Gpus()
        self._cores = Cores()
        self._long = ThreadPoolExecutor(workers, thread_name_prefix="evaluate")
        self._short = ThreadPoolExecutor(workers, thread_name_prefix="check")

    def submit(self, job: Job, on_partial: launch.Partial | None = None) -> Future[Outcome]:
        """Queue a job; see `Executor.submit`."""
        pool = self._short if job.stage in SHORT else self._long
        try:
            return pool.submit(self._run, job, on_partial)
        except RuntimeError as error:
            raise RunError(f"can't run {job.name}: the executor is closed") from error

    def _run(self, job: Job, on_partial: launch.Partial | None) -> Outcome:
        if self._stop.is_set():
            return Outcome(Status.LOST, "stopped before it began")
        folder = self._folder / f"{job.name}-{secrets.token_hex(4)}"
        with self._gpus.taken(job) as served, self._cores.taken(served) as placed:
            return launch.run(placed, folder, on_partial, self._stop, self._server_for(job))

    def _server_for(self, job: Job) -> ForkServer | None:
        with self._lock:
            if self._server is None and job.preload:
                self._server = ForkServer(job.preload)
            return self._server

    def close(self) -> None:
        """Kill what runs, give up what waits, and return when all of it is gone."""
        self._stop.set()
        self._long.shutdown()
        self._short.shutdown()
        if self._server is not None:
            self._server.close()
