"""Multi-objective selection on arrays: NSGA-II, SPEA-2, binary tournament, non-dominated set, hypervolume.

Every function takes `points`, a finite array of shape (n, m): one row per individual, one column per
objective, **every objective minimised**; the caller negates those it maximises. Where `violation` is taken,
it is a finite array of shape (n,) with the sum of an individual's normalised constraint violations: 0 is
feasible, and None means that all are.

Individual a *dominates* b when a violates less, or when both violate equally and a is no worse in any
objective and better in one. Anything feasible thus dominates anything infeasible, and among the feasible
this is Pareto dominance (constraint domination: Deb, Pratap, Agarwal, Meyarivan, "A fast and elitist
multiobjective genetic algorithm: NSGA-II", IEEE Transactions on Evolutionary Computation 6(2), 2002).

Only the values decide, never the order of the rows: what ties in every criterion is settled in favour of
the lexicographically smaller point, so the first objective counts most, and equal points go by their index.
Distances are rounded far above machine precision, so that the unit of an objective can't change what is
selected.
"""

from __future__ import annotations

import math

import moocore
import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

# Distances between normalised objectives that agree to this many decimals differ by rounding error only.
_DECIMALS = 12


def normalise(points: ArrayLike) -> Floats:
    """Scale every objective to [0, 1] by its smallest and largest value.

    Args:
        points: Objectives, shape (n, m).

    Returns:
        Shape (n, m); an objective that is the same for everyone becomes 0.

    Raises:
        ValueError: If `points` is not a finite array of two dimensions.
    """
    values = _points(points)
    if not len(values):
        return values
    low, high = values.min(axis=0), values.max(axis=0)
    # The range of two finite numbers can overflow; half of it can't.
    with np.errstate(over="ignore"):
        scale = np.where(np.isfinite(high - low), 1.0, 0.5)
    span = high * scale - low * scale
    unit: Floats = (values * scale - low * scale) / np.where(span > 0, span, 1.0)
    return unit


def ranks(points: ArrayLike, violation: ArrayLike | None = None) -> Ints:
    """Sort individuals into non-dominated fronts.

    Args:
        points: Objectives, shape (n, m).
        violation: Sums of constraint violations, shape (n,).

    Returns:
        Shape (n,): 0 for those that nobody dominates, 1 for those that only rank 0 dominates, and so on.
        Equal individuals share a rank.

    Raises:
        ValueError: If an array has the wrong shape, a number that isn't finite, or a negative violation.
    """
    values, violations = _population(points, violation)
    result = np.zeros(len(values), dtype=np.int64)
    fronts = 0
    for level in np.unique(violations):
        members = violations == level
        result[members] = fronts + moocore.pareto_rank(values[members])
        fronts = int(result[members].max()) + 1
    return result


def nondominated(points: ArrayLike, violation: ArrayLike | None = None) -> Bools:
    """Mark the individuals that nobody dominates: the front of rank 0, without the cost of the other fronts.

    While anyone is feasible, the infeasible are out; when nobody is, the front holds the least violating. All
    copies of a non-dominated point are kept: which of them is shown is the caller's choice.

    Args:
        points: Objectives, shape (n, m).
        violation: Sums of constraint violations, shape (n,).

    Returns:
        Shape (n,), True for the members of the front.

    Raises:
        ValueError: If an array has the wrong shape, a number that isn't finite, or a negative violation.
    """
    values, violations = _population(points, violation)
    front: Bools = violations == violations.min(initial=np.inf)
    if len(values):
        front[front] = moocore.is_nondominated(values[front], keep_weakly=True)
    return front


