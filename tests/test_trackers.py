from __future__ import annotations

import json
import logging
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from guided_evolution import session
from guided_evolution.errors import ModelError, UsageError
from guided_evolution.llm.scripted import FunctionLLM
from guided_evolution.problem import Problem
from guided_evolution.run import Run
from guided_evolution.settings import Settings
from guided_evolution.testing import scripted_reply
from guided_evolution.trackers import NAMES, Tracker, open_tracker
from unsteady import lucky_problem

GE = Path(sys.executable).parent / "ge"
SETTINGS = Settings(population=4, generations=1, llm="fake", p_mate=0.5)


class Kept(Tracker):
    """Keeps what a real one would send."""

    name = "kept"

    def __init__(self) -> None:
        super().__init__()
        self.parameters: Mapping[str, str] = {}
        self.sent: list[tuple[int, Mapping[str, float]]] = []
        self.table: tuple[str, list[str], list[list[Any]]] | None = None

    def begin(self, problem: Problem, folder: Path, parameters: Mapping[str, str]) -> None:
        self.parameters = parameters

    def send(self, step: int, values: Mapping[str, float]) -> None:
        self.sent.append((step, values))

    def finish(self, status: str, head: list[str], rows: list[list[Any]]) -> None:
        self.table = (status, head, rows)


def evolve(tiny: Problem, folder: Path, tracker: Tracker, settings: Settings = SETTINGS) -> Run:
    return session.start(tiny, settings, folder, [tracker], FunctionLLM(scripted_reply, "fake"))


def test_a_tracker_gets_settings_numbers_by_evaluation_and_the_front(tiny: Problem, tmp_path: Path) -> None:
    kept = Kept()
    run = evolve(tiny, tmp_path / "run", kept)
    assert kept.parameters["population"] == "4"
    assert kept.parameters["problem"] == "tiny"
    distinct = {each.genome.digest for each in run.individuals if each.ok}
    assert [step for step, _ in kept.sent] == list(range(1, len(distinct) + 1))
    last = kept.sent[-1][1]
    assert last["hypervolume"] == pytest.approx(run.hypervolume())
    assert last["best/closeness"] == run.best("closeness").scores["closeness"]
    assert last["front"] == len(run.front)
    assert kept.table is not None
    status, head, rows = kept.table
    assert status == "done"
    assert [row[head.index("id")] for row in rows] == [each.id for each in run.front]


def test_a_champion_that_fell_is_not_sent_on_the_front(tmp_path: Path) -> None:
    kept = Kept()
    settings = Settings(population=4, generations=1, llm="fake", sandbox="off")
    run = evolve(lucky_problem(tmp_path / "lucky", fails=True), tmp_path / "run", kept, settings)
    assert any(not second.ok for _, second in run.verifications.values())
    assert kept.table is not None
    _, head, rows = kept.table
    assert [row[head.index("id")] for row in rows] == [each.id for each in run.front]
    assert max(row[head.index("closeness")] for row in rows) <= 0


def test_a_resumed_run_is_sent_whole(tiny: Problem, tmp_path: Path) -> None:
    evolve(tiny, tmp_path / "run", Kept())
    kept = Kept()
    model = FunctionLLM(scripted_reply, "fake")
    run = session.resume(tmp_path / "run", [kept], {"generations": 2}, model)
    distinct = {each.genome.digest for each in run.individuals if each.ok}
    assert len(kept.sent) == len(distinct)


def test_a_run_that_fails_ends_its_tracker_as_failed(tiny: Problem, tmp_path: Path) -> None:
    def outage(prompt: str) -> str:
        raise ModelError("the key is wrong", permanent=True)

    kept = Kept()
    with pytest.raises(ModelError):
        session.start(tiny, SETTINGS, tmp_path / "run", [kept], FunctionLLM(outage, "fake"))
    assert kept.table is not None
    assert kept.table[0] == "failed"


class Broken(Kept):
    def send(self, step: int, values: Mapping[str, float]) -> None:
        super().send(step, values)
        raise ConnectionError("no\nroute to host")


