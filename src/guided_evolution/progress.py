"""What a person sees while a run goes: a live panel in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from guided_evolution.events import Event
from guided_evolution.individual import Individual, Outcome, Status
from guided_evolution.problem import Problem
from guided_evolution.settings import Settings
from guided_evolution.verification import differing

MARKS = {
    Status.OK: ("✓", "green"),
    Status.REJECTED: ("–", "yellow"),
    Status.CRASHED: ("✗", "red"),
    Status.TIMED_OUT: ("⏱", "red"),
    Status.OUT_OF_MEMORY: ("▲", "red"),
    Status.PRUNED: ("✂", "yellow"),
}


class Stream(Protocol):
    """What lines are written to: a file, or what passes them on."""

    def write(self, text: str, /) -> object:
        """Takes some text."""
        ...

    def flush(self) -> None:
        """Lets go of what was kept back."""
        ...


def format_value(value: float) -> str:
    """A score for people: whole numbers with separators, others with four significant digits."""
    whole = abs(value) < 1e15 and value == int(value)
    return f"{value:,.0f}" if whole and abs(value) >= 10 else f"{value:.4g}"


def format_scores(problem: Problem, scores: Mapping[str, float]) -> str:
    """All scores on one line, in the problem's order."""
    return "  ".join(
        f"{each.name} {format_value(scores[each.name])}" for each in problem.objectives if each.name in scores
    )


def format_failure(outcome: Outcome) -> str:
    """Why there are no scores, in a few words; what was stopped early says so in its reason."""
    return outcome.reason if outcome.status is Status.PRUNED else f"{outcome.status}: {outcome.reason}"


def format_twice(problem: Problem, first: Outcome, second: Outcome) -> str:
    """What two evaluations of a program gave, in a few words; names only the objectives in which they differ."""
    if not second.ok:
        kind = str(second.status).replace("_", " ")
        return f"{format_scores(problem, first.scores)}, then {kind}: {second.reason}; it counts as failed"
    names = differing(problem, first, second)
    if not names:
        return "same scores"
    values = (f"{name} {format_value(first.scores[name])}, then {format_value(second.scores[name])}" for name in names)
    return f"{'; '.join(values)}: the worse counts"


