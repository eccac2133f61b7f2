from __future__ import annotations

import itertools
import re
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest

from guided_evolution.nn.recipes import RECIPES, Plateau
from guided_evolution.presets import PRESETS
from guided_evolution.problem import Problem

ROOT = Path(__file__).parents[1]


def test_the_command_line_reference_is_up_to_date() -> None:
    generated = runpy.run_path(str(ROOT / "docs" / "generate.py"))["reference"]()
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == generated


@pytest.mark.parametrize("page", [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))], ids=lambda path: path.name)
def test_every_link_inside_the_project_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_change_of_recipe_in_the_steps_gives_a_problem_that_loads(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "reproduce.md").read_text(encoding="utf-8")
    change = next(line for line in page.splitlines() if line.startswith("sed -i '")).split("'")[1]
    shutil.copytree(ROOT / "examples" / "cifar10", tmp_path / "cifar10-paper")
    path = tmp_path / "cifar10-paper" / "problem.toml"
    done = subprocess.run(["sed", change, path], capture_output=True, text=True, check=True)
    path.write_text(done.stdout)
    problem = Problem.load(path.parent)
    assert dict(problem.evaluation) == {"recipe": "paper"}
    assert (problem.limits.seconds, problem.limits.memory_mb, problem.limits.gpus) == (14400, 16384, 1)


def test_the_hours_follow_from_the_formula() -> None:
    page = (ROOT / "docs" / "reproduce.md").read_text(encoding="utf-8")
    paper = PRESETS["paper"]
    evaluations = 1 + paper["initial"] + paper["generations"] * paper["population"]
    rows = re.findall(r"\| `(paper|full)` \| ([\d,]+) \| ([\d,]+) s \| ([\d.]+) h \|", page)
    assert len(rows) == 6
    for recipe, rate, seconds, hours in rows:
        epochs = fewest_epochs() if recipe == "paper" else RECIPES[recipe].epochs
        one = epochs * (40_000 + 10_000 / 3) / int(rate.replace(",", ""))
        assert int(seconds.replace(",", "")) == round(one)
        assert float(hours) == round(evaluations * one / 3600, 1)


def fewest_epochs() -> int:
    """Epochs until the plateau rule stops a training whose loss never falls."""
    plateau = Plateau()
    for _ in range(Plateau.warmup):
        plateau.step()
    return next(number for number in itertools.count(1) if plateau.over(1.0))
