"""A run's recorded exchanges as a model: it answers what was asked before, and says so when it was not."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable
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

    def __init__(self, name: str, recorded: Iterable[Recorded], *, small: bool) -> None:
        """Gets ready to answer.

        Args:
            name: How it is called in the record, e.g. "replay:runs/one".
            recorded: The exchanges; the same prompt may occur several times.
            small: Whether the recorded model was treated as a small one; it decides on what is asked.
        """
        self._name = name
        self._small = small
        self._exact: dict[object, list[Recorded]] = defaultdict(list)
        self._alike: dict[object, list[Recorded]] = defaultdict(list)
        self._served: set[tuple[int, int]] = set()
        for each in sorted(recorded, key=lambda one: (one.individual, one.turn)):
            call = each.exchange
            self._exact[call.system, call.prompt, call.temperature, call.max_tokens].append(each)
            self._alike[call.prompt].append(each)

    @property
    def name(self) -> str:
        """How the model is called in the record."""
        return self._name

    @property
    def small(self) -> bool:
        """Whether the recorded model was treated as a small one."""
        return self._small

    async def ask(self, request: Request, on_text: Callable[[str], None] | None = None) -> Reply:
        """Answers with a reply that was recorded for this prompt.

        One with the same system message, temperature and token limit goes before others, then one of the same child;
        several are given in the order of their individuals, and from the first again when all were given.

        Raises:
            ModelError: When there is none; it is permanent, and names the child.
        """
        begun = time.monotonic()
        exact = (request.system, request.prompt, request.temperature, request.max_tokens)
        found = self._exact.get(exact) or self._alike.get(request.prompt)
        if not found:
            child = "" if request.individual is None else f" of individual {request.individual}"
            raise ModelError(
                f"{self._name} has no reply to this prompt ({request.purpose}{child}): "
                "the problem, its prompts or the options differ from the recorded run's.",
                permanent=True,
            )
        chosen = self._choose(found, request.individual)
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

    def _choose(self, found: list[Recorded], individual: int | None) -> Recorded:
        fresh = [each for each in found if (each.individual, each.turn) not in self._served]
        if not fresh:
            self._served -= {(each.individual, each.turn) for each in found}
            fresh = found
        own = [each for each in fresh if each.individual == individual]
        chosen = (own or fresh)[0]
        self._served.add((chosen.individual, chosen.turn))
        return chosen
