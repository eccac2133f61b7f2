"""A run, read from its record: what people look at in a notebook, and what the views are made of."""

from __future__ import annotations

import dataclasses
import fcntl
import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guided_evolution import population
from guided_evolution.curves import PartialResult
from guided_evolution.errors import ProblemError, RunError, UsageError
from guided_evolution.individual import Exchange, Individual, Outcome
from guided_evolution.llm.recorded import Recorded, RecordedLLM
from guided_evolution.problem import Constraint, Limits, Objective, Problem, Sandboxing
from guided_evolution.rows import Call
from guided_evolution.store import FILE, Store
from guided_evolution.verification import FIRST, VERIFY

LOCK = "lock"
_WARM = 0.4  # the largest temperature of the paper, which others than small models are asked at

if TYPE_CHECKING:
    import plotly.graph_objects as go


class Run:
    """One run's record, open for reading; nothing in it is changed.

    Attributes:
        folder: The run's folder.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._store = Store.open(self.folder)

    def close(self) -> None:
        """Closes the record."""
        self._store.close()

    @property
    def revision(self) -> int:
        """A number that changes when the record does, as seen by this reader; cheap enough to ask every second."""
        return self._store.revision

    def fresh(self) -> Run:
        """The same record, read anew: what is cached here stays as it was."""
        run = Run.__new__(Run)
        run.folder, run._store = self.folder, self._store
        return run

    @cached_property
    def problem(self) -> Problem:
        """The problem as it was when the run began."""
        kept = self._store.meta("problem")
        if kept is None:
            raise RunError(f"{self.folder}: the run was ended before it began; remove the folder.")
        return problem_from_json(kept)

    @property
    def problem_digest(self) -> str:
        """The digest of the problem by which the run scores; see `Problem.digest`."""
        return str(self._store.meta("problem", {}).get("digest", ""))

    def require_unchanged_problem(self) -> None:
        """Makes sure that scores of now would compare with this run's.

        Raises:
            ProblemError: When the problem's seed, evaluator or limits changed since the run began, or it is gone.
        """
        folder = self.problem.folder
        if Problem.load(folder).digest != self.problem_digest:
            raise ProblemError(
                f"{folder} changed since this run began, so its scores would not compare. Undo the change, begin a "
                f"new run, or keep the scores as they are: `ge resume {self.folder} --accept-changes`."
            )

    def changed_problem(self) -> Problem:
        """The problem as its folder holds it now; the seed program stays the one that this run began with.

        Raises:
            ProblemError: When its objectives are others, so that old and new scores have nothing in common.
        """
        old, new = self.problem, Problem.load(self.problem.folder)
        goals = [[(each.name, each.goal) for each in problem.objectives] for problem in (old, new)]
        if goals[0] != goals[1]:
            raise ProblemError(f"{new.folder} has other objectives than when this run began: begin a new run.")
        return dataclasses.replace(new, files=old.files)

    @property
    def replay_of(self) -> str:
        """The run whose replies this one was made from again; empty for any other."""
        return str(self._store.meta("replay_of", ""))

    @property
    def plans(self) -> Mapping[str, Any]:
        """How many children each generation was to have, and which operators' odds; see `Store.plans`."""
        return self._store.plans()

    @cached_property
    def recorded(self) -> list[Recorded]:
        """Every question with its answer, lessons included."""
        return self._store.recorded()

    @property
    def problem_changes(self) -> list[dict[str, Any]]:
        """Each change of the problem that was accepted: when, at how many individuals, and the digests around it."""
        changes: list[dict[str, Any]] = self._store.meta("problem_changes", [])
        return changes

    @property
    def settings(self) -> Mapping[str, Any]:
        """The options of the run."""
        settings: Mapping[str, Any] = self._store.meta("settings", {})
        return settings

    @property
    def status(self) -> str:
        """One of "running", "done", "interrupted" and "failed"; a run whose process was killed is interrupted."""
        status = str(self._store.meta("status", "running"))
        return "interrupted" if status == "running" and not is_locked(self.folder) else status

    @property
    def stop_reason(self) -> str:
        """Why it ended; empty while it goes."""
        return str(self._store.meta("stop_reason", ""))

    @property
    def model_choices(self) -> list[dict[str, Any]]:
        """How the models of an adaptive ensemble shared each generation, and why; empty for any other run."""
        last = self.settings.get("generations", 0)
        found = [(number, self._store.meta(f"models {number}")) for number in range(last + 1)]
        return [{"generation": number, **document} for number, document in found if document is not None]

    @property
    def operator_odds(self) -> list[dict[str, Any]]:
        """How adaptive operators shared each generation after the initial one, and why; empty for any other run."""
        last = self.settings.get("generations", 0)
        found = [(number, self._store.meta(f"operators {number}")) for number in range(1, last + 1)]
        return [{"generation": number, **document} for number, document in found if document is not None]

    @property
    def estimate(self) -> dict[str, Any] | None:
        """What its first child foretold and what it took, see `estimate.compare`; None until it ends."""
        found: dict[str, Any] | None = self._store.meta("estimate")
        return found

    @property
    def version(self) -> str:
        """The version of this package that began it."""
        return str(self.versions.get("guided_evolution", "unknown"))

    @property
    def versions(self) -> Mapping[str, str]:
        """The versions of this package and of Python that began it."""
        versions: Mapping[str, str] = self._store.meta("versions", {})
        return versions

    @property
    def machine(self) -> Mapping[str, Any]:
        """What was noted of the machine that began it, and what kept its candidates in since it went on last.

        Empty for a run of an earlier version.
        """
        jail = self._store.meta("sandbox", "")
        return {**self._store.meta("machine", {}), **({"sandbox": jail} if jail else {})}

    @property
    def seconds(self) -> float:
        """Wall-clock seconds over all its sessions, as of the last stop."""
        return float(self._store.meta("seconds", 0.0))

    @property
    def created(self) -> float:
        """When it began, in seconds since the epoch."""
        return float(self._store.meta("created", 0.0))

    @cached_property
    def spending(self) -> Mapping[str, float]:
        """Sums over all model calls; see `Store.spending`."""
        return self._store.spending()

    @cached_property
    def individuals(self) -> list[Individual]:
        """All individuals in the order of their ids, without their exchanges; `individual` gives those too."""
        return self._store.individuals()

    @cached_property
    def by_id(self) -> Mapping[int, Individual]:
        """The same by id; a run that was stopped may have gaps."""
        return {each.id: each for each in self.individuals}

    def individual(self, number: int) -> Individual:
        """One individual with every question asked for it.

        Raises:
            RunError: When the run has no such individual.
        """
        found = self._store.individual(number)
        if found is None:
            last = self.individuals[-1].id if self.individuals else None
            hint = "it has none yet" if last is None else f"its ids go from 0 to {last}"
            raise RunError(f"{self.folder} has no individual {number}: {hint}.")
        return found

    @property
    def seed(self) -> Individual:
        """The seed."""
        return self.individual(0)

    @cached_property
    def calls(self) -> list[Call]:
        """Every question of the run without its texts, in the order of the answers."""
        return self._store.calls()

    @cached_property
    def paid_calls(self) -> list[Call]:
        """Those that were asked here: without the answers that were taken from another run."""
        return [call for call in self.calls if not call.taken_from]

    @cached_property
    def slots(self) -> list[tuple[float, int]]:
        """From which second of the run on how many evaluations could run at once; one entry for each session."""
        kept: list[tuple[float, int]] = [(begun, slots) for begun, slots in self._store.meta("slots", [])]
        return kept or [(0.0, int(self.settings.get("workers") or 1))]  # an earlier version didn't record them

    @cached_property
    def finished(self) -> Mapping[int, float]:
        """When the outcome of each individual was recorded, in seconds since the epoch."""
        return self._store.finished("evaluate")

    def finished_stage(self, stage: str) -> Mapping[int, float]:
        """When another stage of each individual was recorded, in seconds since the epoch."""
        return self._store.finished(stage)

    def curve(self, digest: str) -> tuple[PartialResult, ...]:
        """What the evaluation of a program reported on its way; empty where it gave its scores at once."""
        return self._store.curve(digest)

    @cached_property
    def front(self) -> list[Individual]:
        """The non-dominated individuals of the whole run, best by the first objective first."""
        return population.front(self.problem, self.individuals)

    def best(self, objective: str) -> Individual:
        """The feasible individual with the best value of one objective.

        Raises:
            UsageError: When there is no such objective.
            RunError: When nothing has been scored yet.
        """
        names = {each.name: each for each in self.problem.objectives}
        if objective not in names:
            raise UsageError(f'there is no objective "{objective}"; there are: {", ".join(names)}')
        scored = self.front
        if not scored:
            raise RunError(f"{self.folder}: nothing has been scored yet.")
        return min(scored, key=lambda each: names[objective].minimised(each.scores[objective]))

    def hypervolume(self) -> float:
        """The hypervolume of the front; see `population.hypervolume`."""
        reference = population.reference_point(self.problem, self.individuals)
        return population.hypervolume(self.problem, self.individuals, reference)

    def diff(self, number: int, other: int | None = None) -> str:
        """A unified diff that leads to an individual's program from another's; None is its first parent's."""
        child = self.individual(number)
        if other is None:
            other = child.origin.parents[0] if child.origin.parents else 0
        return child.genome.diff(self.individual(other).genome)

    def lessons(self, teacher: int, lesson: str) -> list[Exchange]:
        """The question to the model that gave a lesson; empty when the lesson came with the child's own reply."""
        return [each for each in self._store.lessons(teacher) if lesson and lesson in " ".join(each.reply.split())]

    @property
    def tests(self) -> dict[int, Outcome]:
        """The held-out outcomes, by individual; empty until `ge test` ran."""
        return self._store.outcomes("test")

    @cached_property
    def verifications(self) -> dict[int, tuple[Outcome, Outcome]]:
        """The two measurements of each program that was evaluated again, by individual, in their order."""
        believed = {each.id: each.outcome for each in self.individuals}
        first = self._store.outcomes(FIRST)
        second = self._store.outcomes(VERIFY)
        pairs = {number: (first.get(number) or believed.get(number), outcome) for number, outcome in second.items()}
        return {number: (one, two) for number, (one, two) in pairs.items() if one is not None}

    def plot_front(self) -> go.Figure:
        """The Pareto front as a Plotly figure: seed, front and dominated individuals.

        Raises:
            UsageError: When Plotly isn't installed.
        """
        from guided_evolution.plots import plot_front

        return plot_front(self)

    def _repr_html_(self) -> str:
        from guided_evolution.notebook import run_html

        return run_html(self)