def format_seconds(seconds: float) -> str:
    """A duration as people say it: 45 s, 3 min 20 s, 2 h 05 min."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


def describe(individual: Individual) -> str:
    """What was done to make an individual, e.g. "mutate DFSEB · reduce_size · expert"."""
    if not individual.origin.steps:
        return "seed"
    parts = []
    for step in individual.origin.steps:
        extra = [
            step.category.removeprefix("mate_").replace("_", " "),
            "" if step.character == "plain" else step.character,
        ]
        if step.teacher is not None:
            extra.append(f"lesson of {step.teacher}")
        parts.append(" · ".join([f"{step.operator} {step.block}", *filter(None, extra)]))
    return " + ".join(parts)


class State:
    """What is going on, gathered from events; both displays show it."""

    def __init__(self, problem: Problem, settings: Settings) -> None:
        self.problem = problem
        self.total = 1 + settings.first_population + settings.generations * settings.population
        self.cap = settings.max_evaluations
        self._programs: set[str] = set()
        self.begun = time.monotonic()
        self.done = 0
        self.live = 0
        self.failed = 0
        self.stopped = 0
        self.generation = 0
        self.generations = settings.generations
        self.front: list[Individual] = []
        self.writing: dict[int, tuple[str, str]] = {}
        self.training: dict[int, tuple[float, Mapping[str, float]]] = {}
        self.checking = 0
        self.asked_seconds: list[float] = []
        self._recorded = 0

    def take(self, event: Event) -> None:
        """Follows one event."""
        number = -1 if event.individual is None else event.individual
        if event.kind == "ask":
            self.writing[number] = (event.text, "")
        elif event.kind == "text" and number in self.writing:
            purpose, text = self.writing[number]
            self.writing[number] = (purpose, (text + event.text)[-400:])
        elif event.kind == "reply":
            self.writing.pop(number, None)
        elif event.kind in ("evaluate", "verify"):
            self.training[number] = (time.monotonic(), {})
        elif event.kind == "partial" and number in self.training:
            self.training[number] = (self.training[number][0], event.data)
        elif event.kind == "individual":
            self._individual(event.data["individual"], recorded=event.data.get("recorded", False))
        elif event.kind == "verified":
            self.training.pop(number, None)
        elif event.kind == "generation":
            self.generation = event.data["generation"] + 1
            self.front = event.data["front"]

    def _individual(self, individual: Individual, *, recorded: bool) -> None:
        self.training.pop(individual.id, None)
        self.writing.pop(individual.id, None)
        self._recorded += recorded
        self.done += 1
        if individual.status is not Status.REJECTED:
            self._programs.add(individual.genome.digest)
        self.live += individual.ok
        self.stopped += individual.status is Status.PRUNED
        self.failed += not individual.ok and individual.status is not Status.PRUNED

    @property
    def count(self) -> str:
        """How far the run is: of its individuals, or of its evaluations where those are capped."""
        if self.cap:
            return f"{len(self._programs)}/{self.cap} evaluations"
        return f"{self.done}/{self.total} individuals"

    @property
    def seconds(self) -> float:
        """Since this session began."""
        return time.monotonic() - self.begun

    @property
    def left(self) -> float | None:
        """Estimated seconds to the end; None before there is anything to go by."""
        fresh = self.done - self._recorded
        ahead = self.total - self.done
        if self.cap:
            ahead = min(ahead, self.cap - len(self._programs))
        return None if fresh < 2 else self.seconds / fresh * max(0, ahead)


class PlainProgress:
    """One line per finished individual and generation, for logs and pipes."""

    def __init__(self, problem: Problem, settings: Settings, stream: Stream) -> None:
        self._state = State(problem, settings)
        self._stream = stream

    def __enter__(self) -> PlainProgress:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def on(self, event: Event) -> None:
        """Takes one event; see `Listener.on`."""
        self._state.take(event)
        line = line_for(event, self._state)
        if line:
            self._stream.write(f"{line}\n")
            self._stream.flush()


def line_for(event: Event, state: State) -> str:
    """The line that an event is worth; empty for most."""
    if event.kind == "individual":
        individual: Individual = event.data["individual"]
        outcome = individual.outcome
        assert outcome is not None
        what = format_scores(state.problem, outcome.scores) if outcome.ok else format_failure(outcome)
        left = f"  ({format_seconds(state.left)} left)" if state.left is not None else ""
        return f"{state.count.split()[0]}  #{individual.id}  {describe(individual)}  {what[:160]}{left}"
    if event.kind == "generation":
        best = "; ".join(format_scores(state.problem, each.scores) for each in state.front[:5])
        more = f" and {len(state.front) - 5} more" if len(state.front) > 5 else ""
        name = "initial population" if not event.data["generation"] else f"generation {event.data['generation']}"
        return f"{name} done after {format_seconds(state.seconds)}; front: {best}{more}"
    if event.kind == "verified" and not event.data["agrees"]:
        both = format_twice(state.problem, event.data["first"], event.data["second"])
        return f"#{event.individual} was evaluated twice: {both}"
    return event.text if event.kind == "note" else ""


class LiveProgress:
    """A panel that is redrawn in place: lanes, counts, the front so far, the time left; finished lines scroll above."""

    def __init__(self, problem: Problem, settings: Settings, console: Console) -> None:
        self._state = State(problem, settings)
        self._console = console
        self._live = Live(console=console, refresh_per_second=4, get_renderable=self._render, transient=True)

    def __enter__(self) -> LiveProgress:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def on(self, event: Event) -> None:
        """Takes one event; see `Listener.on`."""
        self._state.take(event)
        line = line_for(event, self._state)
        if line and event.kind == "individual":
            individual: Individual = event.data["individual"]
            mark, colour = MARKS.get(individual.status, ("?", "red"))
            self._console.print(
                Text(f"{mark} ", style=colour) + Text(line.split("  (")[0], overflow="ellipsis"), no_wrap=True
            )
        elif line and event.kind in ("note", "verified"):
            self._console.print(Text(line, style="dim"))

    def _render(self) -> Group:
        state = self._state
        left = f"about {format_seconds(state.left)} left" if state.left is not None else "estimating the time left"
        early = f", {state.stopped} stopped early" if state.stopped else ""
        head = Text.assemble(
            (f"{state.problem.name}  ", "bold"),
            f"generation {min(state.generation, state.generations)}/{state.generations}  ",
            f"{state.count} ({state.live} scored, {state.failed} failed{early})  ",
            (f"{format_seconds(state.seconds)}, {left}", "dim"),
        )
        return Group(Text(), head, *self._lanes(), *self._front())

    def _lanes(self) -> list[Text]:
        lines = []
        width = max(20, self._console.width - 32)
        for number, (purpose, text) in self._state.writing.items():
            tail = " ".join(text.split())[-width:]
            lines.append(Text.assemble(("model  ", "cyan"), f"#{number} {purpose}: ", (tail, "dim")))
        for number, (begun, values) in list(self._state.training.items())[:4]:
            known = "  ".join(f"{name} {format_value(value)}" for name, value in list(values.items())[:4])
            lines.append(
                Text.assemble(
                    ("score  ", "magenta"), f"#{number} ", (f"{time.monotonic() - begun:.0f} s  {known}", "dim")
                )
            )
        for line in lines:
            line.no_wrap, line.overflow = True, "ellipsis"
        return lines

    def _front(self) -> list[Table]:
        if not self._state.front:
            return []
        return [front_table(self._state.problem, self._state.front[:8])]


def front_table(
    problem: Problem, front: list[Individual], extra: Mapping[int, Mapping[str, Any]] | None = None
) -> Table:
    """The front as a table, best by the first objective first; `extra` adds columns by individual."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("id", justify="right")
    for objective in problem.objectives:
        table.add_column(f"{objective.name} {'↑' if objective.goal == 'max' else '↓'}", justify="right")
    names = list(dict.fromkeys(name for values in (extra or {}).values() for name in values))
    for name in names:
        table.add_column(name, justify="right")
    table.add_column("made by")
    for individual in front:
        values = (extra or {}).get(individual.id, {})
        table.add_row(
            f"{individual.id}",
            *(format_value(individual.scores[each.name]) for each in problem.objectives),
            *(str(values.get(name, "")) for name in names),
            Text(describe(individual)),
        )
    return table
