from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from guided_evolution.ablation.arms import PACKAGED, choose, parse
from guided_evolution.ablation.measures import Measure
from guided_evolution.ablation.plan import Plan
from guided_evolution.ablation.results import Comparison
from guided_evolution.ablation.sentences import sentence, shortage
from guided_evolution.errors import UsageError
from guided_evolution.problem import Problem
from guided_evolution.run import Run
from guided_evolution.settings import Settings
from guided_evolution.testing import write_tiny_problem

GE = Path(sys.executable).parent / "ge"
VOLUME = Measure("volume", "hypervolume", "points", larger=True)
ERROR = Measure("best", "best error", "", larger=False)


@pytest.mark.parametrize(
    ("names", "own", "text"),
    [
        ("full,nothing", (), 'no arm "nothing"'),
        ("full,no-eot,full", (), '"full" is listed twice'),
        ("full", (), "nothing to be compared with"),
        (None, ("hot:heat=1",), "unknown option heat"),
        (None, ("hot:seed=1",), "the same for all arms"),
        (None, ("hot:preset=paper",), "the same for all arms"),
        (None, ("full:p_eot=0",), "packaged arm"),
        (None, ("hot",), "must look like"),
    ],
)
def test_wrong_arms_are_refused_in_one_line(names: str | None, own: tuple[str, ...], text: str) -> None:
    with pytest.raises(UsageError, match=text) as caught:
        choose(names, own)
    assert "\n" not in str(caught.value)


def test_every_packaged_arm_is_a_run_of_its_own(tiny: Problem) -> None:
    plan = Plan.make(tiny, Settings(), choose(",".join(PACKAGED)), 1)
    settings = {cell.arm.name: plan.settings_of(cell) for cell in plan.cells}
    assert len(set(settings.values())) == len(PACKAGED)
    assert settings["adaptive"].operators == "adaptive"


def test_an_arm_of_ones_own_may_hold_ranges() -> None:
    assert parse("hot:temperature=[0.5,0.9],p-eot=0,characters=false").options == {
        "temperature": [0.5, 0.9],
        "p_eot": 0,
        "characters": False,
    }


@pytest.mark.parametrize(
    ("differences", "corrected", "text"),
    [
        ((0.0,) * 8, 1.0, "nothing tells them apart"),
        ((-1.0, -2.0), 1.0, "7 seeds would do"),
        ((-1.0,) * 8, 0.02, "lower than full"),
        ((-1.0,) * 8, 0.02, "a difference, on this problem"),
        ((-1.0, 1.0) * 4, 0.8, "only differences larger than about 3 points"),
    ],
)
def test_a_sentence_says_no_more_than_the_seeds_allow(
    differences: tuple[float, ...], corrected: float, text: str
) -> None:
    found = Comparison("no-eot", differences, (-2.0, 1.0), corrected, corrected, 0.0, 3.0, 2, VOLUME)
    assert text in sentence(found, "full")


def test_a_sentence_about_one_seed_is_plain() -> None:
    found = Comparison("no-eot", (-2.5,), None, 1.0, 1.0, -1.0, None, 3, VOLUME)
    assert sentence(found, "full") == (
        "no-eot: hypervolume 2.5 points lower than full in the one seed: one seed can't tell anything apart; "
        "7 seeds would do."
    )


def test_more_seeds_than_the_exact_test_takes_make_a_sentence() -> None:
    found = Comparison("no-eot", (1.0, -1.0) * 7, (-1.0, 1.0), 0.9, 0.9, 0.0, None, 2, VOLUME)
    assert sentence(found, "full").endswith("p = 0.9 after Holm: no conclusion.")


def test_where_less_is_better_the_higher_is_the_worse() -> None:
    found = Comparison("no-eot", (1.0, 1.0, -0.5, 0.0, 1.0, 1.0, 1.0, 1.0), (0.1, 0.9), 0.5, 0.5, 0.7, 0.9, 1, ERROR)
    text = sentence(found, "full")
    assert "best error 0.69 higher than full" in text
    assert "worse in 6 of 8 seeds, p = 0.5: no conclusion" in text


