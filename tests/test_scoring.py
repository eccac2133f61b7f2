"""What a job asks for, and which evaluations are stopped early; with real processes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

import learning
from guided_evolution import session, view
from guided_evolution.evaluation import Job
from guided_evolution.evaluation.launch import Partial
from guided_evolution.executors.local import LocalExecutor
from guided_evolution.individual import Outcome, Status
from guided_evolution.llm.scripted import FunctionLLM
from guided_evolution.problem import Problem
from guided_evolution.pruning import hopeless
from guided_evolution.replay import replay
from guided_evolution.run import Run
from guided_evolution.scoring import Scorer
from guided_evolution.settings import Settings
from guided_evolution.store import Store
from guided_evolution.testing import Recorder
from interrupting import Stopper

PRUNE = Settings(population=8, generations=2, llm="fake", prune=True)


def test_an_evaluation_asks_for_the_problems_gpus_and_a_check_for_none(tiny: Problem) -> None:
    problem = replace(tiny, limits=replace(tiny.limits, gpus=2))
    nothing = cast(Any, None)
    scorer = Scorer(problem, Settings(), nothing, nothing, lambda event: None)
    jobs = [scorer.job("1", stage, problem.genome()) for stage in ("check", "evaluate", "test")]
    assert [(job.gpus, job.device) for job in jobs] == [(0, "cpu"), (2, "cuda"), (2, "cuda")]


class Counting:
    """An executor that passes every job, and counts them."""

    slots = 1

    def __init__(self) -> None:
        self.stages: list[str] = []

    def submit(self, job: Job, on_partial: object = None) -> Future[Outcome]:
        self.stages.append(job.stage)
        future: Future[Outcome] = Future()
        future.set_result(Outcome(Status.OK))
        return future

    def close(self) -> None: ...


@pytest.mark.parametrize(
    ("evaluator", "jobs"),
    [
        ("def evaluate(program): ...", []),
        ("def check(program): ...", ["check"]),
        ("from helpers import check", ["check"]),
        ("from helpers import *", ["check"]),
        ("checked = 1", []),
    ],
)
def test_no_process_looks_for_a_check_that_isnt_there(
    tiny: Problem, tmp_path: Path, evaluator: str, jobs: list[str]
) -> None:
    (tmp_path / "evaluate.py").write_text(evaluator)
    problem, executor = replace(tiny, folder=tmp_path), Counting()
    store = Store.create(tmp_path / "run")
    scorer = Scorer(problem, Settings(), store, executor, lambda event: None)
    assert asyncio.run(scorer.check(1, problem.genome())).ok
    assert executor.stages == jobs
    store.close()


def evolve(
    problem: Problem,
    folder: Path,
    settings: Settings = PRUNE,
    listeners: Iterable[object] = (),
    reuse: Iterable[Path] = (),
) -> Run:
    model = FunctionLLM(learning.reply, "fake")
    return session.start(problem, settings, folder, listeners, model, reuse=tuple(reuse))


def story(run: Run) -> list[tuple[object, ...]]:
    return [
        (
            each.id,
            each.genome.digest,
            each.origin.parents,
            each.status,
            each.scores,
            each.outcome and each.outcome.reason,
        )
        for each in run.individuals
    ]


def pruned(run: Run) -> list[int]:
    return [each.id for each in run.individuals if each.status is Status.PRUNED]


@pytest.fixture(scope="module")
def learner(tmp_path_factory: pytest.TempPathFactory) -> Problem:
    return learning.learning_problem(tmp_path_factory.mktemp("learner") / "problem")


@pytest.fixture(scope="module")
def early(learner: Problem, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run in which some evaluations were stopped early."""
    return evolve(learner, tmp_path_factory.mktemp("early") / "run")


