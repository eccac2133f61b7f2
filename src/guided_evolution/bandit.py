"""Which of several models deserves the next children: Thompson sampling on what each earned for what it cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_DRAWS = 10_000


@dataclass(frozen=True, slots=True)
class Arm:
    """What is known of one model.

    Attributes:
        weight: How likely it is the best before anything is known, relative to the others; positive.
        tried: Children it made or failed to make.
        earned: Those of them that were worth having, at most `tried`.
        cost: What all its tries took, in any unit that is the same for all arms.
    """

    weight: float
    tried: int = 0
    earned: int = 0
    cost: float = 0.0


def shares(arms: Sequence[Arm], rng: np.random.Generator) -> list[float]:
    """The share of the next children that each arm gets: the probability that it is the best; positive, sum 1.

    Each arm's rate of success has a Beta(1 + earned, 1 + failed) posterior, and the best arm is the one with the
    largest rate for its cost. A try uses up two things: a place among the children, which is worth the same for every
    arm, and what it takes, in units of the mean over the arms; the cost is their sum. So a model that costs next to
    nothing is not taken for its price alone. An untried arm counts with the mean.

    The probability that an arm is the best is counted over draws from the posteriors and multiplied by its weight: that
    is the posterior under a prior in which the weights are the odds of being the best. Without any experience the
    shares are the weights.

    Choosing with this probability is the rule of W. R. Thompson, Biometrika 25 (1933) 285-294; by rate over cost, of
    Xia, Li, Qin, Yu and Liu, IJCAI 2015, 3960-3966, here with a sum of two costs. One set of shares for a whole
    generation is a delayed update, which the rule bears well: Chapelle and Li, NIPS 2011.
    """
    weights = np.array([arm.weight for arm in arms], dtype=float)
    if any(arm.tried for arm in arms):
        mean = float(np.mean([arm.cost / arm.tried for arm in arms if arm.tried])) or 1.0
        costs = [1 + (arm.cost / arm.tried / mean if arm.tried else 1.0) for arm in arms]
        rates = [rng.beta(1 + arm.earned, 1 + arm.tried - arm.earned, _DRAWS) for arm in arms]
        best = np.argmax(np.array(rates) / np.array(costs)[:, np.newaxis], axis=0)
        # one more than was counted, so that no arm is ever given up for good
        weights = weights * (np.bincount(best, minlength=len(arms)) + 1)
    return [float(share) for share in weights / weights.sum()]
