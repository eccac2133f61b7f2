"""What paired differences over seeds say, and what they can't: intervals, an exact test, effect size, correction."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
LEVEL = 0.05
RESAMPLES = 10_000
_MOST_EXACT = 12
_SAMPLED = 100_000


def bootstrap_interval(values: ArrayLike, rng: np.random.Generator, level: float = LEVEL) -> tuple[float, float] | None:
    """The bootstrap interval of the mean over seeds; None for fewer than two.

    The percentile interval is too narrow for few seeds; its percentiles are moved outwards as far as Student's t lies
    outside the normal distribution (Hesterberg, "What Teachers Should Know About the Bootstrap", The American
    Statistician 69, 2015, section 3.3). It can't reach beyond the smallest and largest value.

    Args:
        values: One number per seed, shape (n,).
        rng: Where the resamples are drawn from.
        level: The share of cases in which it may miss the mean.
    """
    sample = np.asarray(values, dtype=float)
    if len(sample) < 2:
        return None
    low, high = bootstrap_band(sample[:, None], rng, level)
    return float(low[0]), float(high[0])


def bootstrap_band(values: ArrayLike, rng: np.random.Generator, level: float = LEVEL) -> tuple[Floats, Floats]:
    """The bootstrap interval of each column's mean, as `bootstrap_interval` with the same resamples for all columns.

    Args:
        values: One row per seed, at least two, shape (n, m).
        rng: Where the resamples are drawn from.
        level: The share of cases in which one column's interval may miss its mean; the band as a whole misses more.

    Returns:
        The lower and the upper ends, each of shape (m,).
    """
    table = np.asarray(values, dtype=float)
    n, m = table.shape
    weights = rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES) / n
    tail = NormalDist().cdf(-math.sqrt(n / (n - 1)) * student_quantile(1 - level / 2, n - 1))
    ends = np.empty((2, m))
    for column in range(m):
        if column and np.array_equal(table[:, column], table[:, column - 1]):
            ends[:, column] = ends[:, column - 1]  # curves stand still most of the time
        else:
            ends[:, column] = np.quantile(weights @ table[:, column], [tail, 1 - tail])
    return ends[0], ends[1]


def student_quantile(share: float, degrees: int) -> float:
    """The quantile of Student's t distribution, for a share of at least one half and whole degrees of freedom."""
    low, high = 0.0, 1.0
    while student_cdf(high, degrees) < share:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if student_cdf(middle, degrees) < share else (low, middle)
    return high


def student_cdf(t: float, degrees: int) -> float:
    """Student's t distribution below t of at least 0 (Abramowitz and Stegun, 26.7.3 and 26.7.4)."""
    angle = math.atan(t / math.sqrt(degrees))
    cosine, sine = math.cos(angle), math.sin(angle)
    odd = degrees % 2
    term = cosine if odd else 1.0
    total = 0.0 if degrees == 1 else term
    for k in range(3 if odd else 2, degrees - 1, 2):
        term *= cosine * cosine * (k - 1) / k
        total += term
    inside = 2 / math.pi * (angle + sine * total) if odd else sine * total
    return 0.5 + inside / 2


def sign_flip_p(differences: ArrayLike, rng: np.random.Generator) -> float:
    """The two-sided p of the sign-flip permutation test that paired differences have the mean 0.

    Up to 12 pairs all 2^n flips are tried; beyond, 100,000 drawn ones and the observed one (Phipson and Smyth,
    Statistical Applications in Genetics and Molecular Biology 9, 2010).
    """
    values = np.asarray(differences, dtype=float)
    flips, exact = _flips(len(values), rng)
    sums = np.abs(flips @ values)
    observed = abs(float(values.sum()))
    count = int((sums >= observed - 1e-12 * max(1.0, float(np.abs(values).sum()))).sum())
    return count / len(flips) if exact else (count + 1) / (len(flips) + 1)


def _flips(n: int, rng: np.random.Generator) -> tuple[Floats, bool]:
    if n <= _MOST_EXACT:
        return np.array(list(itertools.product((1.0, -1.0), repeat=n))).reshape(2**n, n), True
    return rng.choice((1.0, -1.0), size=(_SAMPLED, n)), False


def smallest_p(pairs: int, comparisons: int = 1) -> float:
    """The smallest p that the exact test can reach, after Holm's correction of the smallest of several."""
    return min(1.0, comparisons * 2.0 ** (1 - pairs)) if pairs else 1.0


def pairs_needed(comparisons: int = 1, level: float = LEVEL) -> int:
    """The fewest seeds with which any difference at all could be told apart."""
    return next(n for n in itertools.count(1) if smallest_p(n, comparisons) <= level)


def holm(ps: Sequence[float]) -> list[float]:
    """The p values after Holm's step-down correction (Scandinavian Journal of Statistics 6, 1979), in their order."""
    order = sorted(range(len(ps)), key=lambda index: ps[index])
    corrected, largest = [0.0] * len(ps), 0.0
    for place, index in enumerate(order):
        largest = max(largest, min(1.0, (len(ps) - place) * ps[index]))
        corrected[index] = largest
    return corrected


def rank_biserial(differences: ArrayLike) -> float:
    """The matched-pairs rank-biserial correlation (Kerby, Comprehensive Psychology 3, 2014), from -1 to 1.

    The ranks of the positive differences' sizes less those of the negative ones, as a share of all; pairs without a
    difference are left out, and 0 is given where no pair differs.
    """
    values = np.asarray(differences, dtype=float)
    values = values[values != 0]
    if not len(values):
        return 0.0
    sizes = np.abs(values)
    ranks = np.array([(sizes < size).sum() + ((sizes == size).sum() + 1) / 2 for size in sizes])
    return float((ranks * np.sign(values)).sum() / ranks.sum())


def detectable(differences: ArrayLike, comparisons: int = 1, level: float = LEVEL) -> float | None:
    """The size from which a mean difference, scattered as these are, would be told apart from none.

    The sign-flip test rejects a shift d of the residuals r when few flips s have |mean(s (r + d))| >= d; with c the
    mean of s and e that of s r, one has until d is max(e / (1 - c), -e / (1 + c)). For up to 12 pairs; None beyond, and
    where no size would do.
    """
    values = np.asarray(differences, dtype=float)
    n = len(values)
    if n > _MOST_EXACT or smallest_p(n, comparisons) > level:
        return None
    flips, _ = _flips(n, np.random.default_rng(0))
    flips = flips[np.abs(flips.sum(axis=1)) < n]
    c, e = flips.mean(axis=1), flips @ (values - values.mean()) / n
    limits = np.sort(np.maximum(e / (1 - c), -e / (1 + c)))[::-1]
    allowed = math.floor(level / comparisons * 2**n) - 2  # the flips of all or none always count
    return float(max(0.0, limits[allowed])) if allowed < len(limits) else 0.0
