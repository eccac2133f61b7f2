"""The benchmarks still run, and count what they claim to count; their figures are measured by hand."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from guided_evolution.run import open_run
from guided_evolution.testing import write_tiny_problem
from test_nn_data import random_pixels, write_parquet

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def lanes(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(FOLDER / "throughput")
    return importlib.import_module("lanes")


def measured(script: str, tmp_path: Path, *arguments: str) -> tuple[str, dict[str, Any]]:
    command = [
        sys.executable,
        str(FOLDER / script / "measure.py"),
        *arguments,
        "--json",
        str(tmp_path / "figures.json"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads((tmp_path / "figures.json").read_text())


def test_the_floor_is_that_of_two_stages(lanes: Any) -> None:
    assert lanes.Work(64, 8, 1.0).floor == 64 / 8 + 1
    unequal = lanes.Work(64, 8, 1.0, unequal=True)
    again = lanes.Work(512, 1, 1.0, unequal=True)
    assert unequal.duration("model", 5) == again.duration("model", 5) != unequal.duration("evaluation", 5)
    mean = sum(again.duration("model", number) for number in range(1, 513)) / 512
    assert mean == pytest.approx(1.0, abs=0.1)
    assert unequal.floor > sum(unequal.duration("model", number) for number in range(1, 65)) / 8


def test_a_run_that_leaves_work_out_is_compared_with_no_floor(
    lanes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(FOLDER / "throughput")
    sys.modules.pop("measure", None)
    measure = importlib.import_module("measure")
    work = lanes.Work(2, 1, 1.0)
    asked = [lanes.Interval(1, 0.0, 1.0), lanes.Interval(2, 1.0, 2.0)]
    tried = [lanes.Interval(0, 0.0, 1.0), lanes.Interval(1, 1.0, 2.0), lanes.Interval(2, 2.0, 3.0)]
    whole = measure.figures(work, asked, tried, begin=-1.0, end=4.0)
    assert (whole["ratio"], whole["outside"], whole["model_use"]) == (1.0, 2.0, pytest.approx(2 / 3))
    twice = measure.figures(work, asked, [*tried[:2], tried[1]], begin=-1.0, end=4.0)
    assert (twice["evaluations"], twice["distinct"], twice["ratio"]) == (2, 1, None)
    sys.modules.pop("measure", None)


def test_throughput_sees_every_candidate_once(tmp_path: Path) -> None:
    options = ["--only", "generational", "--candidates", "4", "--slots", "2", "--durations", "equal"]
    text, figures = measured("throughput", tmp_path, *options, "--seconds", "0.05")
    assert "| 4 | 2 | equal | 0.2 |" in text
    (row,) = figures["runs"]
    assert (row["requests"], row["replies"], row["evaluations"], row["distinct"]) == (4, 4, 4, 4)
    assert row["ratio"] >= 1


def test_the_controller_is_measured_at_both_ends_of_a_run(tmp_path: Path) -> None:
    text, figures = measured("controller", tmp_path, "--candidates", "48", "--schedules", "generational")
    assert text.count("| generational | 48 |") == 2
    assert [row["front_size"] for row in figures["runs"]] == [10, 49]
    assert all(row["first_ms"] > 0 and row["last_ms"] > 0 for row in figures["runs"])


def test_training_speeds_are_measured_and_what_was_not_checked_is_said(tmp_path: Path) -> None:
    arguments = ("--device", "cpu", "--recipes", "fast", "paper", "--batches", "2", "--batch", "2")
    printed, found = measured("training", tmp_path, *arguments)
    assert [each["recipe"] for each in found["speeds"]] == ["fast", "paper"]
    fast, paper = found["speeds"]
    assert fast["train_images_per_second"] > paper["train_images_per_second"] > 0  # 49 times the pixels
    if found["paths"][0]["checked"]:
        assert all(each["same"] for each in found["paths"])
    else:
        assert "the GPU's data path was not checked" in printed


def test_the_seed_is_trained_and_compared_with_the_published_accuracy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part, count in (("train", 200), ("test", 40)):
        pixels = random_pixels(count, 32, 32, 3)
        write_parquet(tmp_path / "data/cifar10" / f"{part}.parquet", pixels, [number % 10 for number in range(count)])
    monkeypatch.setenv("GUIDED_EVOLUTION_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("GUIDED_EVOLUTION_CACHE", str(tmp_path / "cache"))
    arguments = ("--device", "cpu", "--train", "full", "--images", "100", "--epochs", "1")
    printed, document = measured("training", tmp_path, *arguments)
    found = document["trained"]
    assert (found["train_images"], found["validation_images"], found["test_images"]) == (100, 40, 40)
    assert 0 <= found["validation_accuracy"] <= 1
    right = found["test_accuracy"] * 40
    assert right == pytest.approx(round(right))
    assert (found["published_test_accuracy"], found["reduced"]) == (0.9252, True)
    assert (
        printed.index("estimated: 1 epochs")
        < printed.index("epoch 1:")
        < printed.index("published test accuracy 92.52%")
    )


def test_proposals_are_made_by_each_operator_alone(tmp_path: Path) -> None:
    problem = write_tiny_problem(tmp_path / "tiny")
    numbers = ("--mutations", 4, "--matings", 2, "--thoughts", 2, "--pool", 3)
    command = [sys.executable, FOLDER / "proposals" / "measure.py", tmp_path / "run", "--problem", problem, "--llm"]
    command += [f"scripted:{problem / 'model.py'}", *numbers]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    operators = [step.operator for each in open_run(tmp_path / "run").individuals for step in each.origin.steps]
    assert sorted(operators) == ["eot"] * 2 + ["mate"] * 2 + ["mutate"] * 4
