from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from guided_evolution import session, view
from guided_evolution.errors import ModelError, RunError, UsageError
from guided_evolution.individual import Exchange, Outcome, Status
from guided_evolution.llm import Reply, Request
from guided_evolution.llm.scripted import FunctionLLM
from guided_evolution.problem import Problem
from guided_evolution.replay import replay
from guided_evolution.run import Run
from guided_evolution.settings import Settings
from guided_evolution.store import Store
from guided_evolution.testing import Recorder, scripted_reply
from guided_evolution.verification import agree
from unsteady import clock_problem

GE = Path(sys.executable).parent / "ge"
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


class Counting:
    """A scripted model with prices that remembers what it was asked."""

    def __init__(self, name: str = "fake", *, small: bool = False, most: int = 10**6) -> None:
        self.name, self.small, self.most = name, small, most
        self.asked: list[str] = []

    def price(self, tokens_in: int, tokens_out: int) -> float | None:
        return 0.01

    async def ask(self, request: Request, on_text: object = None) -> Reply:
        if len(self.asked) >= self.most:
            raise ModelError("the key is wrong", permanent=True)
        self.asked.append(request.prompt)
        text = scripted_reply(request.prompt)
        return Reply(text, "fake-1", tokens_in=100, tokens_out=50, usd=0.01, seconds=7.0)

    async def close(self) -> None:
        pass


def talk(run: Run) -> list[tuple[object, ...]]:
    calls = [call for each in run.individuals for call in run.individual(each.id).origin.exchanges]
    names = [name for name in Exchange.__dataclass_fields__ if name != "taken_from"]
    return [tuple(getattr(call, name) for name in names) for call in calls]


def sources(run: Run) -> set[str]:
    return {call.taken_from for call in run.calls}


@pytest.mark.parametrize("small", [False, True])
def test_a_question_that_another_run_asked_is_not_asked_again_and_not_paid_again(
    tiny: Problem, tmp_path: Path, small: bool
) -> None:
    settings = replace(SETTINGS, p_eot=0.9, p_mate=0.5)
    model = Counting(small=small)
    first = session.start(tiny, settings, tmp_path / "first", (), model)
    assert first.spending["calls"] == len(model.asked) > 6
    assert first.spending["taken"] == 0
    second, recorder = Counting(small=small), Recorder()
    again = session.start(tiny, settings, tmp_path / "again", [recorder], second, reuse=[tmp_path / "first"])
    assert second.asked == []
    assert talk(again) == talk(first)
    assert sources(again) == {str(tmp_path / "first")}
    assert sources(first) == {""}
    spent = again.spending
    assert {spent[name] for name in ("calls", "tokens_in", "tokens_out", "usd", "unpriced", "seconds")} == {0}
    assert spent["taken"] == first.spending["calls"]
    assert again.individual(1).origin.exchanges[0].usd == 0.01, "the record says what it would have cost"
    replies = [event.data for event in recorder.events if event.kind == "reply"]
    assert {each["taken_from"] for each in replies} == {str(tmp_path / "first")}
    assert {each["tokens_in"] for each in replies} == {0}
    assert not [event for event in recorder.events if event.kind == "ask"]
    document = view.run_document(again)
    assert document["spending"]["taken"] == spent["taken"]
    assert document["estimate"] is None
    assert set(document["series"]["tokens"]) == {0}
    assert not [row for row in document["lanes"]["intervals"] if row["lane"] == "model"]
    third = session.start(tiny, settings, tmp_path / "third", (), Counting(small=small), reuse=[tmp_path / "again"])
    assert sources(third) == {str(tmp_path / "first")}, "where it was paid for, not where it was read"
    found = replay(tmp_path / "again", tmp_path / "replay", tiny)
    assert (found.programs, found.scores) == ({}, {})
    assert sources(found.run) == {""}, "a replay has its replies from the model that the record is"


