"""MLflow: parameters, metrics by evaluation, and the front as a CSV artifact."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from guided_evolution.problem import Problem
from guided_evolution.trackers.base import Tracker, Values

_STATUS = {"done": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}
_LONGEST = 500


class MLflowTracker(Tracker):
    """Sends a run to MLflow, where MLFLOW_TRACKING_URI says; the experiment has the problem's name."""

    name = "mlflow"

    def __init__(self, uri: str | None = None) -> None:
        """Takes a tracking server or folder; None leaves it to MLflow's own environment variable and default."""
        super().__init__()
        self._uri = uri
        self._client: Any = None
        self._run_id = ""

    def begin(self, problem: Problem, folder: Path, parameters: Mapping[str, str]) -> None:
        """See `Tracker.begin`."""
        self._client = MlflowClient(self._uri)
        experiment = self._client.get_experiment_by_name(problem.name)
        number = experiment.experiment_id if experiment else self._client.create_experiment(problem.name)
        self._run_id = self._client.create_run(number, run_name=folder.resolve().name).info.run_id
        given = [Param(name, value[:_LONGEST]) for name, value in parameters.items()]
        self._client.log_batch(self._run_id, params=given)

    def send(self, step: int, values: Values) -> None:
        """See `Tracker.send`."""
        now = int(time.time() * 1000)
        self._client.log_batch(self._run_id, [Metric(name, float(value), now, step) for name, value in values.items()])

    def finish(self, status: str, head: list[str], rows: list[list[Any]]) -> None:
        """See `Tracker.finish`."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([head, *rows])
        self._client.log_text(self._run_id, text.getvalue(), "front.csv")
        self._client.set_terminated(self._run_id, _STATUS[status])
