from __future__ import annotations

import io

from rich.console import Console

from guided_evolution.events import Event
from guided_evolution.individual import Individual, Origin, Outcome, Status, Step
from guided_evolution.problem import Problem
from guided_evolution.progress import LiveProgress, PlainProgress, describe, format_seconds, format_twice, format_value
from guided_evolution.settings import Settings


def test_numbers_and_durations_are_for_people() -> None:
    assert [format_value(each) for each in (518230.0, 0.92517, 3.0, -25.0, 1e300, float("nan"))] == [
        "518,230",
        "0.9252",
        "3",
        "-25",
        "1e+300",
        "nan",
    ]
    assert [format_seconds(each) for each in (4.4, 75, 7500)] == ["4 s", "1 min 15 s", "2 h 05 min"]


def events(problem: Problem) -> list[Event]:
    genome = problem.genome()
    good = Outcome(Status.OK, scores={"closeness": -20.0, "size": 9.0}, seconds=1.0)
    seed = Individual(0, 0, genome, outcome=good)
    step = Step("mutate", "first", "reduce_size", "magoo")
    child = Individual(1, 0, genome, Origin((0,), (step,)), Outcome(Status.TIMED_OUT, "stopped after 20 s"))
    return [
        Event("evaluate", 0),
        Event("partial", 0, data={"closeness": -30.0}),
        Event("individual", 0, data={"individual": seed}),
        Event("ask", 1, "mutate"),
        Event("text", 1, "I would change\nthis number"),
        Event("individual", 1, data={"individual": child}),
        Event("generation", data={"generation": 0, "front": [seed]}),
        Event("note", text="a note"),
    ]


def test_plain_lines_tell_what_became_of_each(tiny: Problem) -> None:
    stream = io.StringIO()
    with PlainProgress(tiny, Settings(population=4, generations=2), stream) as progress:
        for event in events(tiny):
            progress.on(event)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "1/13  #0  seed  closeness -20  size 9"
    assert lines[1].startswith("2/13  #1  mutate first · reduce size · magoo  timed_out: stopped after 20 s")
    assert lines[2].startswith("initial population done")
    assert lines[2].endswith("front: closeness -20  size 9")
    assert lines[3] == "a note"


def test_the_panel_shows_both_lanes_the_front_and_survives_markup(tiny: Problem) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None)
    progress = LiveProgress(tiny, Settings(population=4, generations=2, max_evaluations=9), console)
    sequence = events(tiny)
    for event in [
        *sequence[:3],
        Event("generation", data={"generation": 0, "front": [sequence[2].data["individual"]]}),
    ]:
        progress.on(event)
    progress.on(Event("evaluate", 2))
    progress.on(Event("partial", 2, data={"closeness": -12.5}))
    progress.on(Event("ask", 3, "mutate"))
    progress.on(Event("text", 3, "[bold]hostile[/bold] [/] text"))
    console.print(progress._render())
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "1/9 evaluations (1 scored, 0 failed)" in shown
    assert "#3 mutate: [bold]hostile[/bold] [/] text" in shown
    assert "closeness -12.5" in shown
    assert "made by" in shown


def test_a_description_names_every_step() -> None:
    steps = (Step("mate", "a", "mate_accuracy"), Step("eot", "b", lesson="x", teacher=4))
    assert describe(Individual(5, 1, None, Origin((1, 2), steps))) == "mate a · accuracy + eot b · lesson of 4"  # type: ignore[arg-type]


def test_two_evaluations_in_a_few_words(tiny: Problem) -> None:
    first = Outcome(Status.OK, scores={"closeness": 0.91, "size": 9.0})
    assert format_twice(tiny, first, first) == "same scores"
    second = Outcome(Status.OK, scores={"closeness": 0.34, "size": 9.0})
    assert format_twice(tiny, first, second) == "closeness 0.91, then 0.34: the worse counts"
    second = Outcome(Status.OK, scores={"closeness": 0.34, "size": 12.0})
    assert format_twice(tiny, first, second) == "closeness 0.91, then 0.34; size 9, then 12: the worse counts"
    second = Outcome(Status.TIMED_OUT, "stopped after 20 s")
    assert format_twice(tiny, first, second) == (
        "closeness 0.91  size 9, then timed out: stopped after 20 s; it counts as failed"
    )
    stream = io.StringIO()
    progress = PlainProgress(tiny, Settings(), stream)
    progress.on(Event("verified", 4, data={"first": first, "second": first, "agrees": True}))
    assert stream.getvalue() == "", "nothing to say where both are the same"
    progress.on(Event("verified", 4, data={"first": first, "second": second, "agrees": False}))
    assert stream.getvalue().startswith("#4 was evaluated twice: closeness 0.91  size 9, then timed out")
