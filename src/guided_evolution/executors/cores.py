"""The CPU cores of this machine, handed out to jobs."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from guided_evolution.evaluation import Job


class Cores:
    """Gives each job cores of its own, as many as it has threads, while there are enough."""

    def __init__(self, numbers: Iterable[int] | None = None) -> None:
        """Take stock.

        Args:
            numbers: Those to hand out; None takes all that this process may use, where the system can bind a process.
        """
        if numbers is None:
            numbers = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
        self._free = set(numbers)
        self._lock = threading.Lock()

    @contextmanager
    def taken(self, job: Job) -> Iterator[Job]:
        """The job with its cores named, for as long as it runs; with none, for the system to place, when too few are
        free.
        """
        with self._lock:
            chosen = sorted(self._free)[: job.threads] if len(self._free) >= job.threads else []
            self._free -= set(chosen)
        try:
            yield replace(job, cores=tuple(chosen))
        finally:
            with self._lock:
                self._free |= set(chosen)
