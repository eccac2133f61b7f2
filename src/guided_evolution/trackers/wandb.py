"""Weights & Biases: configuration, history by evaluation, and the front as a table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import wandb

from guided_evolution.problem import Problem
from guided_evolution.trackers.base import Tracker, Values


class WandbTracker(Tracker):
    """Sends a run to Weights & Biases, as its own environment variables say; WANDB_MODE=offline keeps it here."""

    name = "wandb"

    def __init__(self) -> None:
        super().__init__()
        self._run: Any = None

    def begin(self, problem: Problem, folder: Path, parameters: Mapping[str, str]) -> None:
        """See `Tracker.begin`."""
        self._run = wandb.init(
            project=problem.name,
            name=folder.resolve().name,
            config=dict(parameters),
            dir=str(folder),
            settings=wandb.Settings(silent=True, console="off"),
        )

    def send(self, step: int, values: Values) -> None:
        """See `Tracker.send`."""
        self._run.log(dict(values), step=step)

    def finish(self, status: str, head: list[str], rows: list[list[Any]]) -> None:
        """See `Tracker.finish`."""
        self._run.log({"front_members": wandb.Table(columns=[*head], data=rows)})
        self._run.finish(exit_code=0 if status == "done" else 1)
