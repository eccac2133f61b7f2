"""What the rows of a run's record hold."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from functools import lru_cache

from guided_evolution.curves import PartialResult
from guided_evolution.individual import Exchange, Outcome, Status, Step


@dataclass(frozen=True, slots=True)
class Call:
    """A question to the model without its texts: what it cost, and when.

    Attributes:
        individual: The child it was asked for; for a lesson, the elite that teaches.
        finished: When its answer was recorded, in seconds since the epoch.
        taken_from: The run whose record the answer was taken from; empty when it was asked here.
    """

    individual: int
    turn: int
    purpose: str
    model: str
    tokens_in: int | None
    tokens_out: int | None
    usd: float | None
    seconds: float
    verdict: str
    finished: float
    taken_from: str


@dataclass(frozen=True, slots=True)
class Asked:
    """A stored exchange, and whether its reply was cut."""

    exchange: Exchange
    cut: bool


def outcome_of(row: sqlite3.Row) -> Outcome:
    """The outcome in a row."""
    return Outcome(
        status=Status(row["status"]),
        reason=row["reason"],
        scores=json.loads(row["scores"]),
        metrics=json.loads(row["metrics"]) if row["metrics"] != "{}" else {},
        feedback=row["feedback"],
        log_tail=row["log_tail"],
        seconds=row["seconds"],
        peak_mb=row["peak_mb"],
        taken_from=row["taken_from"],
    )


def partial_of(row: sqlite3.Row) -> PartialResult:
    """The partial result in a row."""
    return PartialResult(row["step"], row["seconds"], json.loads(row["scores"]))


@lru_cache(maxsize=1024)
def steps_of(text: str) -> tuple[Step, ...]:
    """The steps that a row holds as text."""
    return tuple(Step(**step) for step in json.loads(text))


def exchange_of(row: sqlite3.Row) -> Exchange:
    """The exchange in a row."""
    return Exchange(**{name: row[name] for name in Exchange.__dataclass_fields__})