def open_run(path: str | Path) -> Run:
    """Opens a run's folder, or the run.sqlite in it, for reading.

    Raises:
        RunError: When there is no run, or its record can't be read.
    """
    path = Path(path)
    return Run(path.parent if path.name == FILE else path)


def recorded_model(path: str | Path, *, in_place: bool = False) -> RecordedLLM:
    """A run's recorded replies as a model: `--llm replay:RUN`, and in their places for `ge replay RUN`.

    Raises:
        RunError: When there is no run, or its record can't be read.
    """
    store = Store.open(path)
    recorded, unasked = store.recorded(), store.unasked()
    small = store.meta("small")
    store.close()
    if small is None:  # a record of the first schema doesn't say, but only small models are asked for these
        small = any(each.exchange.purpose in ("distil", "apply") for each in recorded) or any(
            (each.exchange.temperature or 0) > _WARM for each in recorded
        )
    return RecordedLLM(f"replay:{path}", recorded, small=small, in_place=in_place, unasked=unasked)


def is_locked(folder: Path) -> bool:
    """Whether a process is working on a run."""
    try:
        with (folder / LOCK).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def list_runs(folder: Path) -> list[Path]:
    """The run folders below a folder, newest first."""
    found = [path.parent for path in folder.glob(f"*/{FILE}")]
    return sorted(found, key=lambda path: (path / FILE).stat().st_mtime, reverse=True)


