"""Which model makes a child: the one model of most runs, or one of an ensemble, by weights or by experience."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from guided_evolution.bandit import Arm, shares
from guided_evolution.experience import due, earned
from guided_evolution.individual import Individual
from guided_evolution.llm import LLM
from guided_evolution.llm.ensemble import Ensemble
from guided_evolution.llm.no_model import NoModel
from guided_evolution.problem import Problem
from guided_evolution.randomness import stream
from guided_evolution.settings import Settings
from guided_evolution.store import Store

ADAPTIVE = "adaptive"
_CHILD = "model"


@dataclass(frozen=True, slots=True)
class Experience:
    """What a model's children came to.

    Attributes:
        tried: Children it was asked for; those without a usable reply included.
        earned: Those with a new program that improved on their first parent (better in one objective, worse in none)
            or were on the front at the end of their generation.
        seconds: Time that asking for them took.
        usd: What their questions cost; None when a price is not known.
    """

    tried: int = 0
    earned: int = 0
    seconds: float = 0.0
    usd: float | None = 0.0


class ModelChoice:
    """Chooses the model of each child, the same one in a resumed run.

    With `llm_choice` "adaptive", the shares of an ensemble's members are settled once for each generation, from what is
    recorded of the generations before it, and are kept in the record under "models <generation>". A child's own random
    stream then draws among them, so that the order in which children are finished decides nothing.
    """

    def __init__(self, problem: Problem, settings: Settings, store: Store, llm: LLM) -> None:
        self._problem = problem
        self._settings = settings
        self._store = store
        self._llm = llm
        self._shares: list[float] | None = None
        members = [model for model, _ in llm.members] if isinstance(llm, Ensemble) else []
        self._names = _distinct([model.name for model in members])
        self._unasked = {name for name, model in zip(self._names, members, strict=True) if isinstance(model, NoModel)}

    def begin(self, generation: int, individuals: Mapping[int, Individual], front: Collection[Individual]) -> None:
        """Settles the shares of a generation.

        Args:
            individuals: All of the run before this generation, with their exchanges.
            front: The non-dominated ones among them.
        """
        if self._settings.llm_choice != ADAPTIVE or not isinstance(self._llm, Ensemble):
            return
        document = self._store.meta(f"models {generation}")
        if document is None or [row["model"] for row in document["models"]] != self._names:
            document = self._settled(generation, individuals, {each.id for each in front})
            self._store.put_meta(**{f"models {generation}": document})
        self._shares = [row["share"] for row in document["models"]]

    def model(self, purpose: str, *place: int) -> LLM:
        """The model for one place in the run, which leads the whole conversation there."""
        if not isinstance(self._llm, Ensemble):
            return self._llm
        return self._llm.draw(stream(self._settings.seed, purpose, *place), self._shares)

    def teacher(self, purpose: str, *place: int) -> LLM:
        """The model that is asked for a lesson: as `model`, among those that can be asked."""
        if not isinstance(self._llm, Ensemble):
            return self._llm
        shares = self._shares or [weight for _, weight in self._llm.members]
        pairs = zip(shares, self._llm.members, strict=True)
        asked = [0.0 if isinstance(model, NoModel) else share for share, (model, _) in pairs]
        return self._llm.draw(stream(self._settings.seed, purpose, *place), asked)

    def child(self, number: int) -> LLM:
        """The model that makes a child of the generation that was begun last."""
        return self.model(_CHILD, number)

    def _settled(
        self, generation: int, individuals: Mapping[int, Individual], front: Collection[int]
    ) -> dict[str, Any]:
        """The shares, and what they were computed from."""
        assert isinstance(self._llm, Ensemble)
        known = self._experience(generation, individuals, front)
        currency = _currency(known.values())
        arms = [
            Arm(weight, known[name].tried, known[name].earned, getattr(known[name], currency))
            for name, (_, weight) in zip(self._names, self._llm.members, strict=True)
        ]
        found = shares(arms, stream(self._settings.seed, "shares", generation))
        rows = [
            {
                "model": name,
                "weight": arm.weight,
                "tried": known[name].tried,
                "earned": known[name].earned,
                "seconds": known[name].seconds,
                "usd": known[name].usd,
                "share": share,
            }
            for name, arm, share in zip(self._names, arms, found, strict=True)
        ]
        # without generations some are still on their way
        late = [number for number in self._due(generation) if number not in individuals]
        return {"cost": currency, "models": rows, "late": late}

    def _due(self, generation: int) -> list[int]:
        before = self._store.meta(f"models {generation - 1}") or {}
        return due(self._settings, generation, before.get("late", []))

    def _experience(
        self, generation: int, individuals: Mapping[int, Individual], front: Collection[int]
    ) -> dict[str, Experience]:
        """What was known a generation ago, and what the last generation's children add to it."""
        known = {name: Experience() for name in self._names}
        before = self._store.meta(f"models {generation - 1}")
        if before is None:
            return known
        rows = {row["model"]: row for row in before["models"]}
        for name in known.keys() & rows.keys():
            row = rows[name]
            known[name] = Experience(row["tried"], row["earned"], row["seconds"], row["usd"])
        for child in (individuals[number] for number in self._due(generation) if number in individuals):
            if child.origin.parents:
                name = self._asked(child)
                if name in known and (child.origin.exchanges or name in self._unasked):
                    known[name] = self._with(known[name], child, individuals, front)
        return known

    def _asked(self, child: Individual) -> str:
        """Which model made a child: its stream draws again, with the shares of its generation."""
        rows = self._store.meta(f"models {child.generation}")["models"]
        draw = stream(self._settings.seed, _CHILD, child.id).choice(len(rows), p=[row["share"] for row in rows])
        return str(rows[int(draw)]["model"])

    def _with(
        self, known: Experience, child: Individual, individuals: Mapping[int, Individual], front: Collection[int]
    ) -> Experience:
        asked = child.origin.exchanges
        prices = [exchange.usd for exchange in asked]
        paid = [price for price in prices if price is not None]
        return replace(
            known,
            tried=known.tried + 1,
            earned=known.earned + earned(self._problem, child, individuals, front),
            seconds=known.seconds + sum(exchange.seconds for exchange in asked),
            usd=None if known.usd is None or len(paid) < len(prices) else known.usd + sum(paid),
        )


def _currency(known: Collection[Experience]) -> str:
    """Money where every price is known and something was paid, else time."""
    prices = [each.usd for each in known]
    return "usd" if None not in prices and any(prices) else "seconds"


def _distinct(names: list[str]) -> list[str]:
    """The names; one that occurred before gets a number."""
    seen: Counter[str] = Counter()
    found = []
    for name in names:
        seen[name] += 1
        found.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return found
