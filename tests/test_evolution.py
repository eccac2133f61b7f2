from __future__ import annotations

import random
import re
import sqlite3
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import pytest

from guided_evolution import asking, errands, session
from guided_evolution.errors import ModelError, RequestRefusedError, RunError
from guided_evolution.evaluation import Job
from guided_evolution.evaluation.launch import Partial
from guided_evolution.executors.local import LocalExecutor
from guided_evolution.individual import Outcome, Status
from guided_evolution.llm.scripted import FunctionLLM
from guided_evolution.problem import Problem
from guided_evolution.run import Run
from guided_evolution.settings import Settings
from guided_evolution.store import Store
from guided_evolution.testing import Recorder, scripted_reply, write_tiny_problem
from guided_evolution.verification import agree, worse_of
from interrupting import Stopper, kill_run
from unsteady import clock_problem, lucky_problem

SETTINGS = Settings(population=4, generations=2, llm="fake")


def evolve(
    problem: Problem,
    folder: Path,
    settings: Settings = SETTINGS,
    reply: Callable[[str], str] = scripted_reply,
    listeners: Iterable[object] = (),
) -> Run:
    return session.start(problem, settings, folder, listeners, FunctionLLM(reply, "fake"))


def story(run: Run) -> list[tuple[object, ...]]:
    return [
        (each.id, each.generation, each.genome.digest, each.origin.parents, each.origin.steps, each.status, each.twin)
        for each in run.individuals
    ]


def test_a_run_gives_a_front_that_holds_the_seed_or_something_better(tiny: Problem, tmp_path: Path) -> None:
    run = evolve(tiny, tmp_path / "run")
    assert run.status == "done"
    assert run.stop_reason == "2 generations done"
    assert len(run.individuals) == 1 + 4 + 2 * 4
    assert run.best("closeness").scores["closeness"] > run.seed.scores["closeness"]
    points = [tiny.point(each.scores) for each in run.front]
    assert points == sorted(points)
    assert len(set(points)) == len(points)


def test_fault_08_the_seed_is_scored_first_and_no_program_twice(tiny: Problem, tmp_path: Path) -> None:
    recorder = Recorder()
    run = evolve(tiny, tmp_path / "run", Settings(population=6, generations=4, llm="fake"), listeners=[recorder])
    started = [event.individual for event in recorder.events if event.kind == "evaluate"]
    assert started[0] == 0
    scored = {each.genome.digest for each in run.individuals if each.ok}
    assert len(started) == len(scored)
    twins = [each for each in run.individuals if each.twin is not None]
    assert twins, "this seed makes some duplicates"
    for twin in twins:
        original = run.individual(twin.twin)
        assert original.id < twin.id
        assert original.genome.digest == twin.genome.digest
        assert original.scores == twin.scores


def test_same_seed_and_replies_give_the_same_run_whatever_the_order_of_completion(
    tiny: Problem, tmp_path: Path
) -> None:
    delays = random.Random(5)

    def slow(prompt: str) -> str:
        time.sleep(delays.random() * 0.1)
        return scripted_reply(prompt)

    settings = Settings(population=4, generations=2, llm="fake", workers=2, llm_parallel=3)
    first = evolve(tiny, tmp_path / "a")
    assert story(evolve(tiny, tmp_path / "b", settings, slow)) == story(first)
    other = evolve(tiny, tmp_path / "c", Settings(population=4, generations=2, llm="fake", seed=1))
    assert story(other) != story(first)


@pytest.mark.parametrize("population", [1, 2, 3])
def test_fault_09_small_populations_run(tiny: Problem, tmp_path: Path, population: int) -> None:
    run = evolve(tiny, tmp_path / "run", Settings(population=population, generations=3, llm="fake"))
    assert len(run.individuals) == 1 + population * 4


def test_a_run_whose_every_reply_is_useless_ends_with_the_seed(tiny: Problem, tmp_path: Path) -> None:
    run = evolve(tiny, tmp_path / "run", reply=lambda prompt: "no")
    assert [each.id for each in run.front] == [0]
    assert {each.status.value for each in run.individuals[1:]} == {"rejected"}


