from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from guided_evolution import session, view
from guided_evolution.genome import Genome
from guided_evolution.individual import Individual
from guided_evolution.llm.no_model import NoModel
from guided_evolution.operators import Proposal, Rejection
from guided_evolution.problem import Problem
from guided_evolution.random_operators import RandomEdit, RandomMate
from guided_evolution.replay import replay
from guided_evolution.run import Run, open_run
from guided_evolution.settings import Settings
from guided_evolution.testing import Recorder, write_tiny_problem
from test_operators import Desk, child_of, propose, scored

GE = Path(sys.executable).parent / "ge"
SETTINGS = Settings(population=6, generations=3, p_mate=0.9, p_eot=1.0, llm="random", workers=2)
EXAMPLES = Path(__file__).parent.parent / "examples"


def ge(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    # there is no model to be found and none to be fetched
    nothing = {"GUIDED_EVOLUTION_CACHE": str(cwd / "no-cache"), "GUIDED_EVOLUTION_MODEL": ""}
    result = subprocess.run(
        [str(GE), *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=300, env=os.environ | nothing
    )
    assert result.returncode == 0, result.stderr
    assert not list(cwd.rglob("*.gguf*"))
    return result


def story(run: Run) -> list[tuple[object, ...]]:
    return [(each.id, each.genome.files, each.origin, each.twin, each.scores) for each in run.individuals]


@pytest.fixture
def seed(tiny: Problem) -> Individual:
    return scored(0, tiny.genome(), -25, 6)


def test_one_block_is_edited_and_nothing_is_asked(tiny: Problem, seed: Individual) -> None:
    blocks = set()
    for number in range(30):
        desk = Desk(tiny, seed=number)
        result = propose(RandomEdit(), [seed], desk)
        assert isinstance(result, Proposal)
        assert result.genome.changed(seed.genome) == (result.step.block,)
        assert result.step.operator == "random"
        assert "->" in result.step.move
        assert desk.asked == []
        blocks.add(result.step.block)
    assert blocks == {"first", "second", "third"}


def test_what_fails_the_check_is_edited_afresh_and_at_last_rejected(tiny: Problem, seed: Individual) -> None:
    tried: list[str] = []

    def check(genome: Genome) -> str:
        tried.append(genome.digest)
        return "ValueError: no" if len(tried) < 3 else ""

    desk = Desk(tiny, check=check)
    assert isinstance(propose(RandomEdit(), [seed], desk), Proposal)
    assert desk.refused == ["check failed: ValueError: no"] * 2
    assert len(set(tried)) > 1
    result = propose(RandomEdit(), [seed], Desk(tiny, check=lambda genome: "ValueError: no"))
    assert isinstance(result, Rejection)
    assert result.reason == "check failed: ValueError: no"
    assert result.step
    assert result.step.move


def test_a_block_without_anything_to_edit_gives_way_and_a_program_without_is_said(tiny: Problem) -> None:
    bare = "def first():\n    pass\n\n\ndef second():\n    return 2\n"
    for number in range(10):
        result = propose(RandomEdit(), [scored(0, Genome.parse({"seed.py": bare}), 0, 0)], Desk(tiny, seed=number))
        assert isinstance(result, Proposal)
        assert result.step.block == "second"
    nothing = scored(0, Genome.parse({"seed.py": "def first():\n    pass\n"}), 0, 0)
    result = propose(RandomEdit(), [nothing], Desk(tiny))
    assert result == Rejection("no block holds anything that random edits change")


def test_indented_blocks_and_foreign_line_ends_are_edited_in_place(tiny: Problem) -> None:
    text = "\ufeffclass A:\r\n    # ge: block inner\r\n    def f(self):\r\n        return 4 * 2\r\n    # ge: end\r\n"
    genome = Genome.parse({"seed.py": text})
    for number in range(20):
        result = propose(RandomEdit(), [scored(0, genome, 0, 0)], Desk(tiny, seed=number))
        assert isinstance(result, Proposal)
        child = result.genome.text("seed.py")
        assert child.startswith("\ufeffclass A:\r\n    # ge: block inner\r\n    def f(self):\r\n        return ")
        assert child.count("\n") == child.count("\r\n") == text.count("\r\n")


def test_mating_takes_the_partners_version_of_a_block(tiny: Problem, seed: Individual) -> None:
    first = child_of(seed, 1, "first", "def first():\n    return 5 * SCALE\n", -21, 10)
    second = child_of(seed, 2, "third", "def third():\n    return 9 * SCALE\n", -19, 12)
    both = child_of(second, 3, "first", "def first():\n    return 6 * SCALE\n", -18, 13)
    taken = set()
    for number in range(20):
        result = propose(RandomMate(), [first, both], Desk(tiny, seed=number))
        assert isinstance(result, Proposal)
        name = result.step.block
        assert (result.step.operator, result.step.category) == ("mate", "swap")
        assert result.genome.changed(first.genome) == (name,)
        assert result.genome.block(name).source == both.genome.block(name).source
        assert result.genome.digest not in (first.genome.digest, both.genome.digest)
        taken.add(name)
    assert taken == {"first", "third"}
    for parents in ([first, seed], [first, first], [seed, first], [second, both]):
        result = propose(RandomMate(), parents, Desk(tiny))
        assert isinstance(result, Rejection)
        assert result.idle, "the child would be one of its parents, or lose what the first has"


def test_a_run_without_a_model_from_end_to_end(tiny: Problem, tmp_path: Path) -> None:
    recorder = Recorder()
    run = session.start(tiny, SETTINGS, tmp_path / "run", [recorder])
    assert run.status == "done"
    assert len(run.individuals) == 1 + 4 * 6
    assert run.best("closeness").scores["closeness"] > -25
    steps = [step for each in run.individuals for step in each.origin.steps]
    assert {step.operator for step in steps} == {"random", "mate"}
    assert {step.category for step in steps if step.operator == "mate"} == {"swap"}
    assert run.spending["calls"] == 0
    assert not [event for event in recorder.events if event.kind in ("ask", "reply")]
    again = session.start(tiny, SETTINGS, tmp_path / "again")
    assert story(again) == story(run)
    other = session.start(tiny, Settings(**{**SETTINGS.to_json(), "seed": 1}), tmp_path / "other")
    assert [each.genome.digest for each in other.individuals] != [each.genome.digest for each in run.individuals]
    found = replay(tmp_path / "run", tmp_path / "replay", tiny)
    assert (found.programs, found.scores, found.front, found.compared) == ({}, {}, True, 25)
    document = view.run_document(run)
    assert {row["model"] for row in document["breakdown"]} == {"random"}
    counts = view.grouped(document["breakdown"], "operator")
    assert counts["random"]["tried"] == counts["random"]["passed"] == counts["random"]["scored"] > 0
    assert document["estimate"]["took"]["calls"] == document["estimate"]["estimated"]["calls"] == 0


def test_a_budget_counts_where_nothing_is_asked(tiny: Problem, tmp_path: Path) -> None:
    settings = Settings(population=3, generations=9, llm="random", max_tokens=1, max_usd=0.01, max_evaluations=6)
    run = session.start(tiny, settings, tmp_path / "run")
    assert run.stop_reason == "max_evaluations reached (6)"
    short = Settings(population=3, generations=200, llm="random", max_hours=0.0008)
    assert session.start(tiny, short, tmp_path / "short").stop_reason.startswith("max_hours")


def test_in_an_ensemble_children_are_made_in_both_ways_and_lessons_are_asked_of_a_model(tmp_path: Path) -> None:
    write_tiny_problem(tmp_path / "tiny")
    with (tmp_path / "tiny" / "model.py").open("a") as file:
        file.write("\nsmall = True\n")
    models = ("--llm", "scripted:tiny/model.py", "--llm", "random")
    sizes = ("--p-eot", 1, "--population", 6, "--generations", 3)
    ge("run", "tiny", *models, *sizes, "--run", "run", cwd=tmp_path)
    run = open_run(tmp_path / "run")
    operators = {step.operator for each in run.individuals for step in each.origin.steps}
    assert {"random", "eot", "mutate"} <= operators
    assert {call.model for call in run.calls if call.purpose == "distil"} == {"scripted:model.py"}
    for each in run.individuals[1:]:
        asked = run.individual(each.id).origin.exchanges
        made_by_chance = any(step.operator == "random" for step in each.origin.steps)
        assert not (asked and made_by_chance)
        assert asked or made_by_chance or {step.category for step in each.origin.steps} == {"swap"}
    assert json.loads(ge("replay", "run", "--run", "again", "--json", cwd=tmp_path).stdout)["programs"] == {}


def test_what_nobody_was_asked_for_is_experience_of_an_adaptive_ensemble(tmp_path: Path) -> None:
    write_tiny_problem(tmp_path / "tiny")
    models = ("--llm", "scripted:tiny/model.py", "--llm", "random", "--llm-choice", "adaptive")
    ge("run", "tiny", *models, "--generations", 1, "--run", "run", cwd=tmp_path)
    run = open_run(tmp_path / "run")
    first = [run.individual(each.id) for each in run.individuals if each.generation == 0 and each.id]
    rows = {row["model"]: row["tried"] for row in run.model_choices[-1]["models"]}
    made = sum(not each.origin.exchanges for each in first)
    assert rows == {"random": made, "scripted:model.py": len(first) - made}
    assert made > 0


def test_the_command_line_needs_no_model_and_a_killed_run_goes_on(tmp_path: Path) -> None:
    write_tiny_problem(tmp_path / "tiny")
    shown = ge("check", "tiny", "--llm", "random", cwd=tmp_path).stdout
    assert "random tries random " in shown
    assert "0 question(s)" in shown
    assert "0 calls, 0 tokens" in ge("run", "tiny", "--llm", "random", "--dry-run", cwd=tmp_path).stdout
    options = ("--llm", "random", "--population", "5", "--generations", "3")
    ge("run", "tiny", *options, "--run", "whole", cwd=tmp_path)
    process = subprocess.Popen([str(GE), "run", "tiny", *options, "--run", "killed"], cwd=tmp_path, stderr=-3)
    while process.poll() is None:
        record = tmp_path / "killed" / "run.sqlite"
        if record.exists() and len(open_run(record).individuals) > 7:
            process.send_signal(signal.SIGKILL)
            process.wait()
        time.sleep(0.02)
    assert process.returncode == -signal.SIGKILL
    ge("resume", "killed", cwd=tmp_path)
    assert story(open_run(tmp_path / "killed")) == story(open_run(tmp_path / "whole"))


def test_nobody_is_there_to_be_asked() -> None:
    model = NoModel()
    assert (model.name, model.small, model.price(1000, 1000), model.unasked(3)) == ("random", True, 0.0, True)


@pytest.mark.slow
def test_an_example_is_evolved_without_a_model(tmp_path: Path) -> None:
    options = ("--llm", "random", "--initial", 3, "--population", 3, "--generations", 1, "--run", "run")
    ge("run", EXAMPLES / "digits", *options, cwd=tmp_path)
    run = open_run(tmp_path / "run")
    assert run.status == "done"
    assert len(run.individuals) == 7
    assert sum(each.ok for each in run.individuals) >= 4
