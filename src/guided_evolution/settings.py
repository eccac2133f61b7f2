"""The options of a run: packaged defaults, then the problem's `[evolution]`, then the command line."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from guided_evolution.errors import UsageError

_PROBABILITIES = ("p_mate", "p_mutate", "p_eot")
_COUNTS = ("population", "drafts", "tries", "eot_elites", "llm_parallel")


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that decides how a run goes.

    Attributes:
        preset: The name of the preset that was asked for; a label, whose values `presets.expanded` gives.
        population: Survivors and children of a generation.
        initial: Size of the initial population; None takes `population`.
        generations: Generations after the initial population.
        p_mate: Probability that a child's parents are mated.
        p_mutate: Probability that a child is mutated.
        p_eot: Probability that a mutation is Evolution of Thought rather than a fixed prompt.
        operators: "fixed" keeps to these probabilities; "adaptive" begins with them, and then follows what mated
            children, applied lessons and plain mutations earned so far for the questions they took.
        eot_elites: The best k elites that may teach.
        characters: Whether prompts may speak as a character; without, every prompt is the plain one.
        search: "evolution"; or a baseline: "best-of-n" changes the seed every time, "sequential" the best so far.
        schedule: "generational" waits for a whole generation before it selects, and can be repeated exactly; "steady"
            selects whenever a place is free, so that both lanes stay full.
        prune: Whether an evaluation that reports partial results is stopped when they are hopeless.
        drafts: How often each child is made; of those that pass the check, the one that promises most is evaluated.
        tries: Draws per step, the first included, before a proposal is rejected.
        moves: "auto", "on" or "off": one concrete move per prompt instead of the open question;
            "auto" gives moves to small models.
        retry: "auto", "draw" or "repair": a fresh draw, or a repair turn that carries the error; "auto" draws afresh
            for small models.
        temperature: Range from which each call's temperature is drawn; None takes the paper's (0.05, 0.4), or a
            warmer one for small models.
        reply_tokens: Range from which each call's token limit is drawn; None takes the paper's (600, 1400), or a
            shorter one for small models.
        shortcuts: "auto", "on" or "off": nobody is asked for what is known. Mating takes a block that only the partner
            changed as it is, and Evolution of Thought applies the move that a teacher's change came from, or its
            category; "off" asks each time, as the paper does; "auto" takes shortcuts with small models.
        top_p: Nucleus mass; None takes the paper's 0.1 at the paper's temperatures, else leaves it to the model.
        seed: Seed of every random draw of the run.
        llm: Model specification, see `ge run --help`; several, each with a weight after "=", are an ensemble.
        llm_choice: "weighted" or "adaptive": an ensemble's members make children by their weights, or by what their
            children earned and cost so far, beginning with the weights.
        llm_parallel: Calls to the model at the same time.
        executor: Where evaluations run: "local", "ray" or "slurm".
        sbatch: Further options of sbatch, as on its command line, e.g. "--partition=gpu --account=lab".
        sandbox: "auto" takes the strongest jail that works here, "required" refuses to run without one, "off"
            takes none.
        verify: Whether a program that enters the front is evaluated once more in a fresh process; the worse counts.
        workers: Evaluations at the same time; None takes one per two cores here, and what a cluster offers there.
        threads: CPU threads of one evaluation; None shares half the cores between the workers.
        max_evaluations: Stop after this many evaluations; None for no limit.
        max_tokens: Stop after this many model tokens, read and written; None for no limit.
        max_usd: Stop after this much money; None for no limit.
        max_hours: Stop after this many hours; None for no limit.
    """

    preset: str = ""
    population: int = 8
    initial: int | None = None
    generations: int = 5
    p_mate: float = 0.35
    p_mutate: float = 0.8
    p_eot: float = 0.25
    operators: str = "fixed"
    eot_elites: int = 10
    characters: bool = True
    search: str = "evolution"
    schedule: str = "generational"
    prune: bool = False
    drafts: int = 1
    tries: int = 3
    moves: str = "auto"
    retry: str = "auto"
    shortcuts: str = "auto"
    temperature: tuple[float, float] | None = None
    reply_tokens: tuple[int, int] | None = None
    top_p: float | None = None
    seed: int = 0
    llm: str | tuple[str, ...] = "local"
    llm_choice: str = "weighted"
    llm_parallel: int = 1
    executor: str = "local"
    sbatch: str = ""
    sandbox: str = "auto"
    verify: bool = True
    workers: int | None = None
    threads: int | None = None
    max_evaluations: int | None = None
    max_tokens: int | None = None
    max_usd: float | None = None
    max_hours: float | None = None

    def __post_init__(self) -> None:
        for name in _PROBABILITIES:
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} must lie between 0 and 1, not {getattr(self, name)}")
        if self.p_mate + self.p_mutate == 0:
            raise UsageError("p_mate and p_mutate can't both be 0: nothing would ever change")
        for name in _COUNTS:
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in (
            "initial",
            "workers",
            "threads",
            "max_evaluations",
            "max_tokens",
            "max_usd",
            "max_hours",
        ):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise UsageError(f"{name} must be positive, not {value}")
        if self.generations < 0:
            raise UsageError(f"generations must not be negative, not {self.generations}")
        if self.search not in ("evolution", "best-of-n", "sequential"):
            raise UsageError(f'search must be "evolution", "best-of-n" or "sequential", not "{self.search}"')
        if self.schedule not in ("generational", "steady"):
            raise UsageError(f'schedule must be "generational" or "steady", not "{self.schedule}"')
        if self.moves not in ("auto", "on", "off"):
            raise UsageError(f'moves must be "auto", "on" or "off", not "{self.moves}"')
        if self.retry not in ("auto", "draw", "repair"):
            raise UsageError(f'retry must be "auto", "draw" or "repair", not "{self.retry}"')
        if self.shortcuts not in ("auto", "on", "off"):
            raise UsageError(f'shortcuts must be "auto", "on" or "off", not "{self.shortcuts}"')
        if self.llm_choice not in ("weighted", "adaptive"):
            raise UsageError(f'llm_choice must be "weighted" or "adaptive", not "{self.llm_choice}"')
        if self.operators not in ("fixed", "adaptive"):
            raise UsageError(f'operators must be "fixed" or "adaptive", not "{self.operators}"')
        if self.executor not in ("local", "ray", "slurm"):
            raise UsageError(f'executor must be "local", "ray" or "slurm", not "{self.executor}"')
        if self.sandbox not in ("auto", "required", "off"):
            raise UsageError(f'sandbox must be "auto", "required" or "off", not "{self.sandbox}"')
        for name in ("temperature", "reply_tokens"):
            pair = getattr(self, name)
            if pair is not None and (len(pair) != 2 or not 0 <= pair[0] <= pair[1]):
                raise UsageError(f"{name} must be a range [low, high], not {list(pair)}")

    @property
    def models(self) -> tuple[str, ...]:
        """The specifications of the models, with their weights."""
        return (self.llm,) if isinstance(self.llm, str) else self.llm

    @property
    def first_population(self) -> int:
        """Size of the initial population."""
        return self.initial or self.population

    def with_changes(self, values: Mapping[str, Any], where: str) -> Settings:
        """These settings with some replaced; None values are passed over.

        Raises:
            UsageError: When a name is unknown or a value has the wrong type; the text starts with `where`.
        """
        known = {item.name: item for item in dataclasses.fields(self)}
        clean: dict[str, Any] = {}
        for key, value in values.items():
            name = key.replace("-", "_")
            if name not in known:
                raise UsageError(f"{where}: unknown option {key}")
            if value is not None:
                clean[name] = _typed(name, value, str(known[name].type), where)
        try:
            return dataclasses.replace(self, **clean)
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from None

    def to_json(self) -> dict[str, Any]:
        """The settings as plain values."""
        return dataclasses.asdict(self)


EARLIER = Settings(verify=False, shortcuts="off")
"""What a record of an earlier version was made with, where it doesn't say."""


def _typed(name: str, value: Any, kind: str, where: str) -> Any:
    wrong = UsageError(f"{where}: {name} can't be {value!r}")
    if name == "llm" and isinstance(value, list | tuple):
        if not value or not all(isinstance(item, str) for item in value):
            raise wrong
        return tuple(value) if len(value) > 1 else value[0]
    if name == "llm":
        kind = "str"
    if "tuple" in kind:
        if not isinstance(value, list | tuple) or not all(isinstance(item, int | float) for item in value):
            raise wrong
        whole = "int" in kind
        if not all(math.isfinite(item) and (not whole or item == int(item)) for item in value):
            raise wrong
        return tuple(int(item) if whole else float(item) for item in value)
    if kind.startswith("str"):
        if not isinstance(value, str):
            raise wrong
        return value
    if kind.startswith("bool"):
        if not isinstance(value, bool):
            raise wrong
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise wrong
    if kind.startswith("int") and value != int(value):
        raise wrong
    return int(value) if kind.startswith("int") else float(value)