def test_fault_14_children_are_scored_while_the_model_still_writes(tiny: Problem, tmp_path: Path) -> None:
    recorder = Recorder()

    def slow(prompt: str) -> str:
        time.sleep(0.2)
        return scripted_reply(prompt)

    evolve(tiny, tmp_path / "run", Settings(population=6, generations=0, llm="fake"), slow, [recorder])
    kinds = [(event.kind, event.individual) for event in recorder.events]
    first_scored = next(index for index, (kind, number) in enumerate(kinds) if kind == "evaluate" and number)
    last_asked = max(index for index, (kind, _) in enumerate(kinds) if kind == "ask")
    assert first_scored < last_asked


def test_evolution_of_thought_and_mating_are_used_when_they_should_be(tiny: Problem, tmp_path: Path) -> None:
    always = Settings(population=4, generations=2, llm="fake", p_eot=1.0, p_mate=1.0, p_mutate=1.0)
    operators = {each.origin.operator for each in evolve(tiny, tmp_path / "a", always).individuals if each.generation}
    assert "mate+eot" in operators
    never = Settings(population=4, generations=2, llm="fake", p_eot=0.0, p_mate=0.0)
    assert {each.origin.operator for each in evolve(tiny, tmp_path / "b", never).individuals[1:]} == {"mutate"}


def test_a_budget_of_evaluations_is_kept_exactly(tiny: Problem, tmp_path: Path) -> None:
    recorder = Recorder()
    settings = Settings(population=4, generations=9, llm="fake", max_evaluations=10)
    run = evolve(tiny, tmp_path / "run", settings, listeners=[recorder])
    assert sum(event.kind == "evaluate" for event in recorder.events) <= 10
    assert run.stop_reason == "max_evaluations reached (10)"


@pytest.mark.parametrize("after", [1, 3, 5, 8])
def test_an_interrupted_run_goes_on_to_the_same_end(
    tiny: Problem, tmp_path: Path, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = evolve(tiny, tmp_path / "whole")
    stopper = Stopper(after, monkeypatch)
    calls: list[str] = []

    def counting(prompt: str) -> str:
        calls.append(prompt)
        return scripted_reply(prompt)

    part = evolve(tiny, tmp_path / "part", reply=counting, listeners=[stopper])
    assert part.status == "interrupted"
    assert len(part.individuals) < len(whole.individuals)
    resumed = session.resume(tmp_path / "part", llm=FunctionLLM(counting, "fake"))
    assert resumed.status == "done"
    assert story(resumed) == story(whole)
    assert len(calls) == whole.spending["calls"], "no question is asked twice"


def test_fault_11_resume_reads_generations_as_numbers(tiny: Problem, tmp_path: Path) -> None:
    settings = Settings(population=1, generations=11, llm="fake")
    run = evolve(tiny, tmp_path / "run", settings)
    longer = session.resume(tmp_path / "run", changes={"generations": 13}, llm=FunctionLLM(scripted_reply, "fake"))
    assert [each.generation for each in longer.individuals] == [0, 0, *range(1, 14)]
    assert story(longer)[: len(run.individuals)] == story(run)


def test_a_model_that_fails_for_good_stops_the_run_and_nothing_is_lost(tiny: Problem, tmp_path: Path) -> None:
    calls = 0

    def failing(prompt: str) -> str:
        nonlocal calls
        calls += 1
        if calls > 3:
            raise ModelError("the key is wrong", permanent=True)
        return scripted_reply(prompt)

    with pytest.raises(ModelError, match="the key is wrong"):
        evolve(tiny, tmp_path / "run", reply=failing)
    run = Run(tmp_path / "run")
    assert (run.status, run.stop_reason) == ("failed", "the key is wrong")
    assert run.spending["calls"] == 3
    resumed = session.resume(tmp_path / "run", llm=FunctionLLM(scripted_reply, "fake"))
    assert story(resumed) == story(evolve(tiny, tmp_path / "whole"))


def test_a_seed_that_fails_is_reported_at_once(tmp_path: Path) -> None:
    folder = write_tiny_problem(tmp_path / "p")
    (folder / "evaluate.py").write_text("def evaluate(program):\n    return {'closeness': float('nan'), 'size': 1}\n")
    with pytest.raises(RunError, match=r"the seed can't be scored.*closeness.*nan"):
        evolve(Problem.load(folder), tmp_path / "run")


def test_a_run_folder_is_never_overwritten_and_never_shared(tiny: Problem, tmp_path: Path) -> None:
    evolve(tiny, tmp_path / "run", Settings(population=1, generations=0, llm="fake"))
    with pytest.raises(RunError, match="already holds a run"):
        evolve(tiny, tmp_path / "run")


def test_fault_02_selection_never_sees_the_held_out_test(tiny: Problem, tmp_path: Path) -> None:
    run = evolve(tiny, tmp_path / "run")
    assert run.tests == {}
    made = [run.individual(each.id).origin for each in run.individuals]
    asked = " ".join(exchange.prompt for origin in made for exchange in origin.exchanges)
    assert "def test" not in asked
    before = [each.id for each in run.front]
    told: list[int] = []
    results = errands.test(tmp_path / "run", [], lambda number, outcome: told.append(number))
    assert set(results) == {0, *before} == set(told)
    again = Run(tmp_path / "run")
    assert again.tests.keys() == results.keys()
    assert [each.id for each in again.front] == before


def test_constraints_put_those_that_break_them_behind(tmp_path: Path) -> None:
    folder = write_tiny_problem(tmp_path / "p")
    with (folder / "problem.toml").open("a") as file:
        file.write('[[constraint]]\nname = "largest"\nmax = 5\n')
    run = evolve(Problem.load(folder), tmp_path / "run")
    largest = {each.id: each.outcome.metrics["largest"] for each in run.individuals if each.ok}
    assert max(largest.values()) > 5, "some candidates break the constraint"
    assert all(largest[each.id] <= 5 for each in run.front)


def test_a_larger_budget_later_leaves_the_past_as_it_was(tiny: Problem, tmp_path: Path) -> None:
    capped = Settings(population=4, generations=3, llm="fake", max_evaluations=7)
    before = story(evolve(tiny, tmp_path / "run", capped))
    model = FunctionLLM(scripted_reply, "fake")
    after = story(session.resume(tmp_path / "run", changes={"max_evaluations": 30}, llm=model))
    assert after[: len(before)] == before
    assert len(after) > len(before)


def test_an_outage_lets_evaluations_finish_and_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "OUTAGE_SECONDS", 0.0)
    folder = write_tiny_problem(tmp_path / "p")
    text = (folder / "evaluate.py").read_text()
    (folder / "evaluate.py").write_text(
        text.replace("    values = numbers", "    __import__('time').sleep(1)\n    values = numbers")
    )
    calls = 0

    def failing(prompt: str) -> str:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise ModelError("the server is down")
        return scripted_reply(prompt)

    with pytest.raises(ModelError, match=r"the server is down.*ge resume"):
        evolve(Problem.load(folder), tmp_path / "run", reply=failing)
    scored = [each for each in Run(tmp_path / "run").individuals if each.ok]
    assert [each.id for each in scored] == [0, 1], "the child that was being scored is not lost"


