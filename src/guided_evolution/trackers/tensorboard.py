"""TensorBoard: event files that need neither TensorFlow nor PyTorch to be written."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from guided_evolution.problem import Problem
from guided_evolution.trackers.base import Tracker, Values

FOLDER = "tensorboard"


class TensorBoardTracker(Tracker):
    """Writes event files to `tensorboard` in the run's folder; `tensorboard --logdir runs` shows all runs."""

    name = "tensorboard"

    def __init__(self, folder: str | Path | None = None) -> None:
        """Takes the folder for the event files; None takes `tensorboard` in the run's own."""
        super().__init__()
        self._folder = folder
        self._writer: Any = None
        self._step = 0

    def begin(self, problem: Problem, folder: Path, parameters: Mapping[str, str]) -> None:
        """See `Tracker.begin`."""
        self._writer = EventFileWriter(str(self._folder or folder / FOLDER))
        rows = [[f"`{name}`", f"`{value}`"] for name, value in parameters.items()]
        self._text("settings", _markdown(["setting", "value"], rows))

    def send(self, step: int, values: Values) -> None:
        """See `Tracker.send`."""
        self._step = step
        self._write([Summary.Value(tag=name, simple_value=float(value)) for name, value in values.items()])

    def finish(self, status: str, head: list[str], rows: list[list[Any]]) -> None:
        """See `Tracker.finish`."""
        self._text("front", f"{status}\n\n{_markdown(head, rows)}")
        self._writer.close()

    def _text(self, tag: str, text: str) -> None:
        plugin = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
        tensor = TensorProto(dtype=DT_STRING, string_val=[text.encode("utf-8", "replace")])
        self._write([Summary.Value(tag=tag, metadata=plugin, tensor=tensor)])

    def _write(self, values: list[Any]) -> None:
        self._writer.add_event(Event(wall_time=time.time(), step=self._step, summary=Summary(value=values)))


def _markdown(head: list[str], rows: list[list[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(str(cell).replace('|', '/') for cell in line)} |" for line in lines)
