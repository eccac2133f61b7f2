"""The GPUs of this machine, handed out to jobs."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from guided_evolution.errors import RunError
from guided_evolution.evaluation import Job

# Shares are added up as floats: three thirds shall fit.
SLACK = 1e-6


def visible() -> tuple[str, ...]:
    """The GPUs that this process may use: those that CUDA_VISIBLE_DEVICES names, else all that the driver lists."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return tuple(name.strip() for name in named.split(",") if name.strip() and name.strip() != "-1")
    if not shutil.which("nvidia-smi"):
        return ()
    command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(listed.split())


class Gpus:
    """Gives each job GPUs of its own, or a share of one; a job waits until there is room."""

    def __init__(self, names: tuple[str, ...] | None = None) -> None:
        """Take stock.

        Args:
            names: As in CUDA_VISIBLE_DEVICES; None looks for them when the first job asks.
        """
        self._names = names
        self._free: dict[str, float] = dict.fromkeys(names or (), 1.0)
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, job: Job) -> Iterator[Job]:
        """The job with its GPUs named, for as long as it runs; one that needs none stays as it is.

        Raises:
            RunError: When it needs more than there are.
        """
        if not job.gpus:
            yield job
            return
        chosen = self._take(job)
        try:
            yield replace(job, visible=",".join(chosen))
        finally:
            with self._changed:
                for name in chosen:
                    self._free[name] += min(1.0, job.gpus)
                self._changed.notify_all()

    def _take(self, job: Job) -> list[str]:
        with self._changed:
            if self._names is None:
                self._names = visible()
                self._free = dict.fromkeys(self._names, 1.0)
            count = math.ceil(job.gpus)
            if len(self._names) < count:
                have = "none is found" if not self._names else f"there are {len(self._names)}"
                raise RunError(f"{job.name} needs {job.gpus:g} GPU(s) (limits.gpus in problem.toml), and {have} here")
            share = min(1.0, job.gpus)
            while True:
                # the fullest that still has room: whole GPUs stay whole for those who need them
                room = sorted((free, name) for name, free in self._free.items() if free >= share - SLACK)
                if len(room) >= count:
                    chosen = [name for _, name in room[:count]]
                    for name in chosen:
                        self._free[name] -= share
                    return chosen
                self._changed.wait()
