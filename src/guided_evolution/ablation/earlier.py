"""A run as it was after some of its evaluations: what a smaller budget would have shown."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from guided_evolution.individual import Individual
from guided_evolution.rows import Call
from guided_evolution.run import Run
from guided_evolution.view.course import evaluated


class Earlier(Run):
    """The same record, without what came after a number of evaluations; open as long as the run itself is.

    What was found out later of a program that was there already, by a second evaluation, is known here too.
    """

    def __init__(self, run: Run, evaluations: int) -> None:
        """Cuts a run.

        Args:
            evaluations: Distinct programs that were scored, the seed program included; at least 1. A run that has no
                more stays whole.
        """
        self.folder, self._store, self._run = run.folder, run._store, run
        order = evaluated(run)
        self._later = {each.id for each in order[evaluations:]}
        self._moment = run.finished[order[evaluations - 1].id] if self._later else float("inf")

    @cached_property
    def individuals(self) -> list[Individual]:
        """Those that were finished by then, in the order of their ids."""
        if not self._later:
            return self._run.individuals
        finished = self._run.finished
        return [
            each
            for each in self._run.individuals
            # several may have been recorded at the same instant
            if finished.get(each.id, float("inf")) <= self._moment and not {each.id, each.twin} & self._later
        ]

    @cached_property
    def calls(self) -> list[Call]:
        """The questions that were answered by then."""
        return [call for call in self._run.calls if call.finished <= self._moment]

    @cached_property
    def spending(self) -> Mapping[str, float]:
        """Sums over these, under the names that `Store.spending` has."""
        paid = self.paid_calls
        return {
            "calls": len(paid),
            "tokens_in": sum(call.tokens_in or 0 for call in paid),
            "tokens_out": sum(call.tokens_out or 0 for call in paid),
            "usd": sum(call.usd or 0.0 for call in paid),
            "taken": len(self.calls) - len(paid),
        }

    @property
    def seconds(self) -> float:
        """Wall-clock seconds until then, pauses between sessions included but no longer than the run took."""
        return min(self._run.seconds, self._moment - self.created)
