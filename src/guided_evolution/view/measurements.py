"""What was evaluated twice, and what came of it."""

from __future__ import annotations

from typing import Any

from guided_evolution.run import Run
from guided_evolution.verification import agree


def verified(run: Run, number: int) -> dict[str, Any] | None:
    """Both measurements of an individual that was evaluated again; None for any other.

    `agrees` says whether they gave the same scores, `first` are the scores of the first, `second` those of the second,
    or its `status` and `reason` where it failed.
    """
    pair = run.verifications.get(number)
    if pair is None:
        return None
    first, second = pair
    failed = {"status": second.status.value, "reason": second.reason}
    return {
        "agrees": agree(run.problem, first, second),
        "first": dict(first.scores),
        "second": dict(second.scores) if second.ok else failed,
    }


def verified_counts(run: Run) -> dict[str, int]:
    """How many `programs` were evaluated twice, and how many of them `disagreed`."""
    pairs = run.verifications.values()
    return {"programs": len(pairs), "disagreed": sum(not agree(run.problem, *pair) for pair in pairs)}
