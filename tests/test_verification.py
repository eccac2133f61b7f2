from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guided_evolution.individual import Outcome, Status
from guided_evolution.problem import Limits, Objective, Problem
from guided_evolution.verification import agree, differing, worse_of

FAILED = [Status.CRASHED, Status.TIMED_OUT, Status.OUT_OF_MEMORY]
values = st.floats(-1e12, 1e12)


@pytest.fixture(scope="module")
def problem(tmp_path_factory: pytest.TempPathFactory) -> Problem:
    objectives = (Objective("accuracy", "max"), Objective("size", "min"))
    return Problem(tmp_path_factory.mktemp("p"), "p", {"seed.py": "x = 1\n"}, objectives, limits=Limits())


def outcome(accuracy: float, size: float, feedback: str = "") -> Outcome:
    return Outcome(Status.OK, scores={"accuracy": accuracy, "size": size}, feedback=feedback)


@given(values, values, values, values)
def test_the_worse_of_two_is_worse_or_equal_in_every_objective_and_made_of_measured_values(
    problem: Problem, a: float, b: float, c: float, d: float
) -> None:
    first, second = outcome(a, b), outcome(c, d)
    worse = worse_of(problem, first, second)
    if agree(problem, first, second):
        assert worse is first
        return
    assert worse.scores == {"accuracy": min(a, c), "size": max(b, d)}
    assert worse.scores == worse_of(problem, second, first).scores, "the order of the measurements decides nothing"
    assert worse_of(problem, worse, second).scores == worse.scores, "and a second look changes nothing"


@given(values, values)
def test_a_measurement_agrees_with_itself_and_with_its_rounding(problem: Problem, a: float, b: float) -> None:
    first = outcome(a, b)
    assert agree(problem, first, outcome(a, b, feedback="another text"))
    assert agree(problem, first, outcome(a * (1 + 1e-13), b))
    assert worse_of(problem, first, outcome(a, b, feedback="another text")) is first


@given(values, values, st.floats(1e-6, 1e6))
def test_a_difference_in_one_objective_is_enough_and_is_named(problem: Problem, a: float, b: float, gap: float) -> None:
    other = a + gap + abs(a) * 1e-6
    assert not agree(problem, outcome(a, b), outcome(other, b))
    assert differing(problem, outcome(a, b), outcome(other, b)) == ["accuracy"]


@given(values, values, st.sampled_from(FAILED))
def test_a_second_measurement_that_failed_makes_it_a_failure(
    problem: Problem, a: float, b: float, status: Status
) -> None:
    first = outcome(a, b)
    second = Outcome(status, "out of luck", seconds=3.0, log_tail="the log")
    worse = worse_of(problem, first, second)
    assert not agree(problem, first, second)
    assert (worse.status, worse.scores, worse.log_tail) == (status, {}, "the log")
    assert worse.reason == "scored once, and failed when it was evaluated again: out of luck"
