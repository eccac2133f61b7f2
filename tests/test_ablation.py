from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from guided_evolution.ablation.arms import choose, parse
from guided_evolution.ablation.results import Comparison, sentence
from guided_evolution.errors import UsageError
from guided_evolution.testing import write_tiny_problem

GE = Path(sys.executable).parent / "ge"


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
        ((-1.0, -2.0), 1.0, "it takes 7 seeds"),
        ((-1.0,) * 8, 0.02, "lower than full"),
        ((-1.0,) * 8, 0.02, "a difference, on this problem"),
        ((-1.0, 1.0) * 4, 0.8, "only differences larger than about 3 points"),
    ],
)
def test_a_sentence_says_no_more_than_the_seeds_allow(
    differences: tuple[float, ...], corrected: float, text: str
) -> None:
    found = Comparison("no-eot", differences, (-2.0, 1.0), corrected, corrected, 0.0, 3.0, 2)
    assert text in sentence(found, "full")


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
    kept = (tmp_path / "ab" / "full" / "seed-0" / "run.sqlite").stat().st_mtime_ns
    wrong = subprocess.run([*command, "--population", "3"], cwd=tmp_path, capture_output=True, text=True)
    assert wrong.returncode == 2
    assert "population was 4 and would be 3" in wrong.stderr
    done = subprocess.run([str(GE), "ablate", "ab", "--json"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert [run["evaluations"] for run in document["runs"]] == [6] * 4
    assert document["runs"][1]["taken"] > 0
    assert "no conclusion is possible" in str(document) or "nothing tells them apart" in str(document)
    assert (tmp_path / "ab" / "full" / "seed-0" / "run.sqlite").stat().st_mtime_ns == kept


def test_ctrl_c_ends_with_130_and_says_how_to_go_on(tmp_path: Path) -> None:
    write_tiny_problem(tmp_path / "tiny")
    command = [str(GE), "ablate", "tiny", "--arms", "full,no-eot", "--seeds", "2", "--folder", "ab", "--parallel", "2"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "ab" / "full" / "seed-1" / "run.sqlite").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert "`ge ablate ab` goes on" in told
    assert "Traceback" not in told