def test_what_differs_is_asked_and_shared_is_only_what_is_the_same(tiny: Problem, tmp_path: Path) -> None:
    first = session.start(tiny, SETTINGS, tmp_path / "first", (), Counting())
    plain = Counting()
    run = session.start(
        tiny, replace(SETTINGS, characters=False), tmp_path / "plain", (), plain, reuse=[tmp_path / "first"]
    )
    assert 0 < run.spending["calls"] == len(plain.asked)
    assert run.spending["taken"] > 0
    for each in run.individuals[1:4]:
        spoke = first.individual(each.id).origin.character != "plain"
        taken = {bool(call.taken_from) for call in run.individual(each.id).origin.exchanges}
        assert taken == {not spoke}
    whole = Counting()
    alone = session.start(tiny, replace(SETTINGS, characters=False), tmp_path / "alone", (), whole)
    assert talk(alone) == talk(run), "sharing changes nothing but the cost"
    for name, changes in (("other", {}), ("fake", {"top_p": 0.5}), ("fake", {"temperature": (0.3, 0.3)})):
        other = Counting(name)
        folder = tmp_path / f"{name}{len(changes)}{sorted(changes)}"
        session.start(tiny, replace(SETTINGS, **changes), folder, (), other, reuse=[tmp_path / "first"])
        assert sources(Run(folder)) == {""}, (name, changes)


def test_budgets_count_what_was_asked_here_alone(tiny: Problem, tmp_path: Path) -> None:
    first = session.start(tiny, SETTINGS, tmp_path / "first", (), Counting())
    tight = replace(SETTINGS, max_tokens=1, max_usd=0.001)
    free = session.start(tiny, tight, tmp_path / "free", (), Counting(), reuse=[tmp_path / "first"])
    assert free.stop_reason == first.stop_reason == "2 generations done"
    longer = replace(tight, generations=3)
    stopped = session.start(tiny, longer, tmp_path / "stopped", (), Counting(), reuse=[tmp_path / "first"])
    assert stopped.stop_reason.startswith("max_tokens reached")
    assert stopped.spending["calls"] == 0


def test_a_run_that_takes_replies_is_resumed_where_it_stopped(tiny: Problem, tmp_path: Path) -> None:
    first = Counting(most=5)
    with pytest.raises(ModelError):
        session.start(tiny, SETTINGS, tmp_path / "first", (), first)
    second = Counting(most=3)
    with pytest.raises(ModelError):
        session.start(tiny, SETTINGS, tmp_path / "run", (), second, reuse=[tmp_path / "first"])
    assert Run(tmp_path / "run").spending["calls"] == 3
    assert Run(tmp_path / "run").spending["taken"] == 5
    third = Counting()
    run = session.resume(tmp_path / "run", llm=third)
    assert run.spending["calls"] == 3 + len(third.asked)
    assert run.spending["taken"] == 5
    whole = Counting()
    alone = session.start(tiny, SETTINGS, tmp_path / "alone", (), whole)
    assert talk(alone) == talk(run)
    assert sorted(first.asked + second.asked + third.asked) == sorted(whole.asked), "each question was asked once"


def test_a_question_is_looked_up_by_an_index(tmp_path: Path) -> None:
    store = Store.create(tmp_path)
    statements: list[str] = []
    store._db.set_trace_callback(statements.append)
    assert store.answer("0" * 64) is None
    plan = store._db.execute(f"EXPLAIN QUERY PLAN {statements[0]}").fetchall()
    assert any("USING INDEX exchanges_question" in row["detail"] for row in plan)


def test_people_are_told_where_a_reply_came_from(tiny: Problem, tmp_path: Path) -> None:
    for folder, reuse in (("first", ()), ("again", ("--reuse", "first"))):
        arguments = [str(GE), "run", "tiny", "--generations", "0", "--run", folder, *reuse]
        told = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert told.returncode == 0, told.stderr
    assert "0 model calls, 0 tokens, 4 replies taken from other runs" in told.stderr
    shown = subprocess.run([str(GE), "show", "again", "1"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert f"taken from {tmp_path / 'first'}" in shown.stdout.replace("\n", "")
    shown = subprocess.run([str(GE), "show", "again"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert "4 replies were taken from other runs" in shown.stdout
