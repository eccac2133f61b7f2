"""The files of one Slurm job."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guided_evolution.evaluation import Job, node


@dataclass(frozen=True, slots=True)
class JobFolder:
    """The files of one job, and the only place that knows their names.

    Attributes:
        path: The folder, on a file system that all nodes see.
    """

    path: Path

    @property
    def script(self) -> Path:
        """What sbatch is given."""
        return self.path / "job.sh"

    @property
    def log(self) -> Path:
        """What Slurm and our own process print; the candidate's output is in the outcome."""
        return self.path / "slurm.log"

    def make(self, job: Job) -> None:
        """Begins anew, with the task and its script."""
        if self.path.exists():
            shutil.rmtree(self.path)
        self.path.mkdir(parents=True)
        words = (sys.executable, "-P", "-m", node.__name__, str(self.path))
        self.script.write_text(f"#!/bin/sh\nexec {shlex.join(words)}\n", encoding="utf-8")
        node.write_json(self.path / node.TASK, job.to_json())

    def holds(self, job: Job) -> bool:
        """Whether an earlier session left this very job here."""
        return bool(self.task() == json.loads(json.dumps(job.to_json())))

    def task(self) -> dict[str, Any]:
        """The task; empty where there is none."""
        return self._json(node.TASK)

    def outcome(self) -> dict[str, Any]:
        """What the node left; empty until it did."""
        # A list of the folder is fresh where a look at one name may come from a cache.
        with suppress(OSError):
            if any(path.name == node.OUTCOME for path in self.path.iterdir()):
                return self._json(node.OUTCOME)
        return {}

    def _json(self, name: str) -> dict[str, Any]:
        try:
            document = json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return document if isinstance(document, dict) else {}

    def numbers(self) -> list[int]:
        """The numbers that Slurm gave this job, one for each time that it was handed in."""
        try:
            return [int(line) for line in (self.path / "slurm-ids").read_text(encoding="ascii").split()]
        except (OSError, ValueError):
            return []

    def add_number(self, number: int) -> None:
        """Remembers a number, also beyond this process's life."""
        with (self.path / "slurm-ids").open("a", encoding="ascii") as file:
            file.write(f"{number}\n")

    def partials(self, offset: int) -> tuple[list[dict[str, float]], int]:
        """The partial results from a byte offset on, and where the next ones begin."""
        try:
            with (self.path / node.PARTIAL).open("rb") as file:
                file.seek(offset)
                text = file.read()
        except OSError:
            return [], offset
        end = text.rfind(b"\n") + 1
        return [json.loads(line) for line in text[:end].splitlines()], offset + end

    def begin_again(self) -> None:
        """Makes room for what a second run of the job leaves."""
        for name in (node.PARTIAL, node.OUTCOME):
            (self.path / name).unlink(missing_ok=True)

    def last_lines(self) -> str:
        """The end of Slurm's log."""
        try:
            return self.log.read_text(encoding="utf-8", errors="replace")[-4000:].strip()
        except OSError:
            return ""
