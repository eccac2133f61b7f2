from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import guided_evolution as ge
from guided_evolution import session, view
from guided_evolution.errors import UsageError
from guided_evolution.individual import Individual
from guided_evolution.llm.scripted import FunctionLLM
from guided_evolution.operators import Proposal
from guided_evolution.problem import Problem
from guided_evolution.prompts.book import CATEGORIES, Book
from guided_evolution.random_operators import RandomEdit
from guided_evolution.replay import replay
from guided_evolution.run import Run
from guided_evolution.settings import Settings
from guided_evolution.testing import scripted_reply
from interrupting import kill_run
from test_operators import Desk, propose, scored

GE = Path(sys.executable).parent / "ge"
MATING = "Combine two versions"
LESSON = "Lesson:"
SIZES: dict[str, Any] = {
    "population": 8,
    "generations": 6,
    "p_mate": 0.5,
    "p_eot": 0.5,
    "operators": "adaptive",
    # what is scored is not in question here
    "sandbox": "off",
    "verify": False,
}


def failing(*marks: str) -> FunctionLLM:
    """A model that breaks what it is shown where the prompt holds one of the marks."""

    def reply(prompt: str) -> str:
        text = scripted_reply(prompt)
        return text.replace("return", "raise ValueError #") if any(mark in prompt for mark in marks) else text

    return FunctionLLM(reply, "fake")


@pytest.fixture
def seed(tiny: Problem) -> Individual:
    return scored(0, tiny.genome(), -25, 6)


def odds(run: Run, operator: str) -> list[float]:
    return [row["share"] for each in run.operator_odds for row in each["operators"] if row["operator"] == operator]


def evolve(problem: Problem, folder: Path, llm: FunctionLLM, **changes: Any) -> Run:
    return session.start(problem, Settings(**{**SIZES, **changes}), folder, llm=llm)


def test_mating_that_gives_nothing_becomes_rare(tiny: Problem, tmp_path: Path) -> None:
    run = evolve(tiny, tmp_path / "run", failing(MATING), p_mutate=0.0)
    shares = odds(run, "mate")
    assert shares[0] == 0.5, "it begins with what was set"
    assert shares[-1] < 0.2
    fixed = evolve(tiny, tmp_path / "fixed", failing(MATING), p_mutate=0.0, operators="fixed")
    asked = [sum(call.purpose == "mate" for call in each.calls) for each in (run, fixed)]
    assert asked[0] < asked[1]


def test_lessons_that_give_nothing_become_rare(tiny: Problem, tmp_path: Path) -> None:
    run = evolve(tiny, tmp_path / "run", failing(LESSON), p_mate=0.0)
    assert odds(run, "eot")[0] == 0.5
    assert odds(run, "eot")[-1] < 0.2
    assert set(odds(run, "mate")) == {0.0}, "what was ruled out stays out"


def test_mating_that_alone_gives_something_becomes_frequent(tiny: Problem, tmp_path: Path) -> None:
    mutations = 0

    def reply(prompt: str) -> str:
        nonlocal mutations
        mutations += MATING not in prompt
        text = scripted_reply(prompt)
        # the initial population is mutated well, so that there is something to mate
        return text if MATING in prompt or mutations <= 8 else text.replace("return", "raise ValueError #")

    run = evolve(tiny, tmp_path / "run", FunctionLLM(reply, "fake"), p_mate=0.3, p_mutate=0.0)
    assert odds(run, "mate")[0] == pytest.approx(0.3)
    assert odds(run, "mate")[-1] > 0.6


def learned(run: Run, kind: str, name: str) -> list[float]:
    return [row["share"] for each in run.operator_odds for row in each[kind] if row["name"] == name]


def test_the_block_whose_changes_pay_is_changed_more_often(tiny: Problem, tmp_path: Path) -> None:
    # whatever is asked of another block comes to nothing
    llm = failing("`def first()`", "`def second()`")
    run = evolve(tiny, tmp_path / "run", llm, p_mate=0.0, p_eot=0.0)
    shares = learned(run, "blocks", "third")
    assert shares[-1] > 0.5
    fixed = evolve(tiny, tmp_path / "fixed", llm, p_mate=0.0, p_eot=0.0, operators="fixed")
    counts = [Counter(step.block for each in one.individuals for step in each.origin.steps) for one in (run, fixed)]
    assert counts[0]["third"] > counts[1]["third"]
    for each in run.operator_odds:
        born = [child for child in run.individuals if child.id and child.generation < each["generation"]]
        assert sum(row["tried"] for row in each["blocks"]) == sum(len(child.origin.steps) for child in born)


def test_the_category_whose_children_pay_is_asked_for_more_often(tiny: Problem, tmp_path: Path) -> None:
    questions = {name: Book().question(name) for name in CATEGORIES}
    marks = [text for name, text in questions.items() if name != "significant"]
    run = evolve(tiny, tmp_path / "run", failing(*marks), p_mate=0.0, p_eot=0.0, moves="off")
    assert learned(run, "categories", "significant")[-1] > 0.3
    assert {row["name"] for row in run.operator_odds[-1]["categories"]} == set(CATEGORIES)


