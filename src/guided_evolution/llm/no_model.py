"""What stands in a model's place when there is none: children come from random edits, and nobody is asked."""

from __future__ import annotations

from collections.abc import Callable

from guided_evolution.errors import ModelError
from guided_evolution.llm import Reply, Request

RANDOM = "random"


class NoModel:
    """The baseline without a model: it marks children that random edits make, and can't be asked."""

    @property
    def name(self) -> str:
        """How it is called in the record."""
        return RANDOM

    @property
    def small(self) -> bool:
        """True: where it is one of several, it makes none of them a large one."""
        return True

    def price(self, tokens_in: int, tokens_out: int) -> float | None:
        """Always 0: nothing is asked."""
        return 0.0

    def unasked(self, individual: int) -> bool:
        """Always true."""
        return True

    async def ask(self, request: Request, on_text: Callable[[str], None] | None = None) -> Reply:
        """Refuses.

        Raises:
            ModelError: Always.
        """
        raise ModelError("--llm random stands for no model: there is nobody to ask.", permanent=True)

    async def close(self) -> None:
        """Does nothing: there is nothing to close."""
