"""Selection against its definitions, written out by brute force here, and against deap and pymoo."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from deap import base, tools
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from pymoo.algorithms.moo.spea2 import SPEA2Survival
from pymoo.core.population import Population
from pymoo.core.problem import Problem
from pymoo.operators.survival.rank_and_crowding.metrics import calc_crowding_distance
from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

from guided_evolution import selection

Floats = NDArray[np.float64]
Survivors = Callable[..., NDArray[np.int64]]

# A deadline per example would measure the machine, not the code.
CALM = settings(deadline=None, max_examples=80)
SURVIVORS = pytest.mark.parametrize("survivors", [selection.nsga2_survivors, selection.spea2_survivors])


@st.composite
def populations(draw: st.DrawFn, max_n: int = 14) -> tuple[Floats, Floats]:
    """Points on a coarse grid, so that ties and copies abound, with few distinct violations."""
    n, m = draw(st.integers(1, max_n)), draw(st.integers(1, 3))
    points = draw(arrays(np.float64, (n, m), elements=st.integers(-3, 3).map(float)))
    violation = draw(arrays(np.float64, n, elements=st.sampled_from([0.0, 0.0, 0.5, 2.0])))
    return points, violation


def dominates(points: Floats, violation: Floats, i: int, j: int) -> bool:
    if violation[i] != violation[j]:
        return bool(violation[i] < violation[j])
    return all(points[i] <= points[j]) and any(points[i] < points[j])


def brute_force_ranks(points: Floats, violation: Floats) -> list[int]:
    rank: dict[int, int] = {}
    while len(rank) < len(points):
        left = [i for i in range(len(points)) if i not in rank]
        front = [i for i in left if not any(dominates(points, violation, j, i) for j in left)]
        rank.update({i: max(rank.values(), default=-1) + 1 for i in front})
    return [rank[i] for i in range(len(points))]


def textbook_spea2(points: Floats, k: int, violation: Floats) -> set[int]:
    """Zitzler et al. step by step; distances are rounded so that equal ones compare equal."""

    def distance(i: int, j: int, among: list[int]) -> float:
        terms = []
        for column in points.T:
            span = max(column[among]) - min(column[among])
            terms.append((column[i] - column[j]) / span if span else 0.0)
        return round(math.hypot(*terms), 12)

    n = len(points)
    everyone = list(range(n))
    beats = [[dominates(points, violation, i, j) for j in everyone] for i in everyone]
    strength = [sum(row) for row in beats]
    raw = [sum(strength[j] for j in everyone if beats[j][i]) for i in everyone]
    fitness = []
    for i in everyone:
        others = sorted(distance(i, j, everyone) for j in everyone if j != i)
        sigma = others[min(int(math.sqrt(n)), len(others)) - 1] if others else 0.0
        fitness.append(raw[i] + 1 / (sigma + 2))
    archive = [i for i in everyone if fitness[i] < 1]
    if len(archive) <= k:
        return set(sorted(everyone, key=lambda i: (fitness[i], tuple(points[i]), i))[:k])
    front = list(archive)
    while len(archive) > k:
        near = {i: sorted(distance(i, j, front) for j in archive if j != i) for i in archive}
        least = min(near.values())
        archive.remove(max((i for i in archive if near[i] == least), key=lambda i: (tuple(points[i]), i)))
    return set(archive)


def distinct_front(rng: np.random.Generator, n: int, m: int) -> Floats:
    """Mutually non-dominated points without ties, in [0, 1] and touching both ends in each objective."""
    points = rng.normal(size=(n, m)) ** 2
    return selection.normalise(points / points.sum(axis=1, keepdims=True))


def rows(points: Floats, violation: Floats, chosen: NDArray[np.int64]) -> list[tuple[float, ...]]:
    return sorted(map(tuple, np.column_stack([points, violation])[chosen].tolist()))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_nan_never_gets_in(bad: float) -> None:
    front = [[0.0, 1.0], [1.0, 0.0]]
    entries: list[Callable[..., object]] = [
        selection.ranks,
        selection.nondominated,
        selection.nsga2_order,
        lambda points, *violation: selection.nsga2_survivors(points, 1, *violation),
        lambda points, *violation: selection.spea2_survivors(points, 1, *violation),
        lambda points, *violation: selection.tournament(points, 1, np.random.default_rng(0), *violation),
    ]
    for entry in entries:
        with pytest.raises(ValueError, match="violation must be finite"):
            entry(front, [0.0, bad])
    entries += [selection.normalise, selection.crowding_distance]
    for entry in [*entries, lambda points: selection.hypervolume(points, [2.0, 2.0])]:
        entry(front)
        with pytest.raises(ValueError, match="points must be finite; row 1 is"):
            entry([[0.0, 1.0], [1.0, bad]])
    with pytest.raises(ValueError, match="reference must be a list of finite"):
        selection.hypervolume(front, [2.0, bad])


def test_wrong_shapes_and_sizes_are_refused() -> None:
    for points in ([1.0, 2.0], [[[1.0]]], np.empty((3, 0)), 1.0):
        with pytest.raises(ValueError, match="shape"):
            selection.ranks(points)
    with pytest.raises(ValueError, match=r"violation must have the shape \(2,\)"):
        selection.ranks([[1.0], [2.0]], [0.0])
    with pytest.raises(ValueError, match="not negative"):
        selection.ranks([[1.0]], [-0.1])
    with pytest.raises(ValueError, match="3 numbers for 2"):
        selection.hypervolume([[1.0, 2.0]], [3.0, 3.0, 3.0])
    for call in (selection.nsga2_survivors, selection.spea2_survivors):
        with pytest.raises(ValueError, match="k must be 0 or more"):
            call([[1.0]], -1)
    with pytest.raises(ValueError, match="k must be 0 or more"):
        selection.tournament([[1.0]], -1, np.random.default_rng(0))
    with pytest.raises(ValueError, match="nobody"):
        selection.tournament([], 1, np.random.default_rng(0))


def test_an_empty_population_is_no_error() -> None:
    nothing: list[Floats] = [np.empty(0), np.empty((0, 2))]
    for points in nothing:
        assert selection.normalise(points).size == selection.crowding_distance(points).size == 0
        assert selection.ranks(points).size == selection.nondominated(points).size == 0
        assert selection.nsga2_survivors(points, 3).size == selection.spea2_survivors(points, 3).size == 0
        assert selection.tournament(points, 0, np.random.default_rng(0)).size == 0
        assert selection.hypervolume(points, [1.0, 1.0]) == 0.0


def test_normalise_reaches_both_ends_and_flattens_a_constant() -> None:
    unit = selection.normalise([[2.0, 7.0, -1e308], [4.0, 7.0, 0.0], [6.0, 7.0, 1e308]])
    assert unit.tolist() == [[0.0, 0.0, 0.0], [0.5, 0.0, 0.5], [1.0, 0.0, 1.0]]


@CALM
@given(arrays(np.float64, (5, 2), elements=st.floats(allow_nan=False, allow_infinity=False)))
def test_normalise_stays_within_0_and_1_for_any_finite_number(points: Floats) -> None:
    unit = selection.normalise(points)
    assert ((unit >= 0) & (unit <= 1)).all()
    assert (unit.max(axis=0) == (points.max(axis=0) > points.min(axis=0))).all()
    assert not unit.min(axis=0).any()


@CALM
@given(populations())
def test_ranks_are_those_of_the_definition(population: tuple[Floats, Floats]) -> None:
    points, violation = population
    assert selection.ranks(points, violation).tolist() == brute_force_ranks(points, violation)
    assert selection.ranks(points).tolist() == brute_force_ranks(points, 0 * violation)


@CALM
@given(populations())
def test_nondominated_is_the_first_front_with_all_its_copies(population: tuple[Floats, Floats]) -> None:
    points, violation = population
    front = selection.nondominated(points, violation)
    assert front.tolist() == [rank == 0 for rank in brute_force_ranks(points, violation)]
    if (violation == 0).any():
        assert (violation[front] == 0).all()


def test_constraints_come_before_objectives() -> None:
    points, violation = [[9.0, 9.0], [0.0, 0.0], [1.0, 1.0], [1.0, 1.0]], [0.0, 2.0, 0.5, 0.5]
    assert selection.ranks(points, violation).tolist() == [0, 2, 1, 1]
    assert selection.ranks(points).tolist() == [2, 0, 1, 1]
    assert selection.nsga2_survivors(points, 2, violation).tolist() == [0, 2]
    assert selection.spea2_survivors(points, 2, violation).tolist() == [0, 2]
    parents = selection.tournament(points, 200, np.random.default_rng(0), violation)
    assert 1 not in parents and 0 in parents


@pytest.mark.parametrize("m", [2, 3, 4])
def test_ranks_agree_with_pymoo(m: int) -> None:
    points = np.random.default_rng(m).random((120, m))
    expected = np.empty(len(points), dtype=int)
    for rank, front in enumerate(NonDominatedSorting().do(points)):
        expected[front] = rank
    assert selection.ranks(points).tolist() == expected.tolist()


def test_crowding_distance_worked_by_hand() -> None:
    front = [[0.0, 10.0], [1.0, 6.0], [2.0, 5.0], [4.0, 0.0]]
    assert selection.crowding_distance(front).tolist() == [math.inf, 1.0, 1.35, math.inf]
    # Rounding errors must not decide between points that are equally far apart.
    even = selection.crowding_distance([[0.1 * i, 1 - 0.1 * i] for i in range(11)])
    assert set(even[1:-1]) == {0.4}


@pytest.mark.parametrize("m", [2, 3, 4])
def test_crowding_distance_agrees_with_pymoo(m: int) -> None:
    for seed in range(20):
        front = distinct_front(np.random.default_rng(seed), 15, m)
        # pymoo takes the mean over the objectives where the paper takes the sum.
        assert selection.crowding_distance(front) == pytest.approx(m * calc_crowding_distance(front))


def test_crowding_distance_of_few_points_and_of_copies() -> None:
    inf = math.inf
    assert selection.crowding_distance([[1.0, 2.0]]).tolist() == [inf]
    assert selection.crowding_distance([[1.0, 2.0], [2.0, 1.0]]).tolist() == [inf, inf]
    assert selection.crowding_distance([[1.0, 2.0]] * 3).tolist() == [inf, 0, 0]
    copied = [[0.0, 2.0], [0.0, 2.0], [1.0, 1.0], [1.0, 1.0], [2.0, 0.0]]
    assert selection.crowding_distance(copied).tolist() == [inf, 0, 2.0, 0, inf]
    # The second point has the smallest first objective too, but only one point is at that end.
    tied = selection.crowding_distance([[0.0, 1.0, 7.0], [0.0, 2.0, 7.0], [1.0, 0.0, 7.0], [1.0, 3.0, 7.0]])
    assert tied[1] == pytest.approx(5 / 3)
    assert np.isinf(tied).tolist() == [True, False, True, True]


def test_crowding_changes_who_survives() -> None:
    points = np.array([[0.0, 10.0], [4.7, 5.3], [4.8, 5.2], [8.0, 2.0], [10.0, 0.0]])
    assert not selection.ranks(points).any()
    assert sorted(selection.nsga2_survivors(points, 4)) == [0, 1, 3, 4]
    # The same individual survives once its neighbour has moved away.
    points[1] = [1.0, 9.0]
    assert sorted(selection.nsga2_survivors(points, 4)) == [0, 2, 3, 4]
    wins = np.bincount(selection.tournament(points, 2000, np.random.default_rng(1)))
    assert wins[1] == 0 < wins[3] < wins[2] < wins[0]


def test_nsga2_agrees_with_deap_and_pymoo_where_nothing_ties() -> None:
    class Fitness(base.Fitness):
        weights = (-1.0, -1.0)

    class Candidate(list[float]):
        fitness: Fitness

    compared = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        points = rng.random((30, 2))
        k = int(rng.integers(1, 30))
        sizes = np.cumsum(np.bincount(selection.ranks(points)))
        if (k - np.r_[0, sizes[sizes <= k]].max()) == 1:
            continue  # One place for two extremes is a tie, which deap gives to the first in the list.
        candidates = [Candidate(row) for row in points]
        for candidate in candidates:
            candidate.fitness = Fitness(candidate)
        chosen = sorted(map(tuple, tools.selNSGA2(candidates, k, nd="standard")))
        ours = selection.nsga2_survivors(points, k)
        assert sorted(map(tuple, points[ours])) == chosen
        compared += 1
    assert compared > 30


@CALM
@given(populations(), st.integers(6, 14))
def test_nsga2_keeps_the_best_of_every_objective(population: tuple[Floats, Floats], k: int) -> None:
    points, violation = population
    legal = points[violation == violation.min()]
    kept = points[selection.nsga2_survivors(points, k, violation)]
    assert (kept.min(axis=0) <= legal.min(axis=0)).all()


@CALM
@given(populations(), st.integers(0, 15))
def test_spea2_is_the_textbook_on_ties_and_copies(population: tuple[Floats, Floats], k: int) -> None:
    points, violation = population
    assert set(selection.spea2_survivors(points, k, violation)) == textbook_spea2(points, k, violation)


@pytest.mark.parametrize("m", [2, 3])
def test_spea2_is_the_textbook_on_random_numbers(m: int) -> None:
    for seed in range(40):
        rng = np.random.default_rng(seed)
        points = rng.random((16, m)) if seed % 2 else distinct_front(rng, 16, m)
        points *= [1.0, 1e6, 1e-3][:m]
        violation = np.maximum(0.0, rng.normal(size=16)) * (seed % 4 == 1)
        k = int(rng.integers(1, 16))
        assert set(selection.spea2_survivors(points, k, violation)) == textbook_spea2(points, k, violation)


def test_spea2_truncates_a_grid_as_the_textbook_does() -> None:
    # Forty points with one and the same nearest distance: only distant neighbours tell them apart.
    line = np.column_stack([np.arange(40.0), -np.arange(40.0)])
    assert set(selection.spea2_survivors(line, 9)) == textbook_spea2(line, 9, np.zeros(40))
    plane = np.array([(i, j, -i - j) for i in range(6) for j in range(6)], dtype=float)
    assert set(selection.spea2_survivors(plane, 12)) == textbook_spea2(plane, 12, np.zeros(36))


def test_spea2_truncation_agrees_with_pymoo() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        front = distinct_front(rng, 25, 2 + seed % 2)
        k = int(rng.integers(2, 25))
        theirs = SPEA2Survival().do(Problem(n_obj=front.shape[1]), Population.new(F=front), n_survive=k)
        ours = front[selection.spea2_survivors(front, k)]
        assert sorted(map(tuple, ours)) == sorted(map(tuple, theirs.get("F")))


@CALM
@given(populations(), st.integers(0, 14))
def test_the_dominated_have_no_say_in_the_truncation(population: tuple[Floats, Floats], k: int) -> None:
    points, violation = population
    front = np.flatnonzero(selection.nondominated(points, violation))
    k = min(k, len(front))
    among_all = selection.spea2_survivors(points, k, violation)
    assert set(among_all) == set(front[selection.spea2_survivors(points[front], k)])


def test_an_outlier_does_not_flatten_the_front() -> None:
    front = np.array([[-0.67, 750e3], [-0.63, 650e3], [-0.59, 500e3], [-0.56, 350e3]])
    assert sorted(selection.spea2_survivors(front, 3)) == [0, 2, 3]
    # On the outlier's scale sizes would not count, and by accuracy alone the third is the crowded one.
    outlier = [-0.1, 2e9]
    assert sorted(selection.spea2_survivors([*front, outlier], 3)) == [0, 2, 3]


def test_fault_09_fewer_than_eight_individuals_and_real_selection() -> None:
    rng = np.random.default_rng(9)
    for n in range(1, 8):
        points = rng.random((n, 2))
        for k in range(2 * n):
            for survivors in (selection.nsga2_survivors, selection.spea2_survivors):
                assert len(set(survivors(points, k).tolist())) == min(k, n)
            parents = selection.tournament(points, k, rng)
            assert len(parents) == k and set(parents.tolist()) <= set(range(n))
    ladder = np.array([[3.0, 3.0], [0.0, 0.0], [2.0, 2.0], [1.0, 1.0]])
    for k, expected in [(1, {1}), (2, {1, 3}), (3, {1, 2, 3})]:
        assert set(selection.nsga2_survivors(ladder, k)) == expected
        assert set(selection.spea2_survivors(ladder, k)) == expected


@SURVIVORS
@CALM
@given(population=populations(), k=st.integers(0, 16))
def test_survivors_are_distinct_and_whole_fronts_go_first(
    survivors: Survivors, population: tuple[Floats, Floats], k: int
) -> None:
    points, violation = population
    before = points.copy()
    chosen = survivors(points, k, violation)
    assert len(set(chosen.tolist())) == len(chosen) == min(k, len(points))
    assert (points == before).all()
    # SPEA-2 puts the first front first, and nobody before one that dominates him.
    rank = selection.ranks(points, violation)
    out = np.setdiff1d(np.arange(len(points)), chosen)
    if survivors is selection.nsga2_survivors:
        assert rank[chosen].max(initial=0) <= rank[out].min(initial=len(points))
    assert not any(dominates(points, violation, i, j) for i in out for j in chosen)


@SURVIVORS
def test_a_full_tie_goes_to_the_first_objective(survivors: Survivors) -> None:
    assert survivors([[0.0, 1.0], [1.0, 0.0]], 1).tolist() == [0]
    assert survivors([[1.0, 0.0], [0.0, 1.0]], 1).tolist() == [1]
    assert sorted(survivors([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]], 2)) == [0, 1]
    assert survivors([[0.0, 0.0], [2.0, 1.0], [1.0, 2.0]], 2).tolist() == [0, 2]
    assert survivors([[0.0, 0.0], [1.0, 2.0], [2.0, 1.0]], 2).tolist() == [0, 1]


@SURVIVORS
@CALM
@given(population=populations(), k=st.integers(0, 14), seed=st.integers(0, 99))
def test_the_order_of_the_rows_changes_nothing(
    survivors: Survivors, population: tuple[Floats, Floats], k: int, seed: int
) -> None:
    points, violation = population
    shuffle = np.random.default_rng(seed).permutation(len(points))
    chosen = survivors(points, k, violation)
    shuffled = shuffle[survivors(points[shuffle], k, violation[shuffle])]
    assert rows(points, violation, chosen) == rows(points, violation, shuffled)


@CALM
@given(populations(), st.integers(1, 14), st.sampled_from([1e6, 1e-6, 1 / 3]), st.integers(0, 2))
def test_the_unit_of_an_objective_changes_nothing(
    population: tuple[Floats, Floats], k: int, factor: float, column: int
) -> None:
    points, violation = population
    scaled = points.copy()
    scaled[:, column % points.shape[1]] *= factor
    for survivors in (selection.nsga2_survivors, selection.spea2_survivors):
        assert survivors(points, k, violation).tolist() == survivors(scaled, k, violation).tolist()
    one, other = (selection.tournament(x, k, np.random.default_rng(k), violation) for x in (points, scaled))
    assert one.tolist() == other.tolist()


def test_tournament_wins_follow_the_ranks() -> None:
    ladder = np.array([[1.0, 1.0], [3.0, 3.0], [0.0, 0.0], [2.0, 2.0]])
    parents = selection.tournament(ladder, 6000, np.random.default_rng(3))
    share = np.bincount(parents, minlength=4) / 6000
    assert share == pytest.approx([2 / 6, 0, 3 / 6, 1 / 6], abs=0.03)


def test_a_drawn_tournament_is_decided_by_the_stream() -> None:
    points = [[0.0, 1.0], [1.0, 0.0]]
    first, again, other = (selection.tournament(points, 400, np.random.default_rng(s)) for s in (5, 5, 6))
    assert first.tolist() == again.tolist() != other.tolist()
    assert np.bincount(first) == pytest.approx([200, 200], abs=50)


def test_an_only_individual_wins_every_tournament_and_draws_nothing() -> None:
    rng = np.random.default_rng(0)
    assert selection.tournament([[1.0, 2.0]], 5, rng).tolist() == [0] * 5
    assert rng.random() == np.random.default_rng(0).random()


@CALM
@given(st.integers(1, 5).flatmap(lambda m: arrays(np.float64, (6, m), elements=st.integers(0, 6).map(float))))
def test_hypervolume_counts_the_dominated_unit_cells(points: Floats) -> None:
    # Coordinates 4 to 6 are at or beyond the reference.
    cells = itertools.product(range(4), repeat=points.shape[1])
    expected = sum(any(all(p <= c for p, c in zip(point, cell, strict=True)) for point in points) for cell in cells)
    assert selection.hypervolume(points, [4.0] * points.shape[1]) == pytest.approx(expected, abs=1e-9)


@CALM
@given(st.integers(2, 3).flatmap(lambda m: arrays(np.float64, (6, m), elements=st.integers(0, 6).map(float))))
def test_a_contribution_is_what_would_be_lacking(points: Floats) -> None:
    bound = [5.0] * points.shape[1]
    whole = selection.hypervolume(points, bound)
    found = selection.contributions(points, bound)
    front = selection.nondominated(points)
    for index, volume in enumerate(found):
        others = points[front & (np.arange(len(points)) != index)]
        lacking = whole - selection.hypervolume(others, bound) if front[index] else 0.0
        assert volume == pytest.approx(lacking, abs=1e-9)
    assert selection.contributions([], bound).shape == (0,)
    with pytest.raises(ValueError, match="reference"):
        selection.contributions(points, [5.0])


@pytest.mark.parametrize("m", [2, 3])
def test_hypervolume_by_inclusion_and_exclusion(m: int) -> None:
    for seed in range(20):
        points = np.random.default_rng(seed).random((7, m)) * 1.2
        expected = 0.0
        for size in range(1, 8):
            for subset in itertools.combinations(points, size):
                expected -= (-1) ** size * np.prod(np.maximum(0.0, 1.0 - np.max(subset, axis=0)))
        assert selection.hypervolume(points, np.ones(m)) == pytest.approx(expected)


def test_hypervolume_ignores_what_does_not_beat_the_reference() -> None:
    assert selection.hypervolume([[1.0, 1.0], [0.0, 9.0], [3.0, 0.0]], [3.0, 3.0]) == 4.0
    assert selection.hypervolume([[0.0, 9.0]], [3.0, 3.0]) == 0.0
    assert selection.hypervolume([[-0.9, 5e5]], [0.0, 1e6]) == pytest.approx(0.9 * 5e5)