def test_a_request_that_is_refused_costs_its_child_only(tiny: Problem, tmp_path: Path) -> None:
    calls = 0

    def picky(prompt: str) -> str:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise RequestRefusedError("the prompt is too long")
        return scripted_reply(prompt)

    run = evolve(tiny, tmp_path / "run", Settings(population=4, generations=0, llm="fake"), picky)
    rejected = [each for each in run.individuals if each.status.value == "rejected"]
    assert [each.outcome.reason for each in rejected if each.outcome] == ["the prompt is too long"]
    assert rejected[0].origin.operator == "none"
    assert sum(each.ok for each in run.individuals) == 4


def test_half_a_character_in_a_reply_is_no_harm(tiny: Problem, tmp_path: Path) -> None:
    run = evolve(
        tiny,
        tmp_path / "run",
        Settings(population=1, generations=0, llm="fake"),
        lambda prompt: "\ud83d " + scripted_reply(prompt),
    )
    assert run.individual(1).origin.exchanges[0].reply.startswith("? ")


def test_a_program_that_was_scored_before_a_kill_is_not_scored_again(tiny: Problem, tmp_path: Path) -> None:
    run = evolve(tiny, tmp_path / "run", Settings(population=6, generations=2, llm="fake"))
    twin = next(each for each in run.individuals if each.twin is not None)
    connection = sqlite3.connect(tmp_path / "run" / "run.sqlite")
    connection.execute("DELETE FROM outcomes WHERE individual = ?", (twin.id,))
    connection.commit()
    connection.close()
    recorder = Recorder()
    resumed = session.resume(tmp_path / "run", [recorder], llm=FunctionLLM(scripted_reply, "fake"))
    assert not [event for event in recorder.events if event.kind == "evaluate"]
    assert story(resumed) == story(run)


