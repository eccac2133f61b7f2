"""What a run may spend, checked before spending."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from guided_evolution.settings import Settings


@dataclass(frozen=True, slots=True)
class Budget:
    """Caps of a run; None means no cap.

    Attributes:
        evaluations: Programs that are scored, the seed included.
        tokens: Model tokens, read and written.
        usd: Money; calls of unknown price count as nothing.
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
