from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from guided_evolution import session
from guided_evolution.errors import ModelError
from guided_evolution.events import Event
from guided_evolution.individual import Status
from guided_evolution.llm.scripted import FunctionLLM
from guided_evolution.problem import Problem
from guided_evolution.replay import replay
from guided_evolution.run import Run, open_run
from guided_evolution.settings import Settings
from guided_evolution.testing import Recorder, scripted_reply
from interrupting import Stopper, kill_run
from unsteady import lucky_problem

SETTINGS = Settings(population=4, generations=3, llm="fake", schedule="steady")
CHILDREN = 4 + 3 * 4


def evolve(
    problem: Problem,
    folder: Path,
    settings: Settings = SETTINGS,
    reply: Callable[[str], str] = scripted_reply,
    listeners: Iterable[object] = (),
) -> Run:
    return session.start(problem, settings, folder, listeners, FunctionLLM(reply, "fake"))


def slowly(seconds: float) -> Callable[[str], str]:
    def reply(prompt: str) -> str:
        time.sleep(seconds)
        return scripted_reply(prompt)

    return reply


def test_every_child_is_made_and_the_front_gets_better(tiny: Problem, tmp_path: Path) -> None:
    run = evolve(tiny, tmp_path / "run")
    assert run.status == "done"
    assert [each.id for each in run.individuals] == list(range(1 + CHILDREN))
    assert [each.generation for each in run.individuals] == [0] * 5 + [1] * 4 + [2] * 4 + [3] * 4
    assert run.best("closeness").scores["closeness"] > run.seed.scores["closeness"]
    assert all(each.origin.parents == (0,) for each in run.individuals[1:5])
    assert any(parent for each in run.individuals for parent in each.origin.parents)


def late_second(seconds: float) -> Callable[[str], str]:
    """A model whose second answer takes its time."""
    asked: list[str] = []

    def reply(prompt: str) -> str:
        asked.append(prompt)
        if len(asked) == 2:
            time.sleep(seconds)
        return scripted_reply(prompt)

    return reply


@pytest.mark.parametrize("schedule", ["generational", "steady"])
def test_the_next_child_does_not_wait_for_the_slowest_of_its_elders(
    tiny: Problem, tmp_path: Path, schedule: str
) -> None:
    """With generations, nothing of the next one is asked before the last of this one is there."""
    recorder = Recorder()
    settings = replace(SETTINGS, schedule=schedule, llm_parallel=2, workers=2)
    evolve(tiny, tmp_path / "run", settings, late_second(3.0), [recorder])
    late = [event.individual for event in recorder.events if event.kind == "ask"][1]
    before = []
    for event in recorder.events:
        if event.kind == "reply" and event.individual == late:
            break
        if event.kind == "ask":
            before.append(event.individual or 0)
    assert (max(before) > SETTINGS.first_population) == (schedule == "steady")


def test_parents_and_teachers_are_those_who_lived_at_the_moment_of_asking(tiny: Problem, tmp_path: Path) -> None:
    class Watcher:
        """What had been scored when each child's first question was asked."""

        def __init__(self) -> None:
            self.scored: set[int] = set()
            self.known: dict[int, set[int]] = {}

        def on(self, event: Event) -> None:
            if event.kind == "individual":
                self.scored.add(event.individual or 0)
            if event.kind == "ask" and event.individual not in self.known:
                self.known[event.individual or 0] = set(self.scored)

    watcher = Watcher()
    settings = replace(SETTINGS, llm_parallel=2, workers=2, p_eot=0.5, generations=4)
    run = evolve(tiny, tmp_path / "run", settings, slowly(0.02), [watcher])
    for each in run.individuals[5:]:
        taught = {step.teacher for step in each.origin.steps if step.teacher is not None}
        assert {*each.origin.parents, *taught} <= watcher.known[each.id]


@pytest.mark.parametrize("parallel", [1, 3])
def test_lanes_are_full_and_no_more_is_begun_than_they_can_take(tiny: Problem, tmp_path: Path, parallel: int) -> None:
    class Flight:
        """How many children there are between their first question and their outcome."""

        def __init__(self) -> None:
            self.asked: set[int] = set()
            self.asking = self.most_asking = self.most = 0

        def on(self, event: Event) -> None:
            if event.kind == "ask":
                self.asked.add(event.individual or 0)
                self.asking += 1
            elif event.kind == "reply":
                self.asking -= 1
            elif event.kind == "individual":
                self.asked.discard(event.individual or 0)
            self.most = max(self.most, len(self.asked))
            self.most_asking = max(self.most_asking, self.asking)

    flight = Flight()
    settings = replace(SETTINGS, llm_parallel=parallel, workers=1, generations=4, p_eot=0.0)
    evolve(tiny, tmp_path / "run", settings, slowly(0.01), [flight])
    assert flight.most_asking == parallel
    # one is evaluated and one waits for that place, beside those that are asked for
    assert flight.most <= parallel + 2