def test_a_partner_that_gave_nothing_is_no_parent(tiny: Problem, tmp_path: Path) -> None:
    def only_mutates(prompt: str) -> str:
        return "no" if prompt.startswith("Combine") else scripted_reply(prompt)

    always = Settings(population=4, generations=2, llm="fake", p_mate=1.0, p_mutate=1.0)
    run = evolve(tiny, tmp_path / "run", always, only_mutates)
    children = [each for each in run.individuals if each.generation]
    assert {each.origin.operator for each in children} <= {"mutate", "eot"}
    assert all(len(each.origin.parents) == 1 for each in children)
    assert any(exchange.purpose == "mate" for each in children for exchange in run.individual(each.id).origin.exchanges)


# -- a program that enters the front is evaluated twice ------------------------------------------------------------

UNSTEADY = Settings(population=4, generations=2, llm="fake", workers=2, sandbox="off")


def believed(run: Run) -> list[tuple[object, ...]]:
    pairs = {number: (one.scores, two.scores, two.status) for number, (one, two) in run.verifications.items()}
    return [(*each, run.by_id[each[0]].scores, pairs.get(each[0])) for each in story(run)]


def test_a_score_read_off_a_clock_is_measured_twice_and_the_worse_counts(tmp_path: Path) -> None:
    problem, recorder = clock_problem(tmp_path / "clock"), Recorder()
    run = evolve(problem, tmp_path / "run", Settings(population=4, generations=2, llm="fake"), listeners=[recorder])
    assert {each.id for each in run.front} - {0} <= set(run.verifications)
    assert any(not agree(problem, *pair) for pair in run.verifications.values())
    for number, (first, second) in run.verifications.items():
        assert first.scores != {} != second.scores
        assert run.by_id[number].scores == worse_of(problem, first, second).scores
        closeness = min(first.scores["closeness"], second.scores["closeness"])
        assert run.by_id[number].scores["closeness"] == closeness
    asked = [event.individual for event in recorder.events if event.kind == "verify"]
    assert sorted(asked) == sorted(run.verifications), "each of them once"
    told = {event.individual: event.data["agrees"] for event in recorder.events if event.kind == "verified"}
    assert told == {number: agree(problem, *pair) for number, pair in run.verifications.items()}


def test_a_steady_score_is_measured_twice_and_stays_what_it_was(tiny: Problem, tmp_path: Path) -> None:
    run = evolve(tiny, tmp_path / "run")
    assert run.verifications
    assert all(agree(tiny, *pair) for pair in run.verifications.values())
    plain = evolve(tiny, tmp_path / "plain", Settings(population=4, generations=2, llm="fake", verify=False))
    assert story(plain) == story(run)
    assert [each.id for each in plain.front] == [each.id for each in run.front]


def test_a_champion_that_fails_the_second_time_is_a_failure_and_others_take_its_place(tmp_path: Path) -> None:
    problem = lucky_problem(tmp_path / "lucky", fails=True)
    run = evolve(problem, tmp_path / "run", UNSTEADY)
    fallen = [number for number, (_, second) in run.verifications.items() if not second.ok]
    assert fallen
    for number in fallen:
        outcome = run.by_id[number].outcome
        assert outcome is not None
        assert outcome.status.value == "crashed"
        assert outcome.reason.startswith("scored once, and failed when it was evaluated again: ")
        assert "not this time" in outcome.reason
        assert run.verifications[number][0].scores == {"closeness": 1000.0, "size": 0.0}
        assert not any(number in each.origin.parents for each in run.individuals)
    # none of these was on a front that held a fallen one, which dominates all of them
    assert {each.id for each in run.front} - {0}
    assert {each.id for each in run.front} - {0} <= set(run.verifications) - set(fallen)


