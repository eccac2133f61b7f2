"""trackio: configuration and history by evaluation, kept on this machine unless told otherwise."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import trackio

from guided_evolution.problem import Problem
from guided_evolution.trackers.base import Tracker, Values


class TrackioTracker(Tracker):
    """Sends a run to trackio; `trackio show` opens its dashboard."""

    name = "trackio"

    def __init__(self) -> None:
        super().__init__()
        self._run: Any = None

    def begin(self, problem: Problem, folder: Path, parameters: Mapping[str, str]) -> None:
        """See `Tracker.begin`."""
        with contextlib.redirect_stdout(sys.stderr):  # it greets on stdout, where results belong
            self._run = trackio.init(project=problem.name, name=folder.resolve().name, config=dict(parameters))

    def send(self, step: int, values: Values) -> None:
        """See `Tracker.send`."""
        self._run.log(dict(values), step=step)

    def finish(self, status: str, head: list[str], rows: list[list[Any]]) -> None:
        """See `Tracker.finish`."""
        members = [dict(zip(head, row, strict=True)) for row in rows]
        with contextlib.redirect_stdout(sys.stderr):
            self._run.log({"status": status, "front_members": members})
            self._run.finish()
