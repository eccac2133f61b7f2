"""What may be concluded from a comparison, in words, and what not."""

from __future__ import annotations

from guided_evolution.ablation import statistics
from guided_evolution.ablation.results import Comparison


def shortage(seeds: int, comparisons: int) -> str:
    """Why as many seeds can't tell anything apart, and how many would do; empty where they can."""
    least = statistics.smallest_p(seeds, comparisons)
    if least <= statistics.LEVEL:
        return ""
    needed = statistics.pairs_needed(comparisons)
    if seeds == 1:
        return f"one seed can't tell anything apart; {needed} seeds would do"
    several = f" and {comparisons} comparisons" if comparisons > 1 else ""
    return f"with {seeds} seeds{several} p can't fall below {least:.2g}; {needed} seeds would do"


def sentence(found: Comparison, first: str) -> str:
    """What may be concluded from a comparison with the arm called `first`."""
    n, name = len(found.differences), found.measure.name
    mean = found.mean
    if mean is None:
        gaps = n - len(found.known)
        return (
            f"{found.arm}: {name} isn't compared with {first}; in {gaps} of {n} seeds one of the two found no program "
            "that satisfies the constraints."
        )
    if not any(found.known):
        where = "the one seed" if n == 1 else f"all {n} seeds"
        return f"{found.arm}: the same {name} as {first} in {where}: nothing tells them apart."
    unit = f" {found.measure.unit}" if found.measure.unit else ""
    head = f"{found.arm}: {name} {_amount(abs(mean))}{unit} {'lower' if mean < 0 else 'higher'} than {first}"
    if n == 1:
        return f"{head} in the one seed: {shortage(n, found.comparisons)}."
    assert found.corrected is not None
    within = f" (95 % interval {_signed(found.interval[0])} to {_signed(found.interval[1])})" if found.interval else ""
    worse = sum((each < 0) == found.measure.larger for each in found.known if each)
    after = " after Holm" if found.comparisons > 1 else ""
    head += f"{within}, worse in {worse} of {n} seeds, p = {found.corrected:.2g}{after}"
    if short := shortage(n, found.comparisons):
        return f"{head}: no conclusion is possible; {short}."
    if found.corrected <= statistics.LEVEL:
        return f"{head}: a difference, on this problem with these models at this budget; it says nothing of others."
    if found.detectable is None:
        return f"{head}: no conclusion."
    limit = f"only differences larger than about {_amount(found.detectable)}{unit} could be told apart"
    return f"{head}: no conclusion; with {n} seeds {limit}."


def _amount(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2g}"


def _signed(value: float) -> str:
    return f"{value:+,.0f}" if abs(value) >= 100 else f"{value:+.2g}"