def test_hopeless_evaluations_are_stopped_and_have_no_part_in_what_follows(early: Run) -> None:
    stopped = pruned(early)
    assert len(stopped) >= 2
    assert min(early.by_id[number].generation for number in stopped) == 1, "there was nothing to compare with before"
    used = {parent for each in early.individuals for parent in each.origin.parents}
    taught = {step.teacher for each in early.individuals for step in each.origin.steps}
    assert not set(stopped) & (used | taught | {each.id for each in early.front})
    for number in stopped:
        outcome = early.by_id[number].outcome
        assert outcome
        assert not outcome.scores
        assert not outcome.feedback
        assert outcome.reason.startswith("stopped after step ")
        assert " were better" in outcome.reason
        curve = early.curve(early.by_id[number].genome.digest)
        assert curve[-1].scores == outcome.metrics
        assert curve[-1].step < 5


def test_each_decision_is_that_of_the_rule_on_the_generations_before(early: Run) -> None:
    with contextlib.closing(Store.open(early.folder)) as store:
        for each in early.individuals:
            if each.outcome is None or each.status is Status.REJECTED or each.twin is not None:
                continue
            curves = list(store.curves(each.generation).values())
            reasons = [
                hopeless(early.problem, curves, result.step, result.scores)
                for result in early.curve(each.genome.digest)
            ]
            assert [reason for reason in reasons if reason] == (
                [each.outcome.reason] if each.id in pruned(early) else []
            )


def test_without_the_setting_nothing_is_stopped_and_the_curves_are_kept_all_the_same(
    learner: Problem, tmp_path: Path
) -> None:
    run = evolve(learner, tmp_path / "run", replace(PRUNE, prune=False, generations=1))
    assert not pruned(run)
    for each in run.individuals:
        curve = run.curve(each.genome.digest)
        assert [result.step for result in curve] == [1, 2, 3, 4, 5]
        assert curve[-1].scores["closeness"] == each.scores["closeness"]
        assert [result.seconds for result in curve] == sorted(result.seconds for result in curve)
    assert view.pruned(run) == {"programs": 0, "seconds": None}


def test_neither_the_workers_nor_their_speed_change_what_is_stopped(
    learner: Problem, early: Run, tmp_path: Path
) -> None:
    """Without a pause an evaluation has ended before it can be stopped; with one it has not."""
    crowded = evolve(learner, tmp_path / "crowded", replace(PRUNE, workers=3, llm_parallel=2))
    assert story(crowded) == story(early)
    slow = learning.learning_problem(tmp_path / "problem", pause=0.3)
    stopped = evolve(slow, tmp_path / "slow", replace(PRUNE, workers=2))
    assert story(stopped) == story(early)
    whole = [each.outcome.seconds for each in stopped.individuals if each.ok and each.outcome]
    cut = [stopped.by_id[number].outcome for number in pruned(stopped) if stopped.by_id[number].twin is None]
    soon = [each.seconds for each in cut if each and each.metrics["effort"] == 2]
    assert soon
    assert max(soon) < min(whole), "two of four pauses less"
    saved = view.pruned(stopped)
    assert saved["programs"] == len(cut)
    assert 0 < saved["seconds"] < 2 * len(cut)


