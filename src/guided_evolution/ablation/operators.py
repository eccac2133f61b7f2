"""What each operator came to in each arm: does a part of the method change anything, and what does it cost?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from guided_evolution.run import Run
from guided_evolution.view.course import entered
from guided_evolution.view.tallies import breakdown, grouped


@dataclass(frozen=True, slots=True)
class Tally:
    """An operator's children over all runs of an arm; a child that was mated and then mutated counts for both.

    Attributes:
        counts: As of `view.breakdown`: `tried`, `asked`, `parsed`, `passed`, `scored`, `improved`, `reached`, `front`.
    """

    arm: str
    operator: str
    counts: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        """The tally as plain values."""
        return {"arm": self.arm, "operator": self.operator, **self.counts}


def tally(arm: str, runs: Sequence[Run]) -> list[Tally]:
    """The operators of an arm's runs, most tried first."""
    sums: dict[str, Counter[str]] = {}
    for run in runs:
        for operator, counts in grouped(breakdown(run, entered(run)), "operator").items():
            sums.setdefault(operator, Counter()).update(counts)
    ordered = sorted(sums.items(), key=lambda item: (-item[1]["tried"], item[0]))
    return [Tally(arm, operator, dict(counts)) for operator, counts in ordered]
