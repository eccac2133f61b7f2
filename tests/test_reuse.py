from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from guided_evolution import session
from guided_evolution.errors import RunError, UsageError
from guided_evolution.individual import Outcome, Status
from guided_evolution.llm.scripted import FunctionLLM
from guided_evolution.problem import Problem
from guided_evolution.run import Run
from guided_evolution.settings import Settings
from guided_evolution.store import Store
from guided_evolution.testing import Recorder, scripted_reply
from guided_evolution.verification import agree
from unsteady import clock_problem

SETTINGS = Settings(population=3, generations=2, llm="fake", workers=1)


def evolve(problem: Problem, folder: Path, *reuse: Path, settings: Settings = SETTINGS) -> tuple[Run, Recorder]:
    recorder = Recorder()
    run = session.start(problem, settings, folder, [recorder], FunctionLLM(scripted_reply, "fake"), reuse=reuse)
    return run, recorder


def counts(recorder: Recorder) -> tuple[int, int]:
    kinds = [event.kind for event in recorder.events]
    return kinds.count("check"), kinds.count("evaluate")


def test_programs_that_another_run_scored_are_not_scored_again_and_the_record_says_where(
    tiny: Problem, tmp_path: Path
) -> None:
    first, recorder = evolve(tiny, tmp_path / "first")
    assert min(counts(recorder)) > 0
    again, recorder = evolve(tiny, tmp_path / "again", tmp_path / "first")
    assert counts(recorder) == (0, 0)
    assert [(each.genome.digest, each.scores) for each in again.individuals] == [
        (each.genome.digest, each.scores) for each in first.individuals
    ]
    assert {each.outcome.taken_from for each in again.individuals if each.ok} == {str(tmp_path / "first")}
    assert {each.outcome.taken_from for each in first.individuals if each.ok} == {""}
    third, _ = evolve(tiny, tmp_path / "third", tmp_path / "again")
    assert third.seed.outcome
    assert third.seed.outcome.taken_from == str(tmp_path / "first"), "where it was measured, not where it was read"


def test_what_is_new_is_scored_here_also_after_a_resume_without_the_other_run(tiny: Problem, tmp_path: Path) -> None:
    evolve(tiny, tmp_path / "first", settings=Settings(population=3, generations=0, workers=1))
    run, recorder = evolve(tiny, tmp_path / "run", tmp_path / "first")
    assert {each.outcome.taken_from for each in run.individuals if each.generation == 0} == {str(tmp_path / "first")}
    assert counts(recorder)[1] == len({each.genome.digest for each in run.individuals if not each.outcome.taken_from})
    assert counts(recorder)[1] > 0
    shutil.rmtree(tmp_path / "first")
    recorder = Recorder()
    model = FunctionLLM(scripted_reply, "fake")
    longer = session.resume(tmp_path / "run", [recorder], {"generations": 3}, model)
    assert len(longer.individuals) == 1 + 4 * 3
    assert any("nothing more is taken" in event.text for event in recorder.events)


def test_time_outs_and_memory_are_not_borrowed_for_they_are_the_machines(tiny: Problem, tmp_path: Path) -> None:
    first, _ = evolve(tiny, tmp_path / "first", settings=Settings(population=3, generations=0, workers=1))
    slow, crashed = first.individuals[1], first.individuals[2]
    first.close()
    store = Store.open(tmp_path / "first", write=True)
    store.put_outcome(slow.id, Outcome(Status.TIMED_OUT, "too slow there"))
    store.put_outcome(crashed.id, Outcome(Status.CRASHED, "a bug"))
    store.close()
    run, _ = evolve(tiny, tmp_path / "run", tmp_path / "first")
    assert run.individual(slow.id).ok
    assert run.individual(crashed.id).status is Status.CRASHED


def test_another_problem_or_seed_is_refused_and_leaves_no_run_behind(tiny: Problem, tmp_path: Path) -> None:
    evolve(tiny, tmp_path / "first", settings=Settings(population=1, generations=0))
    with pytest.raises(UsageError, match=r"--reuse .*first: it scored with --seed 0, not 5"):
        evolve(tiny, tmp_path / "run", tmp_path / "first", settings=Settings(seed=5))
    with (tiny.folder / "evaluate.py").open("a") as file:
        file.write("\n# changed\n")
    with pytest.raises(UsageError, match=r"--reuse .*first: its problem isn't the same"):
        evolve(Problem.load(tiny.folder), tmp_path / "run", tmp_path / "first")
    with pytest.raises(RunError, match="no run here"):
        evolve(tiny, tmp_path / "run", tmp_path / "nowhere")
    assert not (tmp_path / "run").exists()


def test_what_was_measured_twice_there_is_not_measured_again(tmp_path: Path) -> None:
    problem = clock_problem(tmp_path / "clock")
    first, _ = evolve(problem, tmp_path / "first")
    assert any(not agree(problem, *pair) for pair in first.verifications.values())
    again, recorder = evolve(problem, tmp_path / "again", tmp_path / "first")
    assert not [event for event in recorder.events if event.kind in ("evaluate", "verify")]
    assert [each.scores for each in again.front] == [each.scores for each in first.front]
    assert {each.id for each in again.front} - {0} <= set(again.verifications)
    assert {second.taken_from for _, second in again.verifications.values()} == {str(tmp_path / "first")}


def test_what_was_measured_once_there_and_enters_the_front_here_is_measured_again_here(
    tiny: Problem, tmp_path: Path
) -> None:
    evolve(tiny, tmp_path / "first", settings=replace(SETTINGS, verify=False))
    again, recorder = evolve(tiny, tmp_path / "again", tmp_path / "first")
    asked = [event.individual for event in recorder.events if event.kind == "verify"]
    assert sorted(asked) == sorted(again.verifications)
    assert asked
    assert all(first.taken_from and not second.taken_from for first, second in again.verifications.values())