def problem_to_json(problem: Problem) -> dict[str, Any]:
    """What a run keeps of its problem."""
    return {
        "folder": str(problem.folder),
        "name": problem.name,
        "summary": problem.summary,
        "files": dict(problem.files),
        "objectives": [[each.name, each.goal, each.reference, each.range] for each in problem.objectives],
        "constraints": [[each.name, each.min, each.max] for each in problem.constraints],
        "limits": dataclasses.astuple(problem.limits),
        "sandbox": dataclasses.asdict(problem.sandbox),
        "rules": problem.rules,
        "evaluator": problem.evaluator,
        "digest": problem.digest,
    }


def accept_changes(store: Store, problem: Problem) -> None:
    """Writes down that a run goes on with a changed problem; the scores it has stay as they are."""
    old, digest = store.meta("problem"), Problem.load(problem.folder).digest
    change = {
        "accepted": time.time(),
        "individuals": len(store.outcomes("evaluate")),
        "before": old["digest"],
        "after": digest,
    }
    changes = [*store.meta("problem_changes", []), change]
    store.put_meta(problem={**problem_to_json(problem), "digest": digest}, problem_changes=changes)


def problem_from_json(document: Mapping[str, Any]) -> Problem:
    """The problem that a run keeps."""
    return Problem(
        folder=Path(document["folder"]),
        name=document["name"],
        summary=document["summary"],
        files=document["files"],
        objectives=tuple(Objective(*values) for values in document["objectives"]),
        constraints=tuple(Constraint(*values) for values in document["constraints"]),
        limits=Limits(*document["limits"]),
        sandbox=Sandboxing(**{name: tuple(value) for name, value in document.get("sandbox", {}).items()}),
        rules=document["rules"],
        evaluator=document["evaluator"],
    )
