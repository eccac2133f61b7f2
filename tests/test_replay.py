from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from guided_evolution import session
from guided_evolution.errors import ModelError, ProblemError
from guided_evolution.llm.scripted import FunctionLLM
from guided_evolution.problem import Problem
from guided_evolution.replay import replay
from guided_evolution.run import Run
from guided_evolution.settings import Settings
from guided_evolution.store import FILE, Store
from guided_evolution.testing import Recorder, scripted_reply, write_tiny_problem
from guided_evolution.verification import agree, worse_of
from unsteady import clock_problem, lucky_problem

GE = Path(sys.executable).parent / "ge"
SETTINGS = Settings(population=4, generations=2, p_eot=0.5, llm="fake", workers=2, seed=1)


def moody(prompt: str) -> str:
    """Some replies are of no use, so that there are repairs, draws and rejections to be replayed."""
    return "no" if "def second" in prompt.split("```")[-2] and len(prompt) % 3 == 0 else scripted_reply(prompt)


def evolve(problem: Problem, folder: Path, settings: Settings = SETTINGS, *, small: bool = True) -> Run:
    return session.start(problem, settings, folder, (), FunctionLLM(moody, "fake", small=small))


def words(run: Run) -> list[object]:
    return [
        (each.id, each.genome.files, each.origin.parents, each.origin.steps, each.twin, each.status, each.scores)
        for each in run.individuals
    ] + [
        (call.purpose, call.model, call.prompt, call.reply, call.verdict, call.temperature)
        for each in run.individuals
        for call in run.individual(each.id).origin.exchanges
    ]


@pytest.mark.parametrize("small", [True, False])
def test_a_replay_gives_the_same_individuals_byte_for_byte_and_scores_them_anew(
    tiny: Problem, tmp_path: Path, small: bool
) -> None:
    run = evolve(tiny, tmp_path / "run", small=small)
    recorder = Recorder()
    found = replay(tmp_path / "run", tmp_path / "again", tiny, [recorder])
    assert (found.programs, found.prompts, found.scores, found.front, found.compared) == ({}, [], {}, True, 13)
    assert words(found.run) == words(run)
    assert {each.outcome.taken_from for each in found.run.individuals if each.outcome} == {""}, "all measured here"
    assert found.run.spending["usd"] == 0
    assert found.run.spending["calls"] == run.spending["calls"]
    assert found.run.replay_of == str(tmp_path / "run")
    assert found.run.status == "done"
    finer = replay(tmp_path / "again", tmp_path / "third", tiny)
    assert (finer.programs, finer.scores) == ({}, {}), "a replay is a record like any other"


def test_scores_that_differ_are_listed_and_lead_to_no_other_program(tmp_path: Path) -> None:
    folder = write_tiny_problem(tmp_path / "tiny")
    evaluator = (folder / "evaluate.py").read_text()
    # what no digest covers: another machine, another library, noise
    noise = "values[0] * float((__import__('pathlib').Path(__file__).parent / 'noise').read_text())"
    (folder / "evaluate.py").write_text(
        evaluator.replace('"closeness": -distance', f'"closeness": -distance + {noise}')
    )
    (folder / "noise").write_text("0")
    problem = Problem.load(folder)
    run = evolve(problem, tmp_path / "run")
    (folder / "noise").write_text("10")
    found = replay(tmp_path / "run", tmp_path / "again", problem)
    assert found.programs == {}
    assert [each.genome.digest for each in found.run.individuals] == [each.genome.digest for each in run.individuals]
    assert set(found.scores) == {each.id for each in run.individuals if each.ok}
    before, after = found.scores[0]
    assert before.scores == run.seed.scores
    assert after.scores == found.run.seed.scores == {**before.scores, "closeness": before.scores["closeness"] + 10}
    assert found.front is False


def test_a_reply_that_was_tampered_with_is_found(tiny: Problem, tmp_path: Path) -> None:
    evolve(tiny, tmp_path / "run")
    with sqlite3.connect(tmp_path / "run" / FILE) as database:
        database.execute(
            "UPDATE exchanges SET reply = ? WHERE individual = 1 AND turn = "
            "(SELECT MAX(turn) FROM exchanges WHERE individual = 1)",
            ("```python\ndef first():\n    return 77\n```",),
        )
    found = replay(tmp_path / "run", tmp_path / "again", tiny)
    assert 1 in found.programs


