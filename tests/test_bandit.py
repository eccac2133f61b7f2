from __future__ import annotations

import numpy as np
import pytest

from guided_evolution.bandit import Arm, shares


def found(*arms: Arm) -> list[float]:
    return shares(arms, np.random.default_rng(3))


def test_without_experience_the_shares_are_the_weights() -> None:
    assert found(Arm(1), Arm(3)) == [0.25, 0.75]
    assert found(Arm(2)) == [1.0]


def test_who_earns_more_gets_more_and_nobody_nothing() -> None:
    good, bad = found(Arm(1, 20, 15, 20.0), Arm(1, 20, 1, 20.0))
    assert good > 0.99
    assert 0 < bad < 0.01
    assert good + bad == pytest.approx(1)


def test_a_dearer_model_must_earn_more() -> None:
    assert found(Arm(1, 40, 20, 40.0), Arm(1, 40, 24, 400.0))[0] > 0.95
    same_rate = found(Arm(1, 40, 10, 40.0), Arm(1, 40, 10, 40.0))
    assert same_rate[0] == pytest.approx(0.5, abs=0.02)


def test_a_model_that_costs_nothing_is_not_taken_for_its_price_alone() -> None:
    assert found(Arm(1, 20, 0, 0.0), Arm(1, 20, 10, 1.0))[0] < 0.05


def test_the_weights_are_the_odds_before_the_evidence() -> None:
    plain = found(Arm(1, 10, 6, 10.0), Arm(1, 10, 4, 10.0))
    weighted = found(Arm(1, 10, 6, 10.0), Arm(9, 10, 4, 10.0))
    assert weighted[1] / weighted[0] == pytest.approx(9 * plain[1] / plain[0])


def test_the_share_of_two_is_the_probability_that_one_rate_is_the_larger() -> None:
    # P(A > B) with A ~ Beta(2, 1) and B ~ Beta(1, 1) is E[A] = 2/3
    assert found(Arm(1, 1, 1, 7.0), Arm(1, 0, 0))[0] == pytest.approx(2 / 3, abs=0.015)


def test_an_untried_arm_counts_with_the_cost_of_the_others() -> None:
    assert found(Arm(1, 10, 5, 1000.0), Arm(1))[1] == pytest.approx(0.5, abs=0.03)