def crowding_distance(points: ArrayLike) -> Floats:
    """Measure how far the neighbours of each member of one front are apart.

    It is the sum over the objectives, each normalised over this front, of the difference between the two
    neighbours; the first and the last in an objective get infinity (Deb et al. 2002, section III-B). Cases
    that the paper leaves open:

    * Of several copies of a point, the first gets the distance that it would have alone and the others 0, so
      that copies go before anything else does.
    * One or two distinct points get infinity.
    * Points that are equal in one objective are sorted by the others, from the first to the last, so that
      exactly one point is the first and exactly one the last.
    * An objective that is the same for the whole front is left out.

    Args:
        points: Objectives of one front, shape (n, m).

    Returns:
        Shape (n,), from 0 to infinity; larger is lonelier, hence better.

    Raises:
        ValueError: If `points` is not a finite array of two dimensions.
    """
    values = _points(points)
    _, originals = np.unique(_lexicographic_place(values), return_index=True)
    total = np.zeros(len(originals))
    if len(originals) <= 2:
        total[:] = np.inf
    for column in normalise(values[originals]).T:
        if column.any():
            order = np.argsort(column, kind="stable")
            total[order[1:-1]] += column[order[2:]] - column[order[:-2]]
            total[order[[0, -1]]] = np.inf
    distance = np.zeros(len(values))
    distance[originals] = np.round(total, _DECIMALS)
    return distance


def nsga2_order(points: ArrayLike, violation: ArrayLike | None = None) -> Ints:
    """Order individuals from best to worst: by rank, then by crowding distance within their front.

    Args:
        points: Objectives, shape (n, m).
        violation: Sums of constraint violations, shape (n,).

    Returns:
        All n indices, best first.

    Raises:
        ValueError: If an array has the wrong shape, a number that isn't finite, or a negative violation.
    """
    values, violations = _population(points, violation)
    rank = ranks(values, violations)
    return np.lexsort((_lexicographic_place(values), -_crowding_by_front(values, rank), rank))


def nsga2_survivors(points: ArrayLike, k: int, violation: ArrayLike | None = None) -> Ints:
    """Choose the `k` best by NSGA-II: whole fronts first, the loneliest of the front that doesn't fit.

    With `k` of at least 2 m, the best value of every objective among the least violating survives.

    Args:
        points: Objectives, shape (n, m).
        k: How many may survive, 0 or more.
        violation: Sums of constraint violations, shape (n,).

    Returns:
        min(k, n) different indices, best first.

    Raises:
        ValueError: If an array has the wrong shape, a number that isn't finite, or a negative violation, or
            if `k` is negative.
    """
    _check_size(k)
    return nsga2_order(points, violation)[:k]


def tournament(points: ArrayLike, k: int, rng: np.random.Generator, violation: ArrayLike | None = None) -> Ints:
    """Choose `k` parents, each the better of two different individuals drawn at random.

    The better one has the smaller rank, or the same rank and the larger crowding distance (Deb et al.
    2002). A draw goes to the one that was drawn first, which is either of the two with equal probability.
    Individuals may win often; an only individual wins always.

    Args:
        points: Objectives, shape (n, m), with n of at least 1 unless `k` is 0.
        k: How many tournaments to hold, 0 or more; any number does.
        rng: Where the random draws come from: `2 k` integers, none for an only individual.
        violation: Sums of constraint violations, shape (n,).

    Returns:
        `k` indices, in the order of the tournaments.

    Raises:
        ValueError: If an array has the wrong shape, a number that isn't finite, or a negative violation, if
            `k` is negative, or if there is nobody to choose from.
    """
    _check_size(k)
    values, violations = _population(points, violation)
    n = len(values)
    if not n and k:
        raise ValueError("There is nobody to choose parents from: points has no rows.")
    if n <= 1:
        return np.zeros(k, dtype=np.int64)
    rank = ranks(values, violations)
    crowding = _crowding_by_front(values, rank)
    first = rng.integers(n, size=k)
    second = (first + rng.integers(1, n, size=k)) % n
    lonelier = (rank[second] == rank[first]) & (crowding[second] > crowding[first])
    return np.where((rank[second] < rank[first]) | lonelier, second, first)


