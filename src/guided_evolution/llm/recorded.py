"""A run's recorded exchanges as a model: it answers what was asked before, and says so when it was not."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from guided_evolution.errors import ModelError
from guided_evolution.individual import Exchange
from guided_evolution.llm import Reply, Request


@dataclass(frozen=True, slots=True)
class Recorded:
    """One exchange of a record.

    Attributes:
        individual: The child, or the teacher of a lesson, that it was made for.
        turn: Its place among that one's exchanges; negative for a lesson.
        cut: Whether its reply was cut.
    """

    individual: int
    turn: int
    exchange: Exchange
    cut: bool = False


class RecordedLLM:
    """Answers a prompt with the reply that a run recorded for it, and costs nothing."""

    def __init__(
        self,
        name: str,
        recorded: Iterable[Recorded],
        *,
        small: bool,
        in_place: bool = False,
        unasked: Collection[int] = (),
    ) -> None:
        """Gets ready to answer.

        Args:
            name: How it is called in the record, e.g. "replay:runs/one".
            recorded: The exchanges; the same prompt may occur several times.
            small: Whether the recorded model was treated as a small one; it decides on what is asked.
            in_place: Give each child its own replies in their order, also when it is asked in other words now.
            unasked: The individuals that random edits made.
        """
        self._in_place = in_place
        self._unasked = frozenset(unasked)
        self._own: dict[object, list[Recorded]] = defaultdict(list)
        self._name = name
        self._small = small
        self._exact: dict[object, list[Recorded]] = defaultdict(list)
        self._alike: dict[object, list[Recorded]] = defaultdict(list)
        self._served: set[tuple[int, int]] = set()
        for each in sorted(recorded, key=lambda one: (one.individual, one.turn)):
            call = each.exchange
            self._exact[call.system, call.prompt, call.temperature, call.max_tokens].append(each)
            self._alike[call.prompt].append(each)
            self._own[each.individual, call.purpose].append(each)

    @property
    def name(self) -> str:
        """How the model is called in the record."""
        return self._name

    @property
    def small(self) -> bool:
        """Whether the recorded model was treated as a small one."""
        return self._small

    def unasked(self, individual: int) -> bool:
        """Whether random edits made the individual of this id in the recorded run, so that they do again."""
        return individual in self._unasked

    async def ask(self, request: Request, on_text: Callable[[str], None] | None = None) -> Reply:
        """Answers with a reply that was recorded for this prompt.

        One with the same system message, temperature and token limit goes before others, then one of the same child;
        several are given in the order of their individuals, and from the first again when all were given.

        Raises:
            ModelError: When there is none; it is permanent, and names the child.
        """
        begun = time.monotonic()
        chosen = self._next_own(request) if self._in_place else self._any(request)
        if chosen is None:
            child = "" if request.individual is None else f" of individual {request.individual}"
            raise ModelError(
                f"{self._name} has no reply to this prompt ({request.purpose}{child}): "
                "the problem, its prompts or the options differ from the recorded run's.",
                permanent=True,
            )
        self._served.add((chosen.individual, chosen.turn))
        call = chosen.exchange
        if on_text is not None and call.reply:
            on_text(call.reply)
        return Reply(
            text=call.reply,
            model=call.model,
            reasoning=call.reasoning,
            tokens_in=call.tokens_in,
            tokens_out=call.tokens_out,
            usd=0.0,
            seconds=time.monotonic() - begun,
            cut=chosen.cut,
        )

    async def close(self) -> None:
        """Does nothing: a record that was read holds nothing."""

    def _any(self, request: Request) -> Recorded | None:
        exact = (request.system, request.prompt, request.temperature, request.max_tokens)
        found = self._exact.get(exact) or self._alike.get(request.prompt)
        if not found:
            return None
        fresh = self._fresh(found)
        if not fresh:
            self._served -= {(each.individual, each.turn) for each in found}
            fresh = found
        return next((each for each in fresh if each.individual == request.individual), fresh[0])

    def _next_own(self, request: Request) -> Recorded | None:
        fresh = self._fresh(self._own.get((request.individual, request.purpose), []))
        # an elite's lessons are asked side by side: the same words go before the order
        return next((each for each in fresh if each.exchange.prompt == request.prompt), next(iter(fresh), None))

    def _fresh(self, found: Iterable[Recorded]) -> list[Recorded]:
        return [each for each in found if (each.individual, each.turn) not in self._served]
