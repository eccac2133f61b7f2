"""What a job asks for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from guided_evolution.problem import Problem
from guided_evolution.scoring import Scorer
from guided_evolution.settings import Settings


def test_an_evaluation_asks_for_the_problems_gpus_and_a_check_for_none(tiny: Problem) -> None:
    problem = replace(tiny, limits=replace(tiny.limits, gpus=2))
    nothing = cast(Any, None)
    scorer = Scorer(problem, Settings(), nothing, nothing, lambda event: None)
    jobs = [scorer.job("1", stage, problem.genome()) for stage in ("check", "evaluate", "test")]
    assert [(job.gpus, job.device) for job in jobs] == [(0, "cpu"), (2, "cuda"), (2, "cuda")]
