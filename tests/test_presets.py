"""The presets hold the published values, lie where they should in the order of options, and stay with a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import guided_evolution as ge
from guided_evolution.cli.running import settings_for
from guided_evolution.errors import UsageError
from guided_evolution.presets import PRESETS, expanded
from guided_evolution.problem import Problem
from guided_evolution.run import open_run
from guided_evolution.session import resume
from guided_evolution.settings import Settings
from test_cli import ge as command

PUBLISHED = {
    "initial": 32,
    "population": 8,
    "generations": 30,
    "p_mate": 0.35,
    "p_mutate": 0.8,
    "p_eot": 0.25,
    "operators": "fixed",
    "eot_elites": 10,
    "temperature": (0.05, 0.4),
    "reply_tokens": (600, 1400),
    "top_p": 0.1,
    "moves": "off",
    "tries": 1,
    "retry": "draw",
    "shortcuts": "off",
    "characters": True,
    "search": "evolution",
    "schedule": "generational",
    "prune": False,
    "drafts": 1,
}


def with_evolution(problem: Problem, lines: str) -> Problem:
    path = problem.folder / "problem.toml"
    path.write_text(path.read_text() + lines)
    return Problem.load(problem.folder)


@pytest.mark.parametrize(("name", "value"), PUBLISHED.items())
def test_the_paper_preset_has_the_published_value(tiny: Problem, name: str, value: Any) -> None:
    # every default is turned the other way first, so that a value the preset leaves out is seen
    away: dict[str, Any] = {
        "initial": 5, "generations": 1, "population": 3, "p_mate": 0.1, "p_mutate": 0.1, "p_eot": 0.9, "eot_elites": 1,
        "operators": "adaptive", "shortcuts": "on",
        "temperature": (1.0, 1.0), "reply_tokens": (7, 7), "top_p": 0.9, "moves": "on", "tries": 4, "retry": "repair",
        "characters": False, "search": "sequential", "schedule": "steady", "prune": True,
        "drafts": 3,
    }  # fmt: skip
    settings = Settings(**away).with_changes(expanded({"preset": "paper"}), "here")
    assert getattr(settings, name) == value
    assert settings_for(tiny, {"preset": "paper"}).to_json()[name] == value


def test_the_paper_preset_sets_nothing_else() -> None:
    assert set(PRESETS["paper"]) == set(PUBLISHED)
    first = Settings().with_changes(expanded({"preset": "quick"}), "here")
    assert (first.population, first.initial, first.generations, first.preset) == (4, 4, 2, "quick")


def test_options_win_over_the_preset_beside_them_and_a_later_preset_over_the_file(tiny: Problem) -> None:
    problem = with_evolution(tiny, 'preset = "paper"\np-eot = 0.5\n')
    in_file = settings_for(problem, {"preset": None, "generations": None})
    assert (in_file.preset, in_file.initial, in_file.tries) == ("paper", 32, 1)
    assert (in_file.population, in_file.generations, in_file.p_eot) == (4, 2, 0.5)  # the file's own keys
    later = settings_for(problem, {"preset": "paper", "generations": 3, "population": None})
    assert (later.population, later.generations, later.p_eot) == (8, 3, 0.25)
    other = settings_for(problem, {"preset": "quick"})
    assert (other.preset, other.initial, other.generations, other.tries) == ("quick", 4, 2, 1)


def test_a_preset_that_does_not_exist_is_one_line(tiny: Problem) -> None:
    with pytest.raises(UsageError, match=r"^no preset is called 'papre': there are paper, quick$"):
        expanded({"preset": "papre"})
    for verb in ("run", "check"):
        result = command(verb, tiny.folder, "--preset", "papre", cwd=tiny.folder, code=2)
        assert "no preset is called 'papre': there are paper, quick" in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1


def test_a_label_is_read_back_without_setting_anything() -> None:
    kept = Settings(preset="paper", tries=3).to_json()
    assert Settings().with_changes(kept, "run") == Settings(preset="paper", tries=3)
    assert Settings().with_changes({"preset": "of a later version"}, "run").population == Settings().population


def test_the_record_and_a_resumed_run_keep_what_was_set(tiny: Problem, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run = ge.evolve(tiny, folder=folder, preset="paper", initial=2, population=2, generations=1)
    assert (run.settings["preset"], run.settings["tries"], run.settings["initial"]) == ("paper", 1, 2)
    shown = json.loads(command("show", folder, "--json", cwd=tmp_path).stdout)["settings"]
    assert (shown["preset"], shown["top_p"], shown["moves"]) == ("paper", 0.1, "off")
    run.close()
    further = resume(folder, changes={"generations": 2})
    assert (further.settings["preset"], further.settings["population"], further.settings["generations"]) == (
        "paper",
        2,
        2,
    )
    kept = open_run(folder)
    asked = [exchange for each in kept.individuals for exchange in kept.individual(each.id).origin.exchanges]
    assert asked
    assert all(0.05 <= each.temperature <= 0.4 and 600 <= each.max_tokens <= 1400 for each in asked)


def test_check_and_a_dry_run_estimate_the_run_of_the_preset(tiny: Problem) -> None:
    """Children besides the seed: 4 + 2 × 4 with `quick`, 32 + 30 × 8 with `paper`."""
    for preset, children in (("quick", 12), ("paper", 272)):
        arguments = ("run", tiny.folder, "--preset", preset, "--dry-run", "--json")
        found = json.loads(command(*arguments, cwd=tiny.folder).stdout)["estimate"]
        assert found["children"] == children
        assert f"{children} children" in command("check", tiny.folder, "--preset", preset, cwd=tiny.folder).stdout