def test_a_tracker_that_fails_costs_one_line_and_not_the_run(
    tiny: Problem, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = Broken()
    with caplog.at_level(logging.WARNING):
        run = evolve(tiny, tmp_path / "run", broken)
    assert run.status == "done"
    assert len(broken.sent) == 1
    assert [record.getMessage() for record in caplog.records] == [
        "kept: ConnectionError: no route to host. The run goes on without it."
    ]


class Slow(Kept):
    patience = 0.2

    def begin(self, problem: Problem, folder: Path, parameters: Mapping[str, str]) -> None:
        time.sleep(3)


def test_a_slow_tracker_does_not_slow_the_run(tiny: Problem, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    begun = time.monotonic()
    evolve(tiny, tmp_path / "run", Slow(), Settings(population=1, generations=0, llm="fake"))
    assert time.monotonic() - begun < 2.5
    assert "not done after" in caplog.text


def test_an_unknown_tracker_is_refused() -> None:
    with pytest.raises(UsageError, match="there is no tracker"):
        open_tracker("notebook")


def test_tensorboard_event_files_hold_the_run(tiny: Problem, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = evolve(tiny, tmp_path / "run", open_tracker("tensorboard"))
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert {"score/closeness", "best/size", "hypervolume", "usd"} <= set(events.Tags()["scalars"])
    last = events.Scalars("hypervolume")[-1]
    assert last.value == pytest.approx(run.hypervolume())
    assert last.step == len({each.genome.digest for each in run.individuals if each.ok})
    front = events.Tensors("front")[0].tensor_proto.string_val[0].decode()
    assert f"| {run.front[0].id} |" in front


def test_mlflow_keeps_the_run_in_a_local_store(tiny: Problem, tmp_path: Path) -> None:
    """On the command line, as a user turns it on."""
    pytest.importorskip("mlflow")
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    environment = {**os.environ, "MLFLOW_TRACKING_URI": uri}
    command = [str(GE), "run", str(tiny.folder), "--run", "run", "--generations", "1", "--track", "mlflow"]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200)
    assert result.returncode == 0, result.stderr
    assert "goes on without it" not in result.stderr
    run = Run(tmp_path / "run")
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    (kept,) = client.search_runs([experiment.experiment_id])
    assert kept.info.status == "FINISHED"
    assert kept.data.params["population"] == "4"
    assert kept.data.metrics["hypervolume"] == pytest.approx(run.hypervolume())
    steps = [metric.step for metric in client.get_metric_history(kept.info.run_id, "best/closeness")]
    assert steps == list(range(1, len({each.genome.digest for each in run.individuals if each.ok}) + 1))
    table = (tmp_path / "mlruns").rglob("front.csv")
    assert f"\n{run.front[0].id}," in next(table).read_text()


def test_wandb_keeps_the_run_offline(tiny: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = evolve(tiny, tmp_path / "run", open_tracker("wandb"))
    (table,) = (tmp_path / "run").rglob("front_members*.table.json")
    assert [row[0] for row in json.loads(table.read_text())["data"]] == [each.id for each in run.front]
    (record,) = (tmp_path / "run").rglob("*.wandb")
    assert b"best/closeness" in record.read_bytes()


def test_trackio_keeps_the_run_on_this_machine(
    tiny: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio")
    run = evolve(tiny, tmp_path / "run", open_tracker("trackio"))
    assert capsys.readouterr().out == ""
    rows = sqlite3.connect(tmp_path / "trackio" / "tiny.db").execute("SELECT metrics FROM metrics ORDER BY id")
    values = [json.loads(row[0]) for row in rows]
    assert [each["hypervolume"] for each in values if "hypervolume" in each][-1] == pytest.approx(run.hypervolume())


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_package_is_named_before_the_run_begins(tiny: Problem, tmp_path: Path, name: str) -> None:
    code = (
        f"import sys; sys.modules[{name!r}] = None; sys.argv = ['ge', 'run', {str(tiny.folder)!r}, '--run', 'run',"
        f" '--track', {name!r}]\nfrom guided_evolution.cli import main; main()"
    )
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert result.returncode == 2
    assert f"pip install 'guided-evolution[{name}]'" in result.stderr
    assert not (tmp_path / "run").exists()
