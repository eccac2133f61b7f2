from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guided_evolution.ablation import statistics

scipy_stats = pytest.importorskip("scipy.stats")
samples = st.lists(st.integers(-50, 50).map(float), min_size=2, max_size=8)


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@settings(max_examples=40, deadline=None)
@given(samples)
def test_the_exact_test_agrees_with_scipy(values: list[float]) -> None:
    found = scipy_stats.permutation_test((np.array(values),), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert statistics.sign_flip_p(values, rng()) == pytest.approx(min(1.0, found.pvalue))


def test_the_sampled_test_comes_close_to_the_exact_one() -> None:
    values = np.random.default_rng(3).normal(0.5, 1.0, 13)
    found = scipy_stats.permutation_test((values,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert statistics.sign_flip_p(values, rng()) == pytest.approx(found.pvalue, abs=0.006)


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 7, 12, 29])
def test_student_agrees_with_scipy(degrees: int) -> None:
    for t in (0.0, 0.3, 1.7, 9.0):
        assert statistics.student_cdf(t, degrees) == pytest.approx(scipy_stats.t.cdf(t, degrees))
    assert statistics.student_quantile(0.975, degrees) == pytest.approx(scipy_stats.t.ppf(0.975, degrees))


@given(samples)
def test_rank_biserial_agrees_with_scipys_ranks(values: list[float]) -> None:
    kept = [value for value in values if value]
    ranks = scipy_stats.rankdata(np.abs(kept))
    expected = float(ranks @ np.sign(kept) / ranks.sum()) if kept else 0.0
    assert statistics.rank_biserial(values) == pytest.approx(expected)


def test_holm_by_hand() -> None:
    assert statistics.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert statistics.holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert statistics.holm([]) == []


def test_what_few_seeds_can_reach() -> None:
    assert statistics.smallest_p(5) == 0.0625
    assert statistics.smallest_p(5, 3) == 0.1875
    assert statistics.pairs_needed() == 6
    assert statistics.pairs_needed(3) == 7
    assert statistics.detectable([1.0, 2.0, 3.0, 4.0, 5.0]) is None


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-50, 50).map(float), min_size=7, max_size=9))
def test_a_difference_just_above_the_detectable_one_is_told_apart_and_one_below_is_not(values: list[float]) -> None:
    size = statistics.detectable(values, 2)
    assert size is not None
    residuals = np.array(values) - np.mean(values)
    scale = 1e-6 * (1 + float(np.abs(residuals).max()))
    assert 2 * statistics.sign_flip_p(residuals + size + scale, rng()) <= statistics.LEVEL
    if size > 2 * scale:
        assert 2 * statistics.sign_flip_p(residuals + size - scale, rng()) > statistics.LEVEL


@pytest.mark.parametrize(("seeds", "least"), [(5, 0.87), (8, 0.90), (20, 0.925)])
def test_the_interval_covers_the_mean_of_a_known_distribution(
    seeds: int, least: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "RESAMPLES", 2000)
    draw, hits = rng(), 0
    for _ in range(600):
        interval = statistics.bootstrap_interval(draw.normal(3.0, 2.0, seeds), draw)
        assert interval is not None
        hits += interval[0] <= 3.0 <= interval[1]
    assert least <= hits / 600 <= 0.985
    assert statistics.bootstrap_interval([1.0], draw) is None


def test_a_band_is_the_interval_of_every_column() -> None:
    table = np.random.default_rng(5).normal(size=(6, 3))
    table[:, 1] = table[:, 0]
    low, high = statistics.bootstrap_band(table, rng())
    for column in range(3):
        interval = statistics.bootstrap_interval(table[:, column], rng())
        assert interval == pytest.approx((low[column], high[column]))
        assert low[column] < table[:, column].mean() < high[column]