@pytest.mark.parametrize("after", [11, 14])
def test_a_run_that_was_interrupted_stops_the_same_ones(
    learner: Problem, early: Run, tmp_path: Path, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = evolve(learner, tmp_path / "run", listeners=[Stopper(after, monkeypatch)])
    assert part.status == "interrupted"
    assert len(part.individuals) < len(early.individuals)
    resumed = session.resume(tmp_path / "run", llm=FunctionLLM(learning.reply, "fake"))
    assert story(resumed) == story(early)


def test_a_stopped_program_is_not_evaluated_again_under_another_id(
    learner: Problem, early: Run, tmp_path: Path
) -> None:
    store = Store.open(early.folder)
    digest = early.by_id[pruned(early)[0]].genome.digest
    found = store.outcome_of(digest)
    assert found
    assert found.status is Status.PRUNED
    store.close()
    recorder = Recorder()
    longer = replace(PRUNE, generations=4)
    run = evolve(learner, tmp_path / "run", longer, [recorder])
    begun = [run.by_id[event.individual or 0].genome.digest for event in recorder.events if event.kind == "evaluate"]
    assert len(begun) == len(set(begun))


def test_another_run_takes_the_curves_but_not_the_decisions(learner: Problem, early: Run, tmp_path: Path) -> None:
    """What was hopeless among those programs may be of use among others."""
    recorder = Recorder()
    run = evolve(learner, tmp_path / "run", replace(PRUNE, prune=False), [recorder], [early.folder])
    measured = {run.by_id[event.individual or 0].genome.digest for event in recorder.events if event.kind == "evaluate"}
    assert not pruned(run)
    assert {early.by_id[number].genome.digest for number in pruned(early)} & measured
    taken = [each for each in run.individuals if each.outcome and each.outcome.taken_from]
    assert taken
    assert all(len(run.curve(each.genome.digest)) == 5 for each in taken)
    again = evolve(learner, tmp_path / "again", PRUNE, (), [early.folder])
    assert story(again) == story(early), "the rule stops them anew"
    assert {each.outcome.taken_from for each in again.individuals if each.id in pruned(again) and each.outcome} == {""}


def test_what_another_run_measured_whole_is_stopped_where_it_would_have_been_stopped_here(
    learner: Problem, early: Run, tmp_path: Path
) -> None:
    """Else the arms of an ablation, which share their scores, would all be without the rule."""
    whole = evolve(learner, tmp_path / "whole", replace(PRUNE, prune=False, generations=9))
    lent = {each.genome.digest for each in whole.individuals if each.ok}
    run = evolve(learner, tmp_path / "run", PRUNE, (), [early.folder, whole.folder])
    assert story(run) == story(early)
    taken = [run.by_id[number] for number in pruned(run) if run.by_id[number].genome.digest in lent]
    assert taken
    for each in taken:
        assert each.outcome
        assert each.outcome.taken_from
        curve = run.curve(each.genome.digest)
        assert (curve[-1].scores, curve[-1].seconds) == (each.outcome.metrics, each.outcome.seconds)
    assert story(evolve(learner, tmp_path / "again", PRUNE, (), [run.folder, whole.folder])) == story(early)


def test_a_replay_measures_what_was_stopped_as_far_as_it_was_measured(
    learner: Problem, early: Run, tmp_path: Path
) -> None:
    found = replay(early.folder, tmp_path / "again", learner)
    assert (found.programs, found.scores, found.front) == ({}, {}, True)
    again = found.run
    assert pruned(again) == pruned(early)
    for number in pruned(again):
        outcome, digest = again.by_id[number].outcome, again.by_id[number].genome.digest
        assert outcome
        assert not outcome.taken_from
        assert outcome.reason.startswith("stopped after step ")
        assert [(each.step, each.scores) for each in again.curve(digest)] == [
            (each.step, each.scores) for each in early.curve(digest)
        ]


def test_a_second_measurement_is_never_cut_short(
    learner: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, bool] = {}
    original = LocalExecutor.submit

    def submit(self: LocalExecutor, job: Job, on_partial: Partial | None = None) -> Future[Outcome]:
        asked[job.name] = on_partial is not None
        return original(self, job, on_partial)

    monkeypatch.setattr(LocalExecutor, "submit", submit)
    run = evolve(learner, tmp_path / "run")
    twice = [name for name in asked if name.endswith("-verify")]
    assert len(twice) == len(run.verifications) > 0
    assert not any(asked[name] for name in twice)
    assert all(asked[name] for name in asked if name.endswith("-evaluate"))


def test_a_run_says_why_nothing_can_be_stopped(tiny: Problem, tmp_path: Path) -> None:
    recorder = Recorder()
    evolve(tiny, tmp_path / "run", replace(PRUNE, population=2, generations=1), [recorder])
    told = [event.text for event in recorder.events if event.kind == "note" and "stopped early" in event.text]
    assert told == ["nothing can be stopped early: evaluate yields no more than 2 partial results"]
