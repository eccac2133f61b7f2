"""Where jobs run: each executor takes jobs and gives back their outcomes."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Protocol

from guided_evolution.evaluation import Job
from guided_evolution.evaluation.launch import Partial
from guided_evolution.individual import Outcome


class Executor(Protocol):
    """Runs jobs side by side; what the run needs to know of a machine or a cluster.

    Attributes:
        slots: How many jobs run at once; a caller that keeps this many submitted keeps it busy.
    """

    slots: int

    def submit(self, job: Job, on_partial: Partial | None = None) -> Future[Outcome]:
        """Queue a job and return at once.

        Args:
            job: What to run.
            on_partial: Called in another thread with each partial result, once for each also where a job is run
                again; returning True prunes the job.

        Returns:
            A future of the outcome; it carries a RunError only when the job couldn't be run at all. A job
            that was stopped has the outcome LOST.

        Raises:
            RunError: When the executor is closed.
        """
        ...

    def close(self) -> None:
        """Stop what runs, give up what waits, and return when no process of theirs is left."""
        ...