def test_random_edits_go_where_they_pay(tiny: Problem, seed: Individual) -> None:
    first: Counter[str] = Counter()
    for number in range(60):
        shares = {"first": 0.1, "second": 0.1, "third": 0.8}
        result = propose(RandomEdit(), [seed], Desk(tiny, seed=number, options={"blocks": shares}))
        assert isinstance(result, Proposal)
        first[result.step.block] += 1
    assert first["third"] > 30
    assert len(first) == 3


def test_every_child_after_the_initial_population_counts_once(tiny: Problem, tmp_path: Path) -> None:
    run = evolve(tiny, tmp_path / "run", failing())
    for each in run.operator_odds:
        past = [child for child in run.individuals if 0 < child.generation < each["generation"]]
        rows = each["operators"]
        assert sum(row["tried"] for row in rows) == len(past)
        assert sum(row["questions"] for row in rows) == sum(
            len(run.individual(child.id).origin.exchanges) for child in past
        )
        assert sum(row["share"] for row in rows) == pytest.approx(1)
        assert all(0 <= row["earned"] <= row["tried"] for row in rows)
    mated = Counter(
        any(step.operator == "mate" for step in child.origin.steps)
        for child in run.individuals
        if 0 < child.generation < 6
    )
    assert run.operator_odds[-1]["operators"][0]["tried"] >= mated[True] > 0


def test_fixed_operators_learn_nothing_and_are_what_they_were(tiny: Problem, tmp_path: Path) -> None:
    sizes = {**SIZES, "generations": 2}
    fixed = ge.evolve(tiny, llm=failing(), folder=tmp_path / "a", **{**sizes, "operators": "fixed"})
    adaptive = ge.evolve(tiny, llm=failing(), folder=tmp_path / "b", **sizes)
    assert fixed.operator_odds == []
    assert view.run_document(fixed)["odds"] == []
    # the initial population of both is drawn with all alike, and of operators nothing is known after it
    digests = [[child.genome.digest for child in run.individuals if child.generation == 0] for run in (fixed, adaptive)]
    assert digests[0] == digests[1]
    first = adaptive.operator_odds[0]["operators"]
    assert [row["share"] for row in first] == [0.5, 0.25, 0.25]
    assert all(row["tried"] == 0 for row in first)


def test_baselines_have_no_operators_to_choose_from(tiny: Problem, tmp_path: Path) -> None:
    run = evolve(tiny, tmp_path / "run", failing(), search="best-of-n", generations=1)
    assert run.operator_odds == []


def test_there_are_two_ways() -> None:
    with pytest.raises(UsageError, match='operators must be "fixed" or "adaptive"'):
        Settings(operators="learned")


def test_without_generations_late_children_count_later(tiny: Problem, tmp_path: Path) -> None:
    run = evolve(tiny, tmp_path / "run", failing(), schedule="steady", llm_parallel=3, workers=2)
    assert len(run.operator_odds) == 6
    for each in run.operator_odds:
        late = set(each["late"])
        past = [child for child in run.individuals if 0 < child.generation < each["generation"]]
        assert sum(row["tried"] for row in each["operators"]) == len([one for one in past if one.id not in late])


@pytest.mark.parametrize("schedule", ["generational", "steady"])
def test_a_replay_draws_with_the_recorded_odds(tiny: Problem, tmp_path: Path, schedule: str) -> None:
    run = evolve(tiny, tmp_path / "run", failing(MATING), generations=3, schedule=schedule)
    again = replay(tmp_path / "run", tmp_path / "again", tiny)
    assert not again.programs
    assert again.run.operator_odds == run.operator_odds


def test_a_resumed_run_keeps_its_odds_and_its_children(tiny: Problem, tmp_path: Path) -> None:
    whole = evolve(tiny, tmp_path / "whole", FunctionLLM(scripted_reply, "fake"), generations=4)
    kill_run(tiny, tmp_path / "run", "individual", 27, **{**SIZES, "generations": 4})
    run = session.resume(tmp_path / "run", llm=FunctionLLM(scripted_reply, "fake"))
    assert run.operator_odds == whole.operator_odds
    assert [each.genome.digest for each in run.individuals] == [each.genome.digest for each in whole.individuals]


def test_the_command_line_takes_it_and_shows_what_came_of_it(tiny: Problem, tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("from guided_evolution.testing import scripted_reply as reply\n")
    options = ["--llm", f"scripted:{tmp_path}/model.py", "--operators", "adaptive", "--generations", "3"]
    folder = str(tmp_path / "run")
    subprocess.run(
        [str(GE), "run", str(tiny.folder), *options, "--run", folder], check=True, capture_output=True, timeout=120
    )
    shown = subprocess.run([str(GE), "show", folder], capture_output=True, text=True, check=True).stdout
    assert shown.count("share of each generation from the first on") == 3
    assert "uncommon hyperparameters" in shown
    document = json.loads(subprocess.run([str(GE), "show", folder, "--json"], capture_output=True, check=True).stdout)
    assert [each["generation"] for each in document["odds"]] == [1, 2, 3]
    wrong = subprocess.run(
        [str(GE), "run", str(tiny.folder), "--operators", "best"], capture_output=True, text=True, check=False
    )
    assert wrong.returncode == 2
    assert wrong.stderr.count("\n") == 1
    assert "adaptive" in wrong.stderr
