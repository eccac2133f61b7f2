"""Named random streams: every draw of a run comes from one, so that completion order never matters.

A stream is derived from the run's seed and the place where it is used (a purpose and some numbers), so there
is no state to store: the same place draws the same numbers in a fresh run, a resumed one and a replay.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def stream(seed: int, purpose: str, *place: int) -> np.random.Generator:
    """The random stream of one place in a run.

    Args:
        seed: The run's seed.
        purpose: What is drawn, e.g. "parents" or "child".
        place: Numbers that tell this place from others, e.g. generation and slot.
    """
    key = (zlib.crc32(purpose.encode()), *(number & 0xFFFFFFFF for number in place))
    return np.random.default_rng(np.random.SeedSequence(seed & 0xFFFFFFFFFFFFFFFF, spawn_key=key))


def weighted(rng: np.random.Generator, items: Sequence[T], weights: Sequence[float]) -> T:
    """One of the items, each as likely as its share of the weights; the weights are at least 0, and not all 0."""
    return items[int(rng.choice(len(items), p=np.array(weights) / sum(weights)))]


def choice(rng: np.random.Generator, items: Sequence[T]) -> T:
    """One of the items, all equally likely."""
    return items[int(rng.integers(len(items)))]
