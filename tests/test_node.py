"""A job as files: what a node of a cluster reads and leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from guided_evolution.evaluation import Job, node, supervisor
from guided_evolution.individual import Outcome, Status
from guided_evolution.problem import Problem

SLOW = "def evaluate(program):\n    for step in (1, 2):\n        yield {'accuracy': step}\n"


def task(folder: Path, problem: Path, **fields: object) -> Job:
    job = Job("1-evaluate", "evaluate", {"seed.py": ""}, problem, objectives=("accuracy",), held_out=("test*",))
    job = replace(job, **fields)  # type: ignore[arg-type]
    folder.mkdir()
    node.write_json(folder / node.TASK, job.to_json())
    return job


def begin(folder: Path, name: str) -> subprocess.Popen[bytes]:
    """Starts a node on a job and waits for the job's first partial result."""
    task(folder / name, folder / "problem")
    process = subprocess.Popen([sys.executable, "-m", "guided_evolution.evaluation.node", str(folder / name)])
    deadline = time.monotonic() + 30
    while not (partial := folder / name / node.PARTIAL).exists() or not partial.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process


def test_a_job_and_an_outcome_survive_json(tiny: Problem) -> None:
    job = Job("1-check", "check", tiny.files, tiny.folder, data=Path("/data"), readable=(Path("/m"),), preload=("m",))
    assert Job.from_json(json.loads(json.dumps(job.to_json()))) == job
    outcome = Outcome(Status.OK, scores={"a": 1.0}, log_tail="x")
    assert Outcome.from_json(json.loads(json.dumps(outcome.to_json()))) == outcome


def test_a_node_leaves_partial_results_and_an_outcome(tmp_path: Path) -> None:
    problem = tmp_path / "problem"
    problem.mkdir()
    (problem / "evaluate.py").write_text(SLOW)
    task(tmp_path / "job", problem)
    subprocess.run([sys.executable, "-m", "guided_evolution.evaluation.node", str(tmp_path / "job")], check=True)
    outcome = Outcome.from_json(json.loads((tmp_path / "job" / node.OUTCOME).read_text()))
    assert (outcome.status, outcome.scores) == (Status.OK, {"accuracy": 2.0})
    partial = [json.loads(line) for line in (tmp_path / "job" / node.PARTIAL).read_text().splitlines()]
    assert partial == [{"accuracy": 1.0}, {"accuracy": 2.0}]
    assert {path.name for path in (tmp_path / "job").iterdir()} == {node.TASK, node.PARTIAL, node.OUTCOME}


def test_a_candidate_that_a_batch_system_ends_with_its_job_has_not_crashed(tmp_path: Path) -> None:
    problem = tmp_path / "problem"
    problem.mkdir()
    (problem / "evaluate.py").write_text("import time\ndef evaluate(program):\n    yield 1\n    time.sleep(60)\n")
    process = begin(tmp_path, "job")
    worker = max(supervisor.tree(process.pid))  # the supervisor's child, started last
    os.kill(worker, signal.SIGTERM)
    process.send_signal(signal.SIGTERM)
    process.wait(30)
    outcome = Outcome.from_json(json.loads((tmp_path / "job" / node.OUTCOME).read_text()))
    assert (outcome.status, outcome.reason) == (Status.LOST, "stopped by a signal")


def test_a_job_removes_what_one_left_that_was_killed_with_all_its_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    (tmp_path / "problem").mkdir()
    evaluator = tmp_path / "problem" / "evaluate.py"
    evaluator.write_text("import time\ndef evaluate(program):\n    yield 1\n    time.sleep(60)\n")
    killed, running = (begin(tmp_path, name) for name in ("killed", "running"))
    for pid in (killed.pid, *supervisor.tree(killed.pid)):
        os.kill(pid, signal.SIGSTOP)
    for pid in (*supervisor.tree(killed.pid), killed.pid):
        os.kill(pid, signal.SIGKILL)
    killed.wait(30)
    assert len(list((tmp_path / "tmp").glob("ge-*/"))) == 2
    evaluator.write_text("def evaluate(program):\n    return 1\n")
    task(tmp_path / "third", tmp_path / "problem")
    subprocess.run([sys.executable, "-m", "guided_evolution.evaluation.node", str(tmp_path / "third")], check=True)
    assert len(list((tmp_path / "tmp").glob("ge-*/"))) == 1, "the folder of the job that runs, and no other"
    running.send_signal(signal.SIGTERM)
    running.wait(30)
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_failure_of_our_own_is_named(tmp_path: Path) -> None:
    task(tmp_path / "job", tmp_path, files={"../out.py": ""})
    node.main(tmp_path / "job")
    assert "leaves the program's folder" in json.loads((tmp_path / "job" / node.OUTCOME).read_text())["error"]