@pytest.mark.parametrize("cap", [1, 2, 7, 11])
def test_a_budget_of_evaluations_is_kept_exactly_with_many_in_flight(tiny: Problem, tmp_path: Path, cap: int) -> None:
    recorder = Recorder()
    settings = replace(SETTINGS, max_evaluations=cap, llm_parallel=3, workers=2, generations=20)
    run = evolve(tiny, tmp_path / "run", settings, listeners=[recorder])
    assert sum(event.kind == "evaluate" for event in recorder.events) == cap
    assert run.stop_reason == f"max_evaluations reached ({cap})"


@pytest.mark.parametrize("after", [1, 4, 9])
def test_an_interrupted_run_goes_on_and_nothing_is_asked_or_scored_twice(
    tiny: Problem, tmp_path: Path, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopper = Stopper(after, monkeypatch)
    calls: list[str] = []

    def counting(prompt: str) -> str:
        calls.append(prompt)
        return scripted_reply(prompt)

    recorder = Recorder()
    settings = replace(SETTINGS, llm_parallel=2, workers=2)
    part = evolve(tiny, tmp_path / "run", settings, counting, [stopper, recorder])
    assert part.status == "interrupted"
    before = {each.id: (each.genome.digest, each.origin.parents, each.scores) for each in part.individuals}
    assert len(before) < 1 + CHILDREN
    run = session.resume(tmp_path / "run", [recorder], llm=FunctionLLM(counting, "fake"))
    assert run.status == "done"
    assert len(run.individuals) == 1 + CHILDREN
    after_all = {each.id: (each.genome.digest, each.origin.parents, each.scores) for each in run.individuals}
    assert before.items() <= after_all.items()
    assert len(calls) == run.spending["calls"]
    evaluated = [event.individual for event in recorder.events if event.kind == "evaluate"]
    assert len(evaluated) == len(set(evaluated))


@pytest.mark.parametrize(("kind", "count"), [("reply", 3), ("reply", 11), ("check", 9), ("individual", 8)])
def test_a_killed_run_keeps_the_plans_of_the_children_that_were_on_their_way(
    tiny: Problem, tmp_path: Path, kind: str, count: int
) -> None:
    options = {"population": 4, "generations": 3, "schedule": "steady", "llm_parallel": 2, "workers": 2, "p_eot": 0.5}
    kill_run(tiny, tmp_path / "run", kind, count, **options)
    paid = open_run(tmp_path / "run").spending["calls"]
    plans = dict(open_run(tmp_path / "run").plans)
    calls: list[str] = []

    def counting(prompt: str) -> str:
        calls.append(prompt)
        return scripted_reply(prompt)

    run = session.resume(tmp_path / "run", llm=FunctionLLM(counting, "fake"))
    assert len(run.individuals) == 1 + CHILDREN
    assert run.spending["calls"] == paid + len(calls), "no reply that was paid for is asked for again"
    assert plans.items() <= dict(run.plans).items()


@pytest.mark.parametrize("seed", [0, 1])
def test_a_replay_goes_the_recorded_way(tiny: Problem, tmp_path: Path, seed: int) -> None:
    settings = replace(SETTINGS, llm_parallel=3, workers=2, p_eot=0.5, seed=seed, max_evaluations=14)
    run = evolve(tiny, tmp_path / "run", settings, slowly(0.01))
    assert any(each.origin.parents != (0,) for each in run.individuals[5:])
    found = replay(run.folder, tmp_path / "again", tiny, changes={"workers": 1, "llm_parallel": 1})
    assert found.ended == ""
    assert (found.programs, found.prompts, found.scores) == ({}, [], {})
    assert found.front
    assert found.compared == len(run.individuals) == len(found.run.individuals)


def test_champions_are_measured_twice_each_program_once(tmp_path: Path) -> None:
    recorder = Recorder()
    settings = replace(SETTINGS, llm_parallel=3, workers=2, generations=5, sandbox="off")
    run = evolve(lucky_problem(tmp_path / "lucky"), tmp_path / "run", settings, listeners=[recorder])
    again = [run.individual(event.individual or 0) for event in recorder.events if event.kind == "verify"]
    assert again
    assert len({each.genome.digest for each in again}) == len(again)
    assert {each.id for each in run.front} <= {each.id for each in again} | {0}
    assert run.best("closeness").scores["closeness"] <= 0


def test_a_model_that_fails_for_good_stops_the_run_and_it_can_go_on(tiny: Problem, tmp_path: Path) -> None:
    asked = []

    def failing(prompt: str) -> str:
        asked.append(prompt)
        if len(asked) > 6:
            raise ModelError("the key was revoked.", permanent=True)
        return scripted_reply(prompt)

    with pytest.raises(ModelError, match=r"the key was revoked\. Nothing is lost: `ge resume"):
        evolve(tiny, tmp_path / "run", replace(SETTINGS, llm_parallel=2), failing)
    assert open_run(tmp_path / "run").status == "failed"
    run = session.resume(tmp_path / "run", llm=FunctionLLM(scripted_reply, "fake"))
    assert len(run.individuals) == 1 + CHILDREN
    assert all(each.status is not Status.PROPOSED for each in run.individuals)


def test_a_steady_run_tells_of_generations_too(tiny: Problem, tmp_path: Path) -> None:
    recorder = Recorder()
    evolve(tiny, tmp_path / "run", listeners=[recorder])
    told = [event.data["generation"] for event in recorder.events if event.kind == "generation"]
    assert told == [0, 1, 2, 3]
