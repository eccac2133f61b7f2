from __future__ import annotations

from pathlib import Path

import pytest

from guided_evolution.errors import ProblemError
from guided_evolution.problem import Constraint, Problem


def write(folder: Path, toml: str, **files: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "problem.toml").write_text(toml)
    for name, text in {"seed": "def f():\n    return 1\n", "evaluate": "def evaluate(p): ...\n", **files}.items():
        (folder / f"{name}.py").write_text(text)
    return folder


GOOD = '[[objective]]\nname = "score"\n'


def test_a_small_problem_gets_sensible_defaults(tmp_path: Path) -> None:
    problem = Problem.load(write(tmp_path / "mine", GOOD))
    assert problem.name == "mine"
    assert [(each.name, each.goal) for each in problem.objectives] == [("score", "max")]
    assert problem.limits.seconds == 120
    assert not problem.limits.network
    assert [block.name for block in problem.genome().blocks] == ["f"]


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("name = [", "not valid TOML"),
        ("", r"no \[\[objective\]\]"),
        ('[[objective]]\nname = ""\n', "needs a name"),
        (GOOD + GOOD, "listed twice"),
        (GOOD + "range = [0]\n", "range must be two numbers"),
        (GOOD + 'range = ["0", 1]\n', "range must be two numbers"),
        (GOOD + "range = [1, 0]\n", "range must begin with the lower number"),
        (GOOD + "range = [nan, 1]\n", "range must begin with the lower number"),
        (GOOD + "[limits]\ngpus = 1.5\n", "limits.gpus must be a whole number, or a fraction below 1"),
        (GOOD + "[limits]\ndisk_mb = 0\n", "limits must be positive"),
        (GOOD + '[sandbox]\npreload = "torch"\n', "sandbox.preload must be a list"),
        (GOOD + "[sandbox]\npreload = [1]\n", "sandbox.preload must be a list of texts"),
        (GOOD + '[sandbox]\nreadable = ["nowhere"]\n', "sandbox.readable: there is no folder nowhere"),
        (GOOD + '[sandbox]\nheld_out = ["/etc/*"]\n', "sandbox.held_out: patterns are relative"),
        (GOOD + '[sandbox]\nheld_out = ["../x"]\n', "sandbox.held_out: patterns are relative"),
        (GOOD + "[sandbox]\nnetwork = true\n", "unknown key sandbox.network"),
        ('[[objective]]\nname = "a"\ngoal = "maximise"\n', 'goal must be "max" or "min", not "maximise"'),
        ('[[objective]]\nname = "a"\nreference = "big"\n', "reference must be a number"),
        (f'colour = "red"\n{GOOD}', "unknown key colour"),
        (f'{GOOD}[evolution]\npreset = "fast"\n', "problem.toml: evolution: no preset is called 'fast'"),
        (f"{GOOD}[evolution]\npreset = 1\n", "evolution: no preset is called 1"),
        (f"seed = []\n{GOOD}", "seed must be a list"),
        (f'seed = "seed.py"\n{GOOD}', "seed must be a list"),
        (f'seed = ["other.py"]\n{GOOD}', r"other\.py"),
        (f'seed = ["../seed.py"]\n{GOOD}', r"\.\./seed\.py"),
        (f'evaluator = "score.py"\n{GOOD}', r"no score\.py"),
        (f"{GOOD}[limits]\nseconds = -1\n", "limits must be positive"),
        (f'{GOOD}[limits]\nseconds = "long"\n', "seconds must be a number"),
        (f"{GOOD}[limits]\nminutes = 3\n", r"unknown key limits\.minutes"),
        (f'{GOOD}[[constraint]]\nname = "score"\n', "a min or a max"),
    ],
)
def test_a_wrong_problem_is_refused_with_its_place(tmp_path: Path, toml: str, message: str) -> None:
    with pytest.raises(ProblemError, match=message):
        Problem.load(write(tmp_path / "p", toml))


def test_a_missing_folder_and_a_folder_without_a_problem(tmp_path: Path) -> None:
    with pytest.raises(ProblemError, match="no such folder"):
        Problem.load(tmp_path / "nowhere")
    with pytest.raises(ProblemError, match=r"no problem\.toml"):
        Problem.load(tmp_path)


def test_a_folder_of_the_openevolve_kind_is_read(tmp_path: Path) -> None:
    (tmp_path / "initial_program.py").write_text("# EVOLVE-BLOCK-START\ndef f():\n    return 1\n# EVOLVE-BLOCK-END\n")
    (tmp_path / "evaluator.py").write_text("def evaluate(program_path):\n    return 0.5\n")
    problem = Problem.load(tmp_path)
    assert problem.objectives[0].name == "combined_score"
    assert [block.name for block in problem.genome().blocks] == ["f"]


def test_points_are_minimised_and_violations_are_relative(tiny: Problem) -> None:
    assert tiny.point({"closeness": -3.0, "size": 5.0}) == (3.0, 5.0)
    bound = Constraint("size", min=2.0, max=10.0)
    assert bound.violation(5.0) == 0
    assert bound.violation(15.0) == pytest.approx(0.5)
    assert bound.violation(1.0) == pytest.approx(0.5)
    assert bound.violation(None) == bound.violation(float("nan")) == 1


def test_the_digest_changes_with_whatever_decides_a_score(tmp_path: Path) -> None:
    first = Problem.load(write(tmp_path / "p", GOOD)).digest
    assert Problem.load(write(tmp_path / "p", f'summary = "words"\n{GOOD}')).digest == first
    assert Problem.load(write(tmp_path / "p", f"{GOOD}[limits]\nseconds = 5\n")).digest != first
    assert Problem.load(write(tmp_path / "p", GOOD, evaluate="def evaluate(p): return 1\n")).digest != first