def spea2_survivors(points: ArrayLike, k: int, violation: ArrayLike | None = None) -> Ints:
    """Choose the `k` best by the environmental selection of SPEA-2.

    Zitzler, Laumanns, Thiele, "SPEA2: Improving the Strength Pareto Evolutionary Algorithm", TIK-Report
    103, ETH Zürich, 2001. The strength of an individual is the number of those it dominates; its raw
    fitness is the sum of the strengths of those that dominate it; the distance to its floor(sqrt(n))-th
    nearest neighbour decides between equal raw fitness, where lonelier is better. If more than `k` are
    non-dominated, they are truncated: the one with the smallest distance to its nearest neighbour goes,
    ties being broken by the second smallest distance and so on, until `k` are left.

    Distances are Euclidean on normalised objectives. For the density they are normalised over all
    individuals, for the truncation over the non-dominated ones, so that a bad outlier doesn't flatten the
    front.

    Args:
        points: Objectives, shape (n, m).
        k: How many may survive, 0 or more.
        violation: Sums of constraint violations, shape (n,).

    Returns:
        min(k, n) different indices, best fitness first.

    Raises:
        ValueError: If an array has the wrong shape, a number that isn't finite, or a negative violation, or
            if `k` is negative.
    """
    _check_size(k)
    values, violations = _population(points, violation)
    raw = _raw_fitness(values, violations)
    place = _lexicographic_place(values)
    # The density 1 / (distance + 2) is below 1, so it only orders those of equal raw fitness, a whole number.
    order = np.lexsort((place, -_neighbour_distance(values), raw))
    front = np.flatnonzero(raw == 0)
    if k == 0 or len(front) <= k:
        return order[:k]
    kept = np.zeros(len(values), dtype=np.bool_)
    kept[front[_truncate(values[front], place[front], k)]] = True
    return order[kept[order]]


def hypervolume(points: ArrayLike, reference: ArrayLike) -> float:
    """Measure the volume that is dominated by the points and dominates the reference.

    Args:
        points: Objectives, shape (n, m), in any order; dominated points change nothing.
        reference: The worst values that count, shape (m,). A point that isn't better than it in every
            objective contributes nothing.

    Returns:
        The volume, in the product of the objectives' units; 0 without points.

    Raises:
        ValueError: If a shape is wrong or a number isn't finite.
    """
    values, bound = _bounded(points, reference)
    return float(moocore.hypervolume(values, ref=bound)) if len(values) else 0.0


def contributions(points: ArrayLike, reference: ArrayLike) -> Floats:
    """Measure what the hypervolume of the non-dominated points would lack without each; see `hypervolume`.

    Returns:
        The volumes, shape (n,); 0 for points that are dominated or occur more than once.

    Raises:
        ValueError: If a shape is wrong or a number isn't finite.
    """
    values, bound = _bounded(points, reference)
    return np.asarray(moocore.hv_contributions(values, ref=bound), dtype=np.float64) if len(values) else np.zeros(0)


def _bounded(points: ArrayLike, reference: ArrayLike) -> tuple[Floats, Floats]:
    values = _points(points)
    bound = np.asarray(reference, dtype=np.float64)
    if bound.ndim != 1 or not bound.size or not np.isfinite(bound).all():
        raise ValueError(f"The reference must be a list of finite numbers, not {reference!r}.")
    if len(values) and len(bound) != values.shape[1]:
        raise ValueError(f"The reference has {len(bound)} numbers for {values.shape[1]} objectives.")
    return values, bound


def _points(points: ArrayLike) -> Floats:
    """A checked copy, without negative zeros; an empty list counts as no rows."""
    # Adding 0 turns -0.0 into 0.0, so that equal numbers are equal bits.
    values: Floats = np.asarray(points, dtype=np.float64) + 0.0
    if values.shape == (0,):
        values = values.reshape(0, 1)
    if values.ndim != 2 or not values.shape[1]:
        raise ValueError(f"points must have the shape (n, m) with m of at least 1, not {values.shape}.")
    if not np.isfinite(values).all():
        rows = np.flatnonzero(~np.isfinite(values).all(axis=1))
        raise ValueError(f"points must be finite; row {rows[0]} is {values[rows[0]].tolist()}.")
    return values


def _population(points: ArrayLike, violation: ArrayLike | None) -> tuple[Floats, Floats]:
    values = _points(points)
    if violation is None:
        return values, np.zeros(len(values))
    violations: Floats = np.asarray(violation, dtype=np.float64)
    if violations.shape != (len(values),):
        raise ValueError(f"violation must have the shape ({len(values)},), not {violations.shape}.")
    if not (np.isfinite(violations) & (violations >= 0)).all():
        raise ValueError("violation must be finite and not negative.")
    return values, violations


