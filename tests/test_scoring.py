"""What a job asks for."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from guided_evolution.evaluation import Job
from guided_evolution.individual import Outcome, Status
from guided_evolution.problem import Problem
from guided_evolution.scoring import Scorer
from guided_evolution.settings import Settings
from guided_evolution.store import Store


def test_an_evaluation_asks_for_the_problems_gpus_and_a_check_for_none(tiny: Problem) -> None:
    problem = replace(tiny, limits=replace(tiny.limits, gpus=2))
    nothing = cast(Any, None)
    scorer = Scorer(problem, Settings(), nothing, nothing, lambda event: None)
    jobs = [scorer.job("1", stage, problem.genome()) for stage in ("check", "evaluate", "test")]
    assert [(job.gpus, job.device) for job in jobs] == [(0, "cpu"), (2, "cuda"), (2, "cuda")]


class Counting:
    """An executor that passes every job, and counts them."""

    slots = 1

    def __init__(self) -> None:
        self.stages: list[str] = []

    def submit(self, job: Job, on_partial: object = None) -> Future[Outcome]:
        self.stages.append(job.stage)
        future: Future[Outcome] = Future()
        future.set_result(Outcome(Status.OK))
        return future

    def close(self) -> None: ...


@pytest.mark.parametrize(
    ("evaluator", "jobs"),
    [
        ("def evaluate(program): ...", []),
        ("def check(program): ...", ["check"]),
        ("from helpers import check", ["check"]),
        ("from helpers import *", ["check"]),
        ("checked = 1", []),
    ],
)
def test_no_process_looks_for_a_check_that_isnt_there(
    tiny: Problem, tmp_path: Path, evaluator: str, jobs: list[str]
) -> None:
    (tmp_path / "evaluate.py").write_text(evaluator)
    problem, executor = replace(tiny, folder=tmp_path), Counting()
    store = Store.create(tmp_path / "run")
    scorer = Scorer(problem, Settings(), store, executor, lambda event: None)
    assert asyncio.run(scorer.check(1, problem.genome())).ok
    assert executor.stages == jobs
    store.close()
