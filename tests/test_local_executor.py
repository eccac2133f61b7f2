"""The local executor: many jobs at once, quick ones beside long ones, and an end that is an end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import pytest

from guided_evolution.errors import RunError, UsageError
from guided_evolution.evaluation import Job
from guided_evolution.executors import Executor
from guided_evolution.executors.local import LocalExecutor
from guided_evolution.individual import Status

EVALUATOR = """
import time
def check(program):
    exec(open(program).read())
def evaluate(program):
    space = {}
    exec(open(program).read(), space)
    return space["score"]()
"""
SLEEP = "import time\ndef score():\n    time.sleep(60)\n"


def processes_of(folder: Path) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str(folder).encode() in (process / "environ").read_bytes():
                found.append(process.name)
        except OSError:
            continue
    return found


@pytest.fixture
def executor(tmp_path: Path) -> Iterator[LocalExecutor]:
    made = LocalExecutor(2, tmp_path / "jobs")
    yield made
    made.close()
    assert processes_of(tmp_path) == []
    assert not (tmp_path / "jobs").exists() or list((tmp_path / "jobs").iterdir()) == []


def job(folder: Path, name: str, source: str, **fields: Any) -> Job:
    problem = folder / "problem"
    problem.mkdir(exist_ok=True)
    (problem / "evaluate.py").write_text(EVALUATOR)
    fields = {"stage": "evaluate", "objectives": ("accuracy",), "seconds": 60.0, "sandbox": "off", **fields}
    return Job(name=name, files={"seed.py": source}, problem=problem, **fields)


def running(folder: Path) -> int:
    return len(list((folder / "jobs").glob("*/scratch/.worker")))


def test_it_is_an_executor(executor: LocalExecutor) -> None:
    some: Executor = executor
    assert some.slots == 2


def test_ten_jobs_on_two_workers_all_return_their_own_result(executor: LocalExecutor, tmp_path: Path) -> None:
    sources = [f"def score(): return {number}\n" for number in range(9)] + ["def score(): 1 / 0\n"]
    futures = [executor.submit(job(tmp_path, f"{i}-evaluate", source)) for i, source in enumerate(sources)]
    most = 0
    while not all(future.done() for future in futures):
        most = max(most, running(tmp_path))
        time.sleep(0.005)
    outcomes = [future.result() for future in futures]
    assert [outcome.scores for outcome in outcomes[:9]] == [{"accuracy": float(number)} for number in range(9)]
    assert outcomes[9].reason == "ZeroDivisionError: division by zero (evaluate.py:8 in evaluate)"
    assert most == 2


def test_jobs_of_one_name_do_not_meet(executor: LocalExecutor, tmp_path: Path) -> None:
    futures = [executor.submit(job(tmp_path, "same", f"def score(): return {i}\n")) for i in (1, 2)]
    assert [future.result().scores["accuracy"] for future in futures] == [1.0, 2.0]


def test_a_check_does_not_wait_behind_long_evaluations(executor: LocalExecutor, tmp_path: Path) -> None:
    long = [executor.submit(job(tmp_path, f"{i}-evaluate", SLEEP)) for i in range(4)]
    outcome = executor.submit(job(tmp_path, "9-check", "", stage="check")).result(timeout=15)
    assert outcome.ok
    assert not any(future.done() for future in long)


def test_closing_stops_what_runs_and_gives_up_what_waits(executor: LocalExecutor, tmp_path: Path) -> None:
    futures = [executor.submit(job(tmp_path, f"{i}-evaluate", SLEEP)) for i in range(4)]
    while len(processes_of(tmp_path)) < 4:
        time.sleep(0.02)
    started = time.monotonic()
    executor.close()
    assert time.monotonic() - started < 10
    assert processes_of(tmp_path) == []
    outcomes = [future.result(timeout=0) for future in futures]
    assert {outcome.status for outcome in outcomes} == {Status.LOST}
    assert sorted(outcome.reason for outcome in outcomes) == [
        *("stopped before it began", "stopped before it began"),
        *("stopped by the run", "stopped by the run"),
    ]


def test_a_closed_executor_says_so(executor: LocalExecutor, tmp_path: Path) -> None:
    executor.close()
    executor.close()
    with pytest.raises(RunError, match="closed"):
        executor.submit(job(tmp_path, "1-evaluate", SLEEP))


def test_partial_results_arrive_while_the_job_runs(executor: LocalExecutor, tmp_path: Path) -> None:
    source = "import time\ndef score():\n    yield {'accuracy': 1}\n    time.sleep(0.5)\n    yield {'accuracy': 2}\n"
    seen: list[tuple[float, bool]] = []
    future = executor.submit(
        job(tmp_path, "1-evaluate", source), lambda scores: seen.append((scores["accuracy"], future.done()))
    )
    assert future.result().scores == {"accuracy": 2.0}
    assert seen == [(1.0, False), (2.0, False)]


def test_our_own_failure_is_the_futures_exception(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    executor = LocalExecutor(1, tmp_path / "file")
    future = executor.submit(job(tmp_path, "1-evaluate", SLEEP))
    wait([future])
    assert isinstance(future.exception(), RunError)
    executor.close()


def test_it_needs_a_worker(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="1 or more"):
        LocalExecutor(0, tmp_path)
