"""What an ablation is going to do, written down before anything is done: arms, seeds, budget, common options."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guided_evolution.ablation.arms import Arm
from guided_evolution.errors import RunError, UsageError
from guided_evolution.problem import Problem
from guided_evolution.settings import Settings

FILE = "ablation.json"
SCHEMA = 1
# generations beyond those that the budget needs: an arm whose children are mostly rejected or known must end too
_PATIENCE = 4


@dataclass(frozen=True, slots=True)
class Cell:
    """One run of the plan: an arm with a seed."""

    arm: Arm
    seed: int

    @property
    def label(self) -> str:
        """How messages call it."""
        return f"{self.arm.name}, seed {self.seed}"


@dataclass(frozen=True, slots=True)
class Plan:
    """Arms × seeds on one problem, each with the same number of evaluations.

    Attributes:
        problem: The problem's folder, absolute.
        digest: The problem's digest: what decides a score.
        arms: At least two; the others are compared with the first.
        seeds: Seeds of the runs; run s of every arm draws from the same random streams.
        evaluations: Distinct programs that each run may score, the seed program included.
        settings: The common options, complete.
    """

    problem: Path
    digest: str
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    evaluations: int
    settings: Mapping[str, Any]

    @classmethod
    def make(cls, problem: Problem, settings: Settings, arms: Sequence[Arm], seeds: int) -> Plan:
        """A plan with as many seeds, counted up from the settings' own.

        Without a cap on evaluations, each run gets as many as the settings' generations have children.

        Raises:
            UsageError: When there is no seed, or an arm's options don't fit the common ones.
        """
        if seeds < 1:
            raise UsageError(f"--seeds must be at least 1, not {seeds}")
        usual = 1 + settings.first_population + settings.generations * settings.population
        evaluations = settings.max_evaluations or usual
        first = settings.seed
        plan = cls(
            problem.folder,
            problem.digest,
            tuple(arms),
            tuple(range(first, first + seeds)),
            evaluations,
            settings.to_json(),
        )
        for arm in arms:
            plan.settings_of(Cell(arm, first))
        return plan

    @property
    def cells(self) -> tuple[Cell, ...]:
        """All runs, seed by seed, so that the arms of a seed can take from each other."""
        return tuple(Cell(arm, seed) for seed in self.seeds for arm in self.arms)

    def settings_of(self, cell: Cell) -> Settings:
        """The options of one run.

        It has as many generations as its budget needs, four times over: an arm whose children are mostly rejected, or
        known already, ends there.

        Raises:
            UsageError: When the arm's options don't fit the common ones.
        """
        where = f"arm {cell.arm.name}"
        common = Settings().with_changes(self.settings, FILE)
        made = common.with_changes(cell.arm.options, where)
        bound = _PATIENCE * max(1, math.ceil((self.evaluations - 1) / made.population))
        fixed = {"generations": bound, "max_evaluations": self.evaluations, "seed": cell.seed}
        return made.with_changes(fixed | dict(cell.arm.options), where)

    def folder(self, root: Path, cell: Cell) -> Path:
        """Where a run of an ablation in `root` is kept."""
        return root / cell.arm.name / f"seed-{cell.seed}"

    def to_json(self) -> dict[str, Any]:
        """The plan as plain values."""
        return {
            "schema": SCHEMA,
            "problem": str(self.problem),
            "digest": self.digest,
            "arms": [{"name": arm.name, "options": dict(arm.options)} for arm in self.arms],
            "seeds": list(self.seeds),
            "evaluations": self.evaluations,
            "settings": dict(self.settings),
        }

    def write(self, root: Path) -> None:
        """Writes the plan; it appears under its name when it is whole.

        Raises:
            RunError: When the folder can't be written.
        """
        new = root / f"{FILE}.new"
        try:
            root.mkdir(parents=True, exist_ok=True)
            new.write_text(json.dumps(self.to_json(), indent=2) + "\n", encoding="utf-8")
            new.replace(root / FILE)
        except OSError as error:
            raise RunError(f"{root} can't be written: {error.strerror}.") from None

    @classmethod
    def read(cls, root: Path) -> Plan:
        """The plan of an ablation's folder.

        Raises:
            RunError: When there is none, or it can't be read.
        """
        path = root / FILE
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            if document["schema"] != SCHEMA:
                raise RunError(f"{path} has schema {document['schema']}; this version reads {SCHEMA}.")
            return cls(
                Path(document["problem"]),
                document["digest"],
                tuple(Arm(each["name"], each["options"]) for each in document["arms"]),
                tuple(document["seeds"]),
                document["evaluations"],
                document["settings"],
            )
        except FileNotFoundError:
            raise RunError(f"{root} holds no ablation: there is no {FILE}.") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"{path} can't be read: {error!r}. Begin a new ablation in another folder.") from None

    def require_same(self, other: Plan, root: Path) -> None:
        """Makes sure that a plan asked for now is the one that a folder was begun with.

        Raises:
            UsageError: When they differ; the text says in what.
        """
        if (self.problem, self.digest) != (other.problem, other.digest):
            raise UsageError(f"{root} holds an ablation of another problem ({self.problem}), or that one has changed.")
        pairs: dict[str, tuple[Any, Any]] = {
            "arms": ([arm.name for arm in self.arms], [arm.name for arm in other.arms]),
            "seeds": (list(self.seeds), list(other.seeds)),
            "evaluations": (self.evaluations, other.evaluations),
        }
        pairs |= {
            f"arm {mine.name}": (dict(mine.options), dict(theirs.options))
            for mine, theirs in zip(self.arms, other.arms, strict=False)
        }
        # the plan went through JSON, which knows no tuples; what an earlier version didn't know it left at its default
        was, now = (
            json.loads(json.dumps(Settings().with_changes(each.settings, FILE).to_json())) for each in (self, other)
        )
        pairs |= {name: (was[name], now[name]) for name in now}
        for name, (before, after) in pairs.items():
            if json.dumps(before) != json.dumps(after):
                text = f"{name} was {before} and would be {after}"
                raise UsageError(
                    f"{root} was begun with another plan: {text}. Leave it as it was, or use a new folder."
                )
