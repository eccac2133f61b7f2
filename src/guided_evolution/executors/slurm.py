"""Jobs on a Slurm cluster."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path

from guided_evolution.errors import UsageError
from guided_evolution.evaluation import Job
from guided_evolution.evaluation.launch import Partial
from guided_evolution.individual import Outcome


class SlurmExecutor:
    """Not written yet."""

    slots = 1

    def __init__(self, workers: int | None, folder: Path, sbatch: str = "") -> None:
        raise UsageError("--executor slurm is not there yet")

    def submit(self, job: Job, on_partial: Partial | None = None) -> Future[Outcome]:
        """See `Executor.submit`."""
        raise NotImplementedError

    def close(self) -> None:
        """See `Executor.close`."""
