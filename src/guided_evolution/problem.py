"""A problem: what is evolved, how it is scored, within which limits."""

from __future__ import annotations

import hashlib
import math
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from guided_evolution.errors import ProblemError, UsageError
from guided_evolution.genome import Genome, read_files
from guided_evolution.presets import expanded

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class Objective:
    """One number to improve.

    Attributes:
        goal: "max" or "min".
        reference: Its value at the hypervolume's reference point; None takes the seed's value, or the worst seen.
        range: The lowest and highest value that can be true; a score outside is refused.
    """

    name: str
    goal: str = "max"
    reference: float | None = None
    # not part of `Problem.digest`, which older runs keep
    range: tuple[float, float] | None = field(default=None, repr=False)

    def minimised(self, value: float) -> float:
        """The value as selection sees it: smaller is better."""
        return -value if self.goal == "max" else value


@dataclass(frozen=True, slots=True)
class Constraint:
    """Bounds on a score or metric; a candidate that breaks one ranks behind every one that doesn't."""

    name: str
    min: float | None = None
    max: float | None = None

    def violation(self, value: float | None) -> float:
        """How far a value lies outside, relative to the bound; infinity is never returned, 0 means it holds.

        A number the evaluator did not report counts as a violation of 1.
        """
        if value is None or not math.isfinite(value):
            return 1.0
        over = max(0.0, value - self.max) / max(abs(self.max), 1e-12) if self.max is not None else 0.0
        under = max(0.0, self.min - value) / max(abs(self.min), 1e-12) if self.min is not None else 0.0
        return over + under


@dataclass(frozen=True, slots=True)
class Limits:
    """What one evaluation may use.

    Attributes:
        seconds: Wall-clock time.
        memory_mb: Resident memory of the whole process tree, in MiB.
        gpus: Number of GPUs, a fraction shares one; 0 trains on the CPU.
        network: Whether the evaluator needs a network.
        disk_mb: What the process tree may keep on disk, in MiB.
    """

    seconds: float = 120.0
    memory_mb: int = 4096
    gpus: float = 0
    network: bool = False
    disk_mb: int = field(default=4096, repr=False)


@dataclass(frozen=True, slots=True)
class Sandboxing:
    """What a problem asks of the place where its candidates run.

    Attributes:
        preload: Modules that the fork server imports once; empty starts every job afresh.
        readable: Further folders that a candidate may read.
        held_out: Patterns of files that only `test` may read, relative to the data folder, the cache or the problem
            folder, e.g. "cifar10/**/test*".
    """

    preload: tuple[str, ...] = ()
    readable: tuple[str, ...] = ()
    held_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem folder, read and checked.

    Attributes:
        files: The seed program: relative file name to text, in order; the first is the program path.
        evaluator: File name of the evaluator, relative to the folder.
        rules: What the model is told to keep, in the author's words.
        evolution: Defaults for the options of a run, with those of the preset they name.
        evaluation: The evaluator's own table; it reads it itself from problem.toml.
    """

    folder: Path
    name: str
    files: Mapping[str, str]
    objectives: tuple[Objective, ...]
    summary: str = ""
    constraints: tuple[Constraint, ...] = ()
    limits: Limits = Limits()
    rules: str = ""
    evaluator: str = "evaluate.py"
    sandbox: Sandboxing = Sandboxing()
    evolution: Mapping[str, Any] = field(default_factory=dict)
    evaluation: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: str | Path) -> Problem:
        """Reads a problem folder: `problem.toml` with its files, or one of the OpenEvolve kind.

        Raises:
            ProblemError: When something is missing or wrong; the text names the file and what to do.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise ProblemError(f"{folder}: no such folder. A problem is a folder with a problem.toml.")
        folder = folder.resolve()
        if (folder / "problem.toml").is_file():
            return _from_toml(cls, folder)
        if (folder / "initial_program.py").is_file() and (folder / "evaluator.py").is_file():
            return cls(
                folder=folder,
                name=folder.name,
                files=read_files(folder, ["initial_program.py"]),
                objectives=(Objective("combined_score"),),
                evaluator="evaluator.py",
            )
        raise ProblemError(f"{folder}: no problem.toml here. `ge init FOLDER` writes one that runs.")

    def genome(self) -> Genome:
        """The seed, cut into blocks.

        Raises:
            GenomeError: When a file can't be cut; the text names file and line.
        """
        return Genome.parse(self.files)

    @property
    def prompts(self) -> Path:
        """Where this problem's own prompt files lie, whether or not there are any."""
        return self.folder / "prompts"

    @property
    def digest(self) -> str:
        """Hash of everything that decides a score: seed, evaluator and its table, objectives, limits."""
        parts = [self.evaluator_text, *(f"{name}\0{text}" for name, text in self.files.items())]
        parts.append(repr((self.objectives, self.constraints, self.limits, dict(self.evaluation))))
        return hashlib.sha256("\0\0".join(parts).encode()).hexdigest()

    @property
    def evaluator_text(self) -> str:
        """The evaluator's source."""
        return (self.folder / self.evaluator).read_text(encoding="utf-8")

    def point(self, scores: Mapping[str, float]) -> tuple[float, ...]:
        """The scores as a point to be minimised, one coordinate per objective."""
        return tuple(objective.minimised(scores[objective.name]) for objective in self.objectives)

    def violation(self, values: Mapping[str, float]) -> float:
        """Sum of the relative violations of all constraints; 0 when all hold."""
        return sum(constraint.violation(values.get(constraint.name)) for constraint in self.constraints)