def test_a_missing_value_is_no_difference() -> None:
    found = Comparison("no-eot", (1.0, None, 1.0), None, None, None, None, None, 1, ERROR)
    assert found.mean is None
    assert "isn't compared with full; in 1 of 3 seeds" in sentence(found, "full")


@pytest.mark.parametrize(
    ("seeds", "comparisons", "text"),
    [
        (5, 4, "with 5 seeds and 4 comparisons p can't fall below 0.25; 8 seeds would do"),
        (5, 1, "with 5 seeds p can't fall below 0.062; 6 seeds would do"),
        (1, 3, "one seed can't tell anything apart; 7 seeds would do"),
        (7, 3, ""),
        (8, 4, ""),
    ],
)
def test_too_few_seeds_are_said_to_be_too_few(seeds: int, comparisons: int, text: str) -> None:
    assert shortage(seeds, comparisons) == text


def recorded(folder: Path) -> set[tuple[int, str, float]]:
    """What was finished in a run: ids, programs, and when."""
    with contextlib.closing(Run(folder)) as run:
        found = {each.id: each.genome.digest for each in run.individuals if each.outcome}
        return {(number, found[number], when) for number, when in run.finished.items() if number in found}


def count_calls(folder: Path) -> int:
    with contextlib.closing(Run(folder)) as run:
        return len(run.calls)


def test_an_ablation_that_was_killed_goes_on_and_keeps_what_was_done(tmp_path: Path) -> None:
    write_tiny_problem(tmp_path / "tiny")
    command = [str(GE), "ablate", "tiny", "--arms", "full,no-eot", "--seeds", "2", "--max-evaluations", "6"]
    command += ["--folder", "ab"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 100
    while not (tmp_path / "ab" / "no-eot" / "seed-0" / "run.sqlite").exists():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    done_run, broken_run = tmp_path / "ab" / "full" / "seed-0", tmp_path / "ab" / "no-eot" / "seed-0"
    kept, begun = recorded(done_run), recorded(broken_run)
    assert len(kept) >= 6
    calls = count_calls(done_run)
    wrong = subprocess.run([*command, "--population", "3"], cwd=tmp_path, capture_output=True, text=True)
    assert wrong.returncode == 2
    assert "population was 4 and would be 3" in wrong.stderr
    done = subprocess.run([str(GE), "ablate", "ab", "--json"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert [run["evaluations"] for run in document["runs"]] == [6] * 4
    assert document["runs"][1]["taken"] > 0
    told = [each["sentence"] for each in document["comparisons"]]
    assert all("no conclusion is possible" in text or "nothing tells them apart" in text for text in told)
    assert recorded(done_run) == kept  # neither more nor at another time
    assert count_calls(done_run) == calls
    assert recorded(broken_run) >= begun


def test_ctrl_c_ends_with_130_and_says_how_to_go_on(tmp_path: Path) -> None:
    write_tiny_problem(tmp_path / "tiny")
    command = [str(GE), "ablate", "tiny", "--arms", "full,no-eot", "--seeds", "2", "--folder", "ab", "--parallel", "2"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 100
    while not (tmp_path / "ab" / "full" / "seed-1" / "run.sqlite").exists():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert "`ge ablate ab` goes on" in told
    assert "Traceback" not in told


def test_a_plan_of_an_earlier_version_goes_on_with_the_defaults_of_what_it_did_not_know(tmp_path: Path) -> None:
    problem = Problem.load(write_tiny_problem(tmp_path / "tiny"))
    plan = Plan.make(problem, Settings(llm="random"), choose("full,best-of-n", ()), 2)
    known = dict(plan.settings)
    del known["preset"], known["prune"]
    replace(plan, settings=known).write(tmp_path)
    older = Plan.read(tmp_path)
    older.require_same(plan, tmp_path)
    with pytest.raises(UsageError, match="another plan: prune was False and would be True"):
        older.require_same(replace(plan, settings={**plan.settings, "prune": True}), tmp_path)
