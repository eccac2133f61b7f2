"""The record of one try: where an individual came from, what was asked, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any

from guided_evolution.genome import Genome


class Status(StrEnum):
    """What became of an individual. A failure is a status, never a score."""

    PROPOSED = "proposed"
    RUNNING = "running"
    OK = "ok"
    REJECTED = "rejected"
    CRASHED = "crashed"
    TIMED_OUT = "timed_out"
    OUT_OF_MEMORY = "out_of_memory"
    PRUNED = "pruned"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one evaluation gave.

    Attributes:
        status: OK only when every objective is a finite number.
        reason: One line that says why it failed; empty when it did not.
        scores: Objective name to value, as the evaluator returned it; empty unless OK.
        metrics: Further finite numbers the evaluator returned.
        feedback: Text of the evaluator's that may be shown to the model.
        log_tail: The last part of what the candidate printed.
        seconds: Wall time of the worker process.
        peak_mb: Largest resident memory of its process tree, in MiB.
        taken_from: The run whose record it was taken from; empty when it was measured in its own run.
    """

    status: Status
    reason: str = ""
    scores: Mapping[str, float] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    feedback: str = ""
    log_tail: str = ""
    seconds: float = 0.0
    peak_mb: float = 0.0
    taken_from: str = ""

    @property
    def ok(self) -> bool:
        """True when the individual was scored and may take part in selection."""
        return self.status is Status.OK

    def to_json(self) -> dict[str, Any]:
        """The outcome as plain values."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {**values, "status": str(self.status), "scores": dict(self.scores), "metrics": dict(self.metrics)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Outcome:
        """The outcome that `to_json` described, also after a trip through JSON."""
        return cls(**{**document, "status": Status(document["status"])})


@dataclass(frozen=True, slots=True)
class Exchange:
    """One question to a language model and its answer, word for word.

    Attributes:
        purpose: "mutate", "mate", "distil", "apply" or "repair".
        tokens_in: Prompt tokens, or None when the provider did not say.
        tokens_out: Reply tokens, or None when the provider did not say.
        usd: Price in US dollars; None when it is not known, 0 for a local model.
        verdict: Empty when the reply was used, else why it was not.
        tokens_cached: Those of the prompt tokens that the provider found in its cache; None when it named none.
        taken_from: The run whose record the answer was taken from: tokens, money and time were spent there. Empty when
            it was asked in its own run.
    """

    purpose: str
    model: str
    prompt: str
    reply: str
    system: str = ""
    reasoning: str = ""
    tokens_in: int | None = None
    tokens_out: int | None = None
    usd: float | None = None
    seconds: float = 0.0
    temperature: float | None = None
    max_tokens: int | None = None
    verdict: str = ""
    tokens_cached: int | None = None
    taken_from: str = ""


PASSED_OVER = "passed over: another draft was evaluated"
"""The verdict on replies that were usable, in a draft that did not become the child."""


SWAP = "swap"
"""The category of a mating that took the partner's block as it is."""


@dataclass(frozen=True, slots=True)
class Step:
    """One operator's work on the way to a child: a child that was mated and then mutated has two.

    Attributes:
        operator: "mutate", "eot" or "mate"; "random" for random edits, which ask no model.
        block: The block that was rewritten.
        category: A mutation's category, or the mating template, `SWAP` where the partner's block was taken as it is;
            with Evolution of Thought the teacher's, where its move was applied; empty for random edits.
        character: "plain", "expert", "magoo" or "scientist"; empty where none speaks.
        move: The concrete move that the prompt carried, or the random edits; empty when the question was open.
        lesson: Evolution of Thought only: the insight that was applied, in the model's words.
        teacher: Evolution of Thought only: the id of the elite that taught.
    """

    operator: str
    block: str
    category: str = ""
    character: str = ""
    move: str = ""
    lesson: str = ""
    teacher: int | None = None


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an individual comes from.

    Attributes:
        parents: Ids; the first is the one whose program was changed. Empty for the seed.
        steps: What was done to it, in order; empty for the seed.
        exchanges: Every question asked on the way, the ones that led nowhere included.
    """

    parents: tuple[int, ...] = ()
    steps: tuple[Step, ...] = ()
    exchanges: tuple[Exchange, ...] = ()

    @property
    def operator(self) -> str:
        """The steps' operators joined by "+"; "seed" for the seed, "none" where every question was refused."""
        return "+".join(step.operator for step in self.steps) or ("none" if self.parents else "seed")

    def _last(self, name: str) -> str:
        return next((str(value) for step in reversed(self.steps) if (value := getattr(step, name))), "")

    @property
    def block(self) -> str:
        """The block that the last step rewrote; empty for the seed."""
        return self._last("block")

    @property
    def category(self) -> str:
        """The last category that was used; empty where there is none."""
        return self._last("category")

    @property
    def character(self) -> str:
        """The last character that spoke; empty where there is none."""
        return self._last("character")

    @property
    def lesson(self) -> str:
        """The lesson that Evolution of Thought applied; empty where there is none."""
        return self._last("lesson")


@dataclass(frozen=True, slots=True)
class Individual:
    """One program of a run.

    Attributes:
        id: Number within the run, in the order of planning; the seed is 0.
        generation: 0 for the seed and the initial population.
        genome: The whole program; for a rejected proposal, the parent's.
        outcome: None until it is evaluated.
        twin: The id of the earlier individual with the same program, whose outcome this one inherited.
    """

    id: int
    generation: int
    genome: Genome
    origin: Origin = Origin()
    outcome: Outcome | None = None
    twin: int | None = None

    @property
    def status(self) -> Status:
        """The outcome's status, or PROPOSED while there is none."""
        return Status.PROPOSED if self.outcome is None else self.outcome.status

    @property
    def ok(self) -> bool:
        """True when it was scored and may take part in selection."""
        return self.outcome is not None and self.outcome.ok

    @property
    def scores(self) -> Mapping[str, float]:
        """Objective name to value; empty unless the status is OK."""
        return {} if self.outcome is None else self.outcome.scores

    def _repr_html_(self) -> str:
        from guided_evolution.notebook import individual_html

        return individual_html(self)