def test_prompts_in_other_words_are_told_of_and_the_replies_still_make_the_same_programs(
    tiny: Problem, tmp_path: Path
) -> None:
    run = evolve(tiny, tmp_path / "run")
    tiny.prompts.mkdir()
    (tiny.prompts / "rules.md").write_text("- Be careful.")
    found = replay(tmp_path / "run", tmp_path / "again", tiny)
    assert (found.programs, found.scores, found.front) == ({}, {}, True)
    assert len(found.prompts) == sum(bool(each.origin.steps) for each in run.individuals) > 0
    assert "Be careful." in found.run.individual(1).origin.exchanges[0].prompt


def test_a_run_that_was_interrupted_is_replayed_as_far_as_it_goes(tiny: Problem, tmp_path: Path) -> None:
    calls = 0

    def failing(prompt: str) -> str:
        nonlocal calls
        calls += 1
        if calls > 9:
            raise ModelError("the key is wrong", permanent=True)
        return scripted_reply(prompt)

    with pytest.raises(ModelError):
        session.start(tiny, SETTINGS, tmp_path / "run", (), FunctionLLM(failing, "fake", small=True))
    found = replay(tmp_path / "run", tmp_path / "again", tiny)
    assert (found.programs, found.scores) == ({}, {})
    assert found.compared == len(found.run.individuals) > 5
    assert found.run.stop_reason == f"as far as {tmp_path / 'run'} goes"


def test_budgets_of_the_recorded_run_do_not_cut_its_replay(tiny: Problem, tmp_path: Path) -> None:
    settings = Settings(population=4, generations=9, llm="fake", max_evaluations=10, max_usd=1.0, workers=1)
    run = evolve(tiny, tmp_path / "run", settings)
    found = replay(tmp_path / "run", tmp_path / "again", tiny)
    assert found.programs == {}
    assert words(found.run) == words(run)
    assert found.run.stop_reason == run.stop_reason == "max_evaluations reached (10)"


def test_the_problem_must_be_the_recorded_one_wherever_it_lies(tiny: Problem, tmp_path: Path) -> None:
    evolve(tiny, tmp_path / "run", Settings(population=1, generations=0))
    shutil.move(tiny.folder, tmp_path / "moved")
    moved = Problem.load(tmp_path / "moved")
    assert replay(tmp_path / "run", tmp_path / "again", moved).scores == {}
    with (moved.folder / "evaluate.py").open("a") as file:
        file.write("\n# changed\n")
    with pytest.raises(ProblemError, match="isn't the problem of"):
        replay(tmp_path / "run", tmp_path / "third", Problem.load(moved.folder))
    assert not (tmp_path / "third").exists()


def test_a_record_of_the_first_schema_is_replayed(tmp_path: Path) -> None:
    records = Path(__file__).parent / "records"
    (tmp_path / "run").mkdir()
    shutil.copyfile(records / "schema-1.sqlite", tmp_path / "run" / FILE)
    found = replay(tmp_path / "run", tmp_path / "again", Problem.load(records / "problem"), (), {"workers": 1})
    assert (found.programs, found.scores, found.compared) == ({}, {}, 11)


def test_a_record_is_a_model_for_another_configuration(tiny: Problem, tmp_path: Path) -> None:
    run = evolve(tiny, tmp_path / "run")
    shorter = Settings(population=4, generations=1, p_eot=0.5, seed=1, llm=f"replay:{tmp_path / 'run'}")
    other = session.start(tiny, shorter, tmp_path / "other")
    assert words(other)[:9] == words(run)[:9]
    assert other.spending["usd"] == 0
    longer = Settings(population=4, generations=3, p_eot=0.5, seed=1, llm=f"replay:{tmp_path / 'run'}")
    with pytest.raises(ModelError, match=r"replay:.*run has no reply to this prompt \(\w+ of individual \d+\)"):
        session.start(tiny, longer, tmp_path / "longer")