class _Table:
    """A TOML table that knows its place, so that an error can name it."""

    def __init__(self, path: Path, where: str, values: Any) -> None:
        self.path, self.where = path, where
        if not isinstance(values, dict):
            raise self.error(f"{where or 'the file'} must be a table")
        self.values: dict[str, Any] = dict(values)

    def error(self, text: str) -> ProblemError:
        return ProblemError(f"{self.path}: {text}")

    def take(self, key: str, kind: type | tuple[type, ...], default: Any = None) -> Any:
        value = self.values.pop(key, default)
        wrong_bool = isinstance(value, bool) and kind is not bool
        if value is not default and (wrong_bool or not isinstance(value, kind)):
            names = kind.__name__ if isinstance(kind, type) else "number"
            raise self.error(f"{self.where}{key} must be a {names}, not {value!r}")
        return value

    def done(self) -> None:
        if self.values:
            known = ", ".join(f"{self.where}{key}" for key in self.values)
            raise self.error(f"unknown key {known}")


_NUMBER = (int, float)


def _from_toml(cls: type[Problem], folder: Path) -> Problem:
    path = folder / "problem.toml"
    try:
        top = _Table(path, "", tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ProblemError(f"{path}: not valid TOML: {error}") from None
    seed = top.take("seed", list, ["seed.py"])
    if not seed or not all(isinstance(name, str) for name in seed):
        raise top.error('seed must be a list of file names, e.g. seed = ["seed.py"]')
    evaluator = top.take("evaluator", str, "evaluate.py")
    if not (folder / evaluator).is_file():
        raise top.error(f"there is no {evaluator} beside it; it must define evaluate(program)")
    rules = _Table(path, "rules.", top.take("rules", dict, {}))
    objectives = tuple(_objectives(path, top.take("objective", list, [])))
    problem = cls(
        folder=folder,
        name=top.take("name", str, folder.name),
        summary=top.take("summary", str, ""),
        files=read_files(folder, seed),
        objectives=objectives,
        constraints=tuple(_constraints(path, top.take("constraint", list, []))),
        limits=_limits(path, top.take("limits", dict, {})),
        sandbox=_sandboxing(path, top.take("sandbox", dict, {})),
        rules=rules.take("text", str, "").strip(),
        evaluator=evaluator,
        evolution=_evolution(path, top.take("evolution", dict, {})),
        evaluation=top.take("evaluation", dict, {}),
    )
    rules.done()
    top.done()
    return problem


def _objectives(path: Path, tables: list[Any]) -> Iterator[Objective]:
    if not tables:
        raise ProblemError(f'{path}: no [[objective]]. Add one with name = "…" and goal = "max" or "min".')
    seen: set[str] = set()
    for number, values in enumerate(tables, 1):
        table = _Table(path, f"objective {number}: ", values)
        name, goal = table.take("name", str, ""), table.take("goal", str, "max")
        reference = table.take("reference", _NUMBER)
        bounds = table.take("range", list)
        table.done()
        if not _NAME.fullmatch(name):
            raise table.error(f"objective {number} needs a name")
        if name in seen:
            raise table.error(f'objective "{name}" is listed twice')
        if goal not in ("max", "min"):
            raise table.error(f'objective "{name}": goal must be "max" or "min", not "{goal}"')
        if bounds is not None and (len(bounds) != 2 or not all(isinstance(each, _NUMBER) for each in bounds)):
            raise table.error(f'objective "{name}": range must be two numbers, e.g. range = [0, 1]')
        if bounds is not None and not bounds[0] < bounds[1]:
            raise table.error(f'objective "{name}": range must begin with the lower number')
        seen.add(name)
        yield Objective(
            name,
            goal,
            None if reference is None else float(reference),
            None if bounds is None else (float(bounds[0]), float(bounds[1])),
        )


def _constraints(path: Path, tables: list[Any]) -> Iterator[Constraint]:
    for number, values in enumerate(tables, 1):
        table = _Table(path, f"constraint {number}: ", values)
        name = table.take("name", str, "")
        low, high = table.take("min", _NUMBER), table.take("max", _NUMBER)
        table.done()
        if not name or (low is None and high is None):
            raise table.error(f"constraint {number} needs a name and a min or a max")
        yield Constraint(name, low, high)


def _evolution(path: Path, values: dict[str, Any]) -> dict[str, Any]:
    try:
        return expanded(values)
    except UsageError as error:
        raise ProblemError(f"{path}: evolution: {error}") from None


def _limits(path: Path, values: dict[str, Any]) -> Limits:
    table = _Table(path, "limits.", values)
    limits = Limits(
        seconds=float(table.take("seconds", _NUMBER, 120.0)),
        memory_mb=table.take("memory_mb", int, 4096),
        gpus=table.take("gpus", _NUMBER, 0),
        network=table.take("network", bool, False),
        disk_mb=table.take("disk_mb", int, 4096),
    )
    table.done()
    if limits.seconds <= 0 or limits.memory_mb <= 0 or limits.disk_mb <= 0 or limits.gpus < 0:
        raise table.error("limits must be positive")
    if limits.gpus > 1 and limits.gpus != int(limits.gpus):
        raise table.error("limits.gpus must be a whole number, or a fraction below 1 that shares a GPU")
    return limits


def _sandboxing(path: Path, values: dict[str, Any]) -> Sandboxing:
    table = _Table(path, "sandbox.", values)
    lists = {}
    for name in ("preload", "readable", "held_out"):
        items = table.take(name, list, [])
        if not all(isinstance(item, str) and item for item in items):
            raise table.error(f"sandbox.{name} must be a list of texts")
        lists[name] = tuple(items)
    table.done()
    for name in lists["readable"]:
        if not (path.parent / Path(name).expanduser()).is_dir():
            raise table.error(f"sandbox.readable: there is no folder {name}")
    if any(Path(pattern).is_absolute() or ".." in Path(pattern).parts for pattern in lists["held_out"]):
        raise table.error("sandbox.held_out: patterns are relative to the data folder, the cache or the problem folder")
    return Sandboxing(**lists)
