"""The rule that stops hopeless evaluations, as a pure function of learning curves."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guided_evolution import selection
from guided_evolution.curves import Curve, PartialResult
from guided_evolution.problem import Constraint, Objective, Problem
from guided_evolution.pruning import MINIMUM, dominators, hopeless, is_rung, lacking, obstacle, usual_length

ACCURACY, SIZE = Objective("accuracy", "max"), Objective("size", "min")
CAP = Constraint("size", max=6)
BOTH = Problem(Path(), "two", {}, (ACCURACY, SIZE))
CAPPED = Problem(Path(), "capped", {}, (ACCURACY, SIZE), constraints=(CAP,))

Point = tuple[int, int]
# few values, so that ties are frequent
few = st.tuples(st.integers(0, 8), st.integers(0, 8))
some = st.lists(few, min_size=MINIMUM, max_size=14)
problems = st.sampled_from([BOTH, CAPPED])


def scores(point: Point) -> dict[str, float]:
    return {"accuracy": float(point[0]), "size": float(point[1])}


def curve(*points: Point, whole: bool = True) -> Curve:
    return Curve(tuple(PartialResult(step, step, scores(each)) for step, each in enumerate(points, 1)), whole=whole)


def flat(points: list[Point], steps: int = 5) -> list[Curve]:
    """Curves that are at the same place at every step."""
    return [curve(*[each] * steps) for each in points]


def front(problem: Problem, points: list[Point]) -> list[bool]:
    """The non-dominated ones, by the code that selection uses."""
    rows = [problem.point(scores(each)) for each in points]
    return list(selection.nondominated(rows, [problem.violation(scores(each)) for each in points]))


@given(problems, some, few)
def test_what_nobody_dominates_goes_on(problem: Problem, others: list[Point], mine: Point) -> None:
    if front(problem, [mine, *others])[0]:
        assert hopeless(problem, flat(others), 2, scores(mine)) == ""


@given(some, few)
def test_the_best_in_an_objective_goes_on(others: list[Point], mine: Point) -> None:
    most, least = max(each[0] for each in others), min(each[1] for each in others)
    assert hopeless(BOTH, flat(others), 2, scores((most + 1, mine[1]))) == ""
    assert hopeless(BOTH, flat(others), 2, scores((mine[0], least - 1))) == ""


@given(problems, some, few, st.randoms())
def test_the_order_of_the_curves_decides_nothing(
    problem: Problem, others: list[Point], mine: Point, order: random.Random
) -> None:
    shuffled = list(others)
    order.shuffle(shuffled)
    assert hopeless(problem, flat(others), 2, scores(mine)) == hopeless(problem, flat(shuffled), 2, scores(mine))


@given(problems, some)
def test_what_everybody_dominates_is_stopped(problem: Problem, others: list[Point]) -> None:
    worst = (min(each[0] for each in others) - 1, max(each[1] for each in others) + 1)
    reason = hopeless(problem, flat(others), 2, scores(worst))
    assert reason.startswith("stopped after step 2 of 5: accuracy ")
    assert reason.endswith(f"where {len(others)} of {len(others)} were better")


@given(problems, some, few)
def test_domination_is_that_of_selection(problem: Problem, others: list[Point], mine: Point) -> None:
    marked = dominators(problem, scores(mine), [scores(each) for each in others])
    for each, dominates in zip(others, marked, strict=True):
        assert dominates == (not front(problem, [mine, each])[0])


@given(some, few, few)
def test_what_is_better_everywhere_is_not_stopped_where_the_other_goes_on(
    others: list[Point], mine: Point, gain: Point
) -> None:
    better = (mine[0] + gain[0], mine[1] - gain[1])
    if not hopeless(BOTH, flat(others), 4, scores(mine)):
        assert not hopeless(BOTH, flat(others), 4, scores(better))


def test_at_least_half_have_to_be_better() -> None:
    better, worse = (5, 5), (1, 5)
    assert hopeless(BOTH, flat([better] * 3 + [worse] * 4), 2, scores((3, 5))) == ""
    reason = hopeless(BOTH, flat([better] * 3 + [worse] * 3), 2, scores((3, 5)))
    assert reason == "stopped after step 2 of 5: accuracy 3, size 5, where 3 of 6 were better"


def test_few_curves_say_too_little() -> None:
    assert hopeless(BOTH, flat([(5, 5)] * (MINIMUM - 1)), 2, scores((1, 9))) == ""
    assert hopeless(BOTH, flat([(5, 5)] * MINIMUM), 2, scores((1, 9)))


def test_a_candidate_is_compared_at_its_own_step() -> None:
    """Everybody learns: what is ahead of the others' second step is behind their fourth."""
    peers = [curve((1, 5), (2, 5), (4, 5), (6, 5), (8, 5))] * 6
    assert hopeless(BOTH, peers, 2, scores((3, 5))) == ""
    assert hopeless(BOTH, peers, 4, scores((3, 5)))