def ge(*arguments: object, cwd: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "160"}
    result = subprocess.run(
        [str(GE), *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=120, env=environment
    )
    assert result.returncode == code, (result.returncode, result.stdout, result.stderr)
    assert "Traceback" not in result.stderr
    return result


def test_the_command_line_replays_compares_and_reuses(tmp_path: Path) -> None:
    write_tiny_problem(tmp_path / "tiny")
    ge("run", "tiny", "--generations", 1, "--run", "one", cwd=tmp_path)
    said = ge("replay", "one", "--run", "two", cwd=tmp_path)
    assert "all 9 are the same, byte for byte. Scores: all are the same. The front is the same." in said.stdout
    document = json.loads(ge("replay", "one", "--json", cwd=tmp_path).stdout)
    assert document["schema"] == 1
    assert (document["compared"], document["programs"], document["scores"], document["front"]) == (9, {}, {}, True)
    assert "made again from the replies of" in ge("show", "two", cwd=tmp_path).stdout
    assert "already holds a run" in ge("replay", "one", "--run", "two", cwd=tmp_path, code=1).stderr
    store = Store.open(tmp_path / "one", write=True)
    with store._writing() as database:
        database.execute("UPDATE exchanges SET reply = 'nothing' WHERE individual = 2")
    store.close()
    said = ge("replay", "one", "--run", "three", cwd=tmp_path, code=1)
    assert "#2  was not made again" in said.stdout
    assert re.search(r"It ended early: replay:.*one has no reply to this prompt \(\w+ of individual 2\)", said.stderr)
    ge("run", "tiny", "--generations", 1, "--run", "four", "--reuse", "two", cwd=tmp_path)
    assert "(scored in " in ge("show", "four", cwd=tmp_path).stdout
    assert "local" in ge("replay", "one", "--executor", "cloud", "--run", "s", cwd=tmp_path, code=2).stderr
    refused = ge("run", "tiny", "--seed", 9, "--run", "five", "--reuse", "two", cwd=tmp_path, code=2).stderr
    assert "it scored with --seed 0, not 9" in refused
    model = ["--llm", "replay:one", "--generations", 2]
    said = ge("run", "tiny", *model, "--run", "six", cwd=tmp_path, code=1).stderr
    assert "replay:one has no reply to this prompt" in said


def test_what_two_measurements_left_decides_a_replay_and_both_are_made_again(tmp_path: Path) -> None:
    problem = clock_problem(tmp_path / "clock")
    run = evolve(problem, tmp_path / "run")
    assert any(not agree(problem, *pair) for pair in run.verifications.values())
    recorder = Recorder()
    found = replay(tmp_path / "run", tmp_path / "again", problem, [recorder])
    assert found.programs == {}, "noise leads to no other program"
    ended = [event for event in recorder.events if event.kind == "generation"][-1]
    selected = [(each.id, each.scores) for each in ended.data["front"]]
    assert selected == [(each.id, each.scores) for each in run.front], "selection went by what was believed then"
    assert found.scores, "a clock gives other values now"
    assert set(found.run.verifications) == set(run.verifications)
    for number, pair in found.run.verifications.items():
        assert found.run.by_id[number].scores == worse_of(problem, *pair).scores
        assert not pair[0].taken_from
        assert not pair[1].taken_from
    assert found.run.settings["verify"] is True


@pytest.mark.parametrize("says", [True, False])
def test_what_was_evaluated_once_is_measured_once_in_a_replay(tmp_path: Path, says: bool) -> None:
    """As an interrupt leaves it before the second evaluations, and a run of an earlier version."""
    problem = clock_problem(tmp_path / "clock")
    evolve(problem, tmp_path / "run", replace(SETTINGS, verify=False))
    store = Store.open(tmp_path / "run", write=True)
    kept = {name: value for name, value in store.meta("settings").items() if name != "verify"}
    store.put_meta(settings={**kept, "verify": True} if says else kept)
    store.close()
    recorder = Recorder()
    found = replay(tmp_path / "run", tmp_path / "again", problem, [recorder])
    assert found.programs == {}
    assert found.run.verifications == {}
    assert not [event for event in recorder.events if event.kind in ("verify", "verified")]
    assert found.run.settings["verify"] is says


def test_a_champion_that_fell_stays_fallen_in_a_replay(tmp_path: Path) -> None:
    problem = lucky_problem(tmp_path / "lucky")
    settings = Settings(population=4, generations=2, llm="fake", workers=2, sandbox="off")
    run = session.start(problem, settings, tmp_path / "run", (), FunctionLLM(scripted_reply, "fake"))
    assert any(not agree(problem, *pair) for pair in run.verifications.values())
    found = replay(tmp_path / "run", tmp_path / "again", problem)
    # every program has had its luck by now, so what is measured is what was believed
    assert (found.programs, found.scores, found.front) == ({}, {}, True)
    assert [each.id for each in found.run.front] == [each.id for each in run.front]
