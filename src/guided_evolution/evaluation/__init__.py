"""Scoring one candidate in a process of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Job:
    """One stage of one candidate, with everything a worker needs to know.

    Attributes:
        name: Unique within a run, fit for a file name, e.g. "17-evaluate".
        stage: "prepare", "check", "evaluate" or "test".
        files: The program: relative file name to text; the first is the path handed to the evaluator.
        problem: The problem folder; the evaluator may import what lies beside it.
        evaluator: The evaluator's file name within the problem folder.
        objectives: Names that an "evaluate" result must give as finite numbers.
        ranges: Objective name to the lowest and highest value that can be true.
        seconds: Wall-clock limit; the whole process tree is killed then.
        memory_mb: Limit of the process tree's resident memory, in MiB.
        disk_mb: Limit of what the process tree keeps on disk, in MiB.
        threads: CPU threads the candidate may use.
        cores: The CPU cores it is bound to; empty leaves that to the system.
        gpus: GPUs the job needs; a fraction shares one.
        seed: Handed to the evaluator through the context.
        device: "cpu" or "cuda".
        visible: The GPUs it may see, as CUDA_VISIBLE_DEVICES; None leaves that to its surroundings.
        data: The data folder, or None.
        network: Whether the evaluator needs a network.
        sandbox: "auto" takes the strongest jail that works here, "required" refuses to run without one, "off"
            takes none.
        readable: Further folders that the candidate may read.
        held_out: Patterns of files that only the stage "test" may read, relative to the data folder, the cache
            or the problem folder.
        preload: Modules that the fork server imports once, for jobs that start from it.
        fresh: Whether the job must start in a fresh process.
    """

    name: str
    stage: str
    files: Mapping[str, str]
    problem: Path
    evaluator: str = "evaluate.py"
    objectives: tuple[str, ...] = ()
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    seconds: float = 120.0
    memory_mb: int = 4096
    disk_mb: int = 4096
    threads: int = 1
    cores: tuple[int, ...] = ()
    gpus: float = 0
    seed: int = 0
    device: str = "cpu"
    visible: str | None = None
    data: Path | None = None
    network: bool = False
    sandbox: str = "auto"
    readable: tuple[Path, ...] = ()
    held_out: tuple[str, ...] = ()
    preload: tuple[str, ...] = ()
    fresh: bool = False

    def to_json(self) -> dict[str, Any]:
        """The job as plain values."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {
            **values,
            "files": dict(self.files),
            "ranges": {name: list(pair) for name, pair in self.ranges.items()},
            "problem": str(self.problem),
            "data": None if self.data is None else str(self.data),
            "readable": [str(path) for path in self.readable],
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Job:
        """The job that `to_json` described, also after a trip through JSON."""
        values = dict(document)
        values["problem"] = Path(values["problem"])
        values["data"] = None if values["data"] is None else Path(values["data"])
        values["ranges"] = {name: tuple(pair) for name, pair in values["ranges"].items()}
        values["readable"] = tuple(Path(path) for path in values["readable"])
        for name in ("objectives", "held_out", "preload", "cores"):
            values[name] = tuple(values[name])
        return cls(**values)
