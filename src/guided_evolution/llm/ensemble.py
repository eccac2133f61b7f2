"""Several models in one run: each child is made by one of them, drawn by their weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from guided_evolution.errors import UsageError
from guided_evolution.llm import LLM, Opening, Priced, Reply, Request


class Ensemble:
    """Models with weights; `draw` gives the one that makes a child."""

    def __init__(self, members: Sequence[tuple[LLM, float]]) -> None:
        self.members = tuple(members)

    @property
    def name(self) -> str:
        """The members' names, joined by a plus."""
        return " + ".join(model.name for model, _ in self.members)

    @property
    def small(self) -> bool:
        """True when every member is small."""
        return all(model.small for model, _ in self.members)

    def price(self, tokens_in: int, tokens_out: int) -> float | None:
        """The dearest member's price; None when one is not known."""
        prices = [
            model.price(tokens_in, tokens_out) if isinstance(model, Priced) else None for model, _ in self.members
        ]
        known = [price for price in prices if price is not None]
        return max(known) if len(known) == len(prices) else None

    def draw(self, rng: np.random.Generator, shares: Sequence[float] | None = None) -> LLM:
        """One member, with the probability that its share gives it; None takes the weights."""
        weights = np.array([weight for _, weight in self.members] if shares is None else shares)
        return self.members[int(rng.choice(len(weights), p=weights / weights.sum()))][0]

    async def ask(self, request: Request, on_text: Callable[[str], None] | None = None) -> Reply:
        """Asks the first member."""
        return await self.members[0][0].ask(request, on_text)

    async def open(self) -> None:
        """Opens every member that takes a while."""
        for model, _ in self.members:
            if isinstance(model, Opening):
                await model.open()

    async def close(self) -> None:
        """Closes every member."""
        for model, _ in self.members:
            await model.close()


def split_weight(spec: str) -> tuple[str, float]:
    """A specification and its weight: "local=2" is ("local", 2); without a number after the last "=" it is 1.

    Raises:
        UsageError: When the weight is not positive and finite.
    """
    head, mark, tail = spec.rpartition("=")
    try:
        weight = float(tail) if mark else 1.0
    except ValueError:
        return spec, 1.0
    if not mark:
        return spec, 1.0
    if not 0 < weight < math.inf:
        raise UsageError(f"--llm {spec!r}: a weight must be positive.")
    return head, weight