def test_those_that_were_stopped_count_as_far_as_they_came() -> None:
    stopped = [curve((9, 5), (9, 5), whole=False)] * 5
    peers = [*stopped, *flat([(2, 5)] * 3)]
    assert "5 of 8 were better" in hopeless(BOTH, peers, 2, scores((3, 5)))
    assert hopeless(BOTH, peers, 4, scores((3, 5))) == ""


def test_decisions_fall_at_twice_the_effort_each_and_never_at_the_end() -> None:
    peers = flat([(5, 5)] * 6, steps=8)
    assert [step for step in range(1, 12) if hopeless(BOTH, peers, step, scores((1, 9)))] == [2, 4]
    assert [step for step in range(1, 70) if is_rung(step)] == [2, 4, 8, 16, 32, 64]
    assert usual_length([*peers, *flat([(1, 1)] * 7, steps=2)]) == 2
    assert usual_length([*peers, curve((1, 1), whole=False), Curve(())]) == 8
    assert usual_length([]) == 0


def test_a_number_that_is_missing_might_be_the_best() -> None:
    peers = flat([(5, 5)] * 6)
    assert lacking(BOTH, {"accuracy": 1.0, "loss": 2.0}) == ["size"]
    assert hopeless(BOTH, peers, 2, {"accuracy": 1.0}) == ""
    silent = Curve((PartialResult(2, 1.0, {"accuracy": 9.0}), PartialResult(4, 1.0, scores((9, 9)))))
    assert hopeless(BOTH, [silent] * 6, 2, scores((1, 9))) == ""


def test_feasible_comes_before_infeasible() -> None:
    small, large = (1, 5), (9, 9)
    assert hopeless(BOTH, flat([small] * 6), 2, scores(large)) == ""
    assert hopeless(CAPPED, flat([small] * 6), 2, scores(large))
    assert hopeless(CAPPED, flat([large] * 6), 2, scores(small)) == ""


def test_what_stands_in_the_way_is_said() -> None:
    assert obstacle(BOTH, curve((1, 1), (2, 2), (3, 3))) == ""
    assert "yields no more than 2 partial results" in obstacle(BOTH, curve((1, 1), (2, 2)))
    bare = Curve(tuple(PartialResult(step, 1.0, {"loss": 1.0}) for step in (1, 2, 3)))
    assert obstacle(BOTH, bare).endswith("the partial results hold no accuracy, no size")


@pytest.mark.parametrize("seed", range(3))
def test_learners_of_equal_pace_keep_their_best_and_lose_their_worst(seed: int) -> None:
    """Played over three generations of noisy learners, in which nobody's size matters."""
    rng = np.random.default_rng(seed)
    ends = rng.uniform(0.4, 0.9, 60)
    known: list[Curve] = []
    stopped = []
    for generation in range(3):
        before = list(known)
        for number in range(generation * 20, generation * 20 + 20):
            steps = [
                PartialResult(
                    step, step, {"accuracy": ends[number] * (1 - 0.6**step) + rng.normal(0, 0.005), "size": 1.0}
                )
                for step in range(1, 9)
            ]
            at = next((each.step for each in steps if hopeless(BOTH, before, each.step, each.scores)), None)
            known.append(Curve(tuple(steps[:at]), whole=at is None))
            if at is not None:
                stopped.append(ends[number])
    later = ends[20:]
    assert 10 <= len(stopped) < 40
    assert max(stopped) < np.quantile(later, 0.8)
    assert min(later) in stopped
