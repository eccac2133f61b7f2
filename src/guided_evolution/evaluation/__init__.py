"""Scoring one candidate in a process of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


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
        seconds: Wall-clock limit; the whole process tree is killed then.
        memory_mb: Limit of the process tree's resident memory, in MiB.
        threads: CPU threads the candidate may use.
        seed: Handed to the evaluator through the context.
        device: "cpu" or "cuda".
        data: The data folder, or None.
        network: Whether the evaluator needs a network.
    """

    name: str
    stage: str
    files: Mapping[str, str]
    problem: Path
    evaluator: str = "evaluate.py"
    objectives: tuple[str, ...] = ()
    seconds: float = 120.0
    memory_mb: int = 4096
    threads: int = 1
    seed: int = 0
    device: str = "cpu"
    data: Path | None = None
    network: bool = False