def _check_size(k: int) -> None:
    if k < 0:
        raise ValueError(f"k must be 0 or more, not {k}.")


def _lexicographic_place(values: Floats) -> Ints:
    """Each row's place among the distinct rows in lexicographic order; equal rows share a place."""
    order = np.lexsort(values.T[::-1])
    differs = (values[order[1:]] != values[order[:-1]]).any(axis=1)
    place = np.zeros(len(values), dtype=np.int64)
    place[order[1:]] = np.cumsum(differs)
    return place


def _crowding_by_front(values: Floats, rank: Ints) -> Floats:
    crowding = np.zeros(len(values))
    for front in np.unique(rank):
        members = rank == front
        crowding[members] = crowding_distance(values[members])
    return crowding


def _distances(values: Floats) -> Floats:
    """Euclidean distances between normalised points, shape (n, n)."""
    squared = np.zeros((len(values), len(values)))
    for column in normalise(values).T:
        squared += (column[:, None] - column) ** 2
    distances: Floats = np.sqrt(squared)
    return distances.round(_DECIMALS)


def _raw_fitness(values: Floats, violations: Floats) -> Ints:
    no_worse = np.ones((len(values), len(values)), dtype=np.bool_)
    for column in values.T:
        no_worse &= column[:, None] <= column
    equally_feasible = violations[:, None] == violations
    dominates = (violations[:, None] < violations) | (equally_feasible & no_worse & ~no_worse.T)
    strength: Ints = dominates.sum(axis=1, dtype=np.int64)
    raw: Ints = strength @ dominates
    return raw


def _neighbour_distance(values: Floats) -> Floats:
    """The distance to the floor(sqrt(n))-th nearest neighbour; to the last one where there are fewer."""
    n = len(values)
    nth = min(math.isqrt(n), n - 1)
    if nth < 1:
        return np.zeros(n)
    # The point itself is at distance 0 and takes the place 0.
    return np.partition(_distances(values), nth, axis=1)[:, nth]


def _truncate(values: Floats, place: Ints, k: int) -> Ints:
    """The indices that are left after removing the most crowded point until `k` of at least 1 remain."""
    n = len(values)
    distances = _distances(values)
    np.fill_diagonal(distances, np.inf)
    neighbours = np.argsort(distances, axis=1)
    nearest = np.take_along_axis(distances, neighbours, axis=1)
    rows = np.arange(n)
    alive = np.ones(n, dtype=np.bool_)
    # Column of each row's nearest neighbour that is still alive; it only ever moves right.
    cursor = np.zeros(n, dtype=np.int64)
    for _ in range(n - k):
        closest = np.where(alive, nearest[rows, cursor], np.inf)
        # Copies of a point have the same distances: the last copy stands for all of them.
        tied = np.flatnonzero(closest == closest.min())[::-1]
        tied = tied[np.unique(place[tied], return_index=True)[1]]
        # Most ties end within a few neighbours, so look further only where they don't.
        width = 8
        while len(tied) > 1 and width < 4 * n:
            living = alive[neighbours[tied, :width]]
            seen = living.sum(axis=1).min()
            first = living & (living.cumsum(axis=1) <= seen)
            vectors = nearest[tied, :width][first].reshape(len(tied), seen)
            tied = tied[_lexicographic_least(vectors)]
            width *= 4
        alive[tied[-1]] = False
        while (stale := alive & ~alive[neighbours[rows, cursor]]).any():
            cursor[stale] += 1
    return np.flatnonzero(alive)


def _lexicographic_least(vectors: Floats) -> Ints:
    """The indices of the rows that are lexicographically smallest: several only if they are equal."""
    least = np.arange(len(vectors))
    while (differs := (vectors[least] != vectors[least[0]]).any(axis=0)).any():
        column = vectors[least, np.argmax(differs)]
        least = least[column == column.min()]
    return least
