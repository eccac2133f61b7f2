"""What a run may spend, checked before spending."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from guided_evolution.errors import UsageError
from guided_evolution.llm import LLM, Priced, Reply, Request
from guided_evolution.settings import Settings

# English and code take about four characters a token; 3.5 errs on the dear side
CHARACTERS_PER_TOKEN = 3.5
# what a chat template adds to a prompt
_TEMPLATE_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Budget:
    """Caps of a run; None means no cap.

    Attributes:
        evaluations: Programs that are scored, the seed included.
        tokens: Model tokens, read and written.
        usd: Money; a model of unknown price can't be used with it.
        hours: Wall-clock time, over all sessions of the run.
    """

    evaluations: int | None = None
    tokens: int | None = None
    usd: float | None = None
    hours: float | None = None

    @classmethod
    def of(cls, settings: Settings) -> Budget:
        """The caps among a run's settings."""
        return cls(settings.max_evaluations, settings.max_tokens, settings.max_usd, settings.max_hours)

    def children(self, wanted: int, evaluated: int) -> int:
        """How many more children may be planned, when `evaluated` programs were scored."""
        return wanted if self.evaluations is None else max(0, min(wanted, self.evaluations - evaluated))

    def reached(self, spent: Mapping[str, float], hours: float) -> str:
        """Which cap on tokens, money or time is reached, in words; empty when none is."""
        if self.tokens is not None and spent["tokens_in"] + spent["tokens_out"] >= self.tokens:
            return f"max_tokens reached ({self.tokens:,})"
        if self.usd is not None and spent["usd"] >= self.usd:
            return f"max_usd reached ({self.usd:g})"
        if self.hours is not None and hours >= self.hours:
            return f"max_hours reached ({self.hours:g})"
        return ""


class Clock:
    """Wall-clock time of a run over all its sessions, immune to a clock that is set."""

    def __init__(self, before: float = 0.0) -> None:
        self._before = before
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        return self._before + time.monotonic() - self._start


def price_of(llm: LLM, tokens_in: int, tokens_out: int) -> float | None:
    """What a call of a model costs in US dollars; None when it is not known."""
    return llm.price(tokens_in, tokens_out) if isinstance(llm, Priced) else None


def require_price(settings: Settings, llm: LLM) -> None:
    """Makes sure that a cap on money can be kept.

    Raises:
        UsageError: When there is such a cap and the model's price is not known.
    """
    if settings.max_usd is not None and price_of(llm, 1000, 1000) is None:
        raise UsageError(f"--max-usd can't be kept with {llm.name}, whose price is not known; use --max-tokens.")


@dataclass(frozen=True, slots=True)
class _Held:
    tokens: int
    usd: float


class Ledger:
    """What is recorded, what is in flight, and whether one more question fits.

    A question in flight counts with an upper estimate: its prompt at 3.5 characters a token (or as dense as the
    densest prompt seen), and its whole token limit for the reply. Its end puts the truth in the place of the estimate;
    where a provider counts no tokens, the texts are counted by their characters.
    """

    def __init__(self, budget: Budget, spending: Callable[[], Mapping[str, float]]) -> None:
        self._budget = budget
        self._spending = spending
        self._held: dict[int, _Held] = {}
        self._number = 0
        self._per_character = 1.0 / CHARACTERS_PER_TOKEN

    @property
    def in_flight(self) -> int:
        """Questions that were reserved for and not settled."""
        return len(self._held)

    def lacking(self, llm: LLM, request: Request) -> str:
        """The cap on tokens or money that a question would go over, in words; empty when it fits."""
        need, spent = self._estimate(llm, request), self._spending()
        budget, held = self._budget, self._held.values()
        uncounted = math.ceil(spent["uncounted_in"] * self._per_character)
        uncounted += math.ceil(spent["uncounted_out"] / CHARACTERS_PER_TOKEN)
        tokens = spent["tokens_in"] + spent["tokens_out"] + uncounted + sum(each.tokens for each in held)
        if budget.tokens is not None and tokens + need.tokens > budget.tokens:
            return f"max_tokens reached ({budget.tokens:,}): the next call may take {need.tokens:,}"
        if budget.usd is not None and spent["usd"] + sum(each.usd for each in held) + need.usd > budget.usd:
            return f"max_usd reached ({budget.usd:g}): the next call may cost {need.usd:.2g}"
        return ""

    def reserve(self, llm: LLM, request: Request) -> int:
        """Holds what a question may take, and gives the number under which `settle` lets go of it."""
        self._number += 1
        self._held[self._number] = self._estimate(llm, request)
        return self._number

    def settle(self, number: int, request: Request, reply: Reply | None) -> None:
        """Lets go of a reservation; the reply, if there was one, must have been recorded."""
        del self._held[number]
        asked = len(request.system) + len(request.prompt)
        if reply is not None and reply.tokens_in is not None and asked >= 200:
            self._per_character = max(self._per_character, reply.tokens_in / asked)

    def _estimate(self, llm: LLM, request: Request) -> _Held:
        prompt = math.ceil((len(request.system) + len(request.prompt)) * self._per_character) + _TEMPLATE_TOKENS
        return _Held(prompt + request.max_tokens, price_of(llm, prompt, request.max_tokens) or 0.0)
