"""Individuals as arrays, and a front that is kept up."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guided_evolution.genome import Genome
from guided_evolution.individual import Individual, Outcome, Status
from guided_evolution.population import Front, front
from guided_evolution.problem import Constraint, Objective, Problem

OBJECTIVES = (Objective("quality"), Objective("cost", "min"))
PROBLEM = Problem(Path(), "front", {}, OBJECTIVES, constraints=(Constraint("excess", max=1.0),))


def individual(number: int, quality: float, cost: float, excess: float = 0.0, *, ok: bool = True) -> Individual:
    genome = Genome.parse({"seed.py": f"def f():\n    return {number}\n"})
    scores = {"quality": quality, "cost": cost}
    outcome = Outcome(Status.OK, scores=scores, metrics={"excess": excess}) if ok else Outcome(Status.CRASHED)
    return Individual(number, 0, genome, outcome=outcome)


FEW = st.integers(0, 4).map(float)
TRIES = st.lists(st.tuples(FEW, FEW, st.sampled_from([0.0, 0.0, 2.0, 3.0]), st.booleans()), max_size=24)


@given(TRIES, st.randoms(use_true_random=False), st.integers(1, 4))
def test_a_front_that_is_kept_up_is_the_front_of_everybody(
    tries: list[tuple[float, float, float, bool]], order: object, at_once: int
) -> None:
    everybody = [
        individual(number, quality, cost, excess, ok=ok) for number, (quality, cost, excess, ok) in enumerate(tries)
    ]
    order.shuffle(everybody)  # type: ignore[attr-defined]
    kept = Front(PROBLEM)
    for start in range(0, len(everybody), at_once):
        newcomers = everybody[start : start + at_once]
        wanted = front(PROBLEM, everybody[: start + at_once])
        assert kept.entrants(newcomers) == [each for each in wanted if each in newcomers]
        kept.add(newcomers)
        assert kept.members == wanted


@pytest.mark.alone
def test_a_newcomer_to_a_large_front_costs_little() -> None:
    kept = Front(PROBLEM)
    several = [individual(number, number, number) for number in range(2_000)]
    kept.add(several)
    assert len(kept.members) == 2_000
    late = [individual(number, number, number) for number in range(2_000, 2_050)]
    begin = time.process_time()
    for each in late:
        kept.add([each])
    alone = time.process_time() - begin
    begin = time.process_time()
    front(PROBLEM, kept.members)
    assert alone < 50 * (time.process_time() - begin) / 4
