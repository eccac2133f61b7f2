from __future__ import annotations

from pathlib import Path

from guided_evolution import session
from guided_evolution.individual import Individual, Origin, Outcome, Status, Step
from guided_evolution.llm.scripted import FunctionLLM
from guided_evolution.problem import Problem
from guided_evolution.settings import Settings
from guided_evolution.testing import scripted_reply


def test_a_run_shows_its_front_in_a_notebook(tiny: Problem, tmp_path: Path) -> None:
    run = session.start(
        tiny, Settings(population=3, generations=1), tmp_path / "run", (), FunctionLLM(scripted_reply, "f")
    )
    html = run._repr_html_()
    assert all(f"<td>#{each.id}</td>" in html for each in run.front)
    assert "closeness ↑" in html


def test_an_individual_shows_its_block_and_hostile_text_stays_text(tiny: Problem) -> None:
    genome = tiny.genome().replace("first", "def first():\n    return '<img src=x onerror=alert(1)>'\n")
    origin = Origin((0,), (Step("mutate", "first", "complex", "magoo"),))
    outcome = Outcome(Status.CRASHED, "ValueError: <script>alert(1)</script>")
    html = Individual(3, 1, genome, origin, outcome)._repr_html_()
    assert "<script" not in html
    assert "<img" not in html
    assert "&lt;img src=x" in html
    assert "magoo" in html