def test_the_second_evaluation_never_starts_from_the_fork_server(
    tiny: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs, submit = [], LocalExecutor.submit

    def spy(self: LocalExecutor, job: Job, on_partial: Partial | None = None) -> Future[Outcome]:
        jobs.append(job)
        return submit(self, job, on_partial)

    monkeypatch.setattr(LocalExecutor, "submit", spy)
    run = evolve(tiny, tmp_path / "run")
    second = [job for job in jobs if job.name.endswith("-verify")]
    assert len(second) == len(run.verifications) > 0
    assert all(job.fresh and job.stage == "evaluate" for job in second)
    assert not any(job.fresh for job in jobs if job.name.endswith("-evaluate"))


def test_without_verify_luck_is_believed(tmp_path: Path) -> None:
    recorder = Recorder()
    settings = replace(UNSTEADY, verify=False)
    run = evolve(lucky_problem(tmp_path / "lucky"), tmp_path / "run", settings, listeners=[recorder])
    assert not [event for event in recorder.events if event.kind in ("verify", "verified")]
    assert run.verifications == {}
    assert run.best("closeness").scores == {"closeness": 1000.0, "size": 0.0}
    honest = evolve(lucky_problem(tmp_path / "again"), tmp_path / "honest", UNSTEADY)
    assert honest.best("closeness").scores["closeness"] <= 0


def test_a_second_evaluation_that_is_lost_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lost, submit = [], LocalExecutor.submit

    def losing(self: LocalExecutor, job: Job, on_partial: Partial | None = None) -> Future[Outcome]:
        if not job.name.endswith("-verify") or job.name in lost:
            return submit(self, job, on_partial)
        lost.append(job.name)
        future: Future[Outcome] = Future()
        future.set_result(Outcome(Status.LOST, "its node died"))
        return future

    monkeypatch.setattr(LocalExecutor, "submit", losing)
    run = evolve(lucky_problem(tmp_path / "lucky"), tmp_path / "run", UNSTEADY)
    assert len(lost) == len(run.verifications) > 0
    assert run.best("closeness").scores["closeness"] <= 0


@pytest.mark.parametrize("after", [2, 5, 7])
def test_an_interrupt_before_the_second_evaluations_changes_nothing(
    tmp_path: Path, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = evolve(lucky_problem(tmp_path / "whole"), tmp_path / "run", UNSTEADY)
    stopper = Stopper(after, monkeypatch)
    part = evolve(lucky_problem(tmp_path / "part"), tmp_path / "stopped", UNSTEADY, listeners=[stopper])
    assert part.status == "interrupted"
    resumed = session.resume(tmp_path / "stopped", llm=FunctionLLM(scripted_reply, "fake"))
    assert believed(resumed) == believed(whole)


@pytest.mark.parametrize(("kind", "count"), [("verify", 1), ("verify", 3), ("verified", 1)])
def test_a_kill_between_the_two_evaluations_changes_nothing(tmp_path: Path, kind: str, count: int) -> None:
    whole = evolve(lucky_problem(tmp_path / "whole"), tmp_path / "run", UNSTEADY)
    problem = lucky_problem(tmp_path / "part")
    options = {"population": 4, "generations": 2, "workers": 2, "sandbox": "off"}
    kill_run(problem, tmp_path / "killed", kind, count, **options)
    assert Run(tmp_path / "killed").status == "interrupted"
    resumed = session.resume(tmp_path / "killed", llm=FunctionLLM(scripted_reply, "fake"))
    assert believed(resumed) == believed(whole)
    assert [each.id for each in resumed.front] == [each.id for each in whole.front]


def test_what_has_the_program_of_a_fallen_champion_falls_with_it(tmp_path: Path) -> None:
    def always_the_same(prompt: str) -> str:
        name = re.findall(r"def (first|second|third)\(", prompt.split("```python")[-1])[0]
        return f"```python\ndef {name}():\n    return 5\n```"

    settings = Settings(population=9, generations=0, llm="fake", workers=2, sandbox="off")
    run = evolve(lucky_problem(tmp_path / "lucky"), tmp_path / "run", settings, always_the_same)
    champions = [number for number, pair in run.verifications.items() if not agree(run.problem, *pair)]
    twins = [each for each in run.individuals if each.twin in champions]
    assert twins, "they inherited its first score, in the same generation"
    for twin in twins:
        assert twin.scores == run.by_id[twin.twin or 0].scores
        assert twin.scores["closeness"] <= 0


def test_a_run_that_began_when_nothing_was_evaluated_twice_goes_on_as_it_began(tiny: Problem, tmp_path: Path) -> None:
    evolve(tiny, tmp_path / "run", Settings(population=4, generations=1, llm="fake", verify=False))
    store = Store.open(tmp_path / "run", write=True)
    kept = store.meta("settings")
    del kept["verify"]
    store.put_meta(settings=kept)
    store.close()
    recorder = Recorder()
    model = FunctionLLM(scripted_reply, "fake")
    longer = session.resume(tmp_path / "run", [recorder], {"generations": 2}, model)
    assert longer.verifications == {}
    assert longer.settings["verify"] is False
