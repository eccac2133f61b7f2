"""The page of an ablation in a real browser: all figures drawn, nothing asked of the network, nothing too wide."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from served import GE

from guided_evolution.testing import write_tiny_problem


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ablation")
    write_tiny_problem(folder / "tiny")
    command = [str(GE), "ablate", "tiny", "--arms", "full,no-eot", "--seeds", "2", "--max-evaluations", "6"]
    subprocess.run([*command, "--folder", "ab"], cwd=folder, check=True, capture_output=True)
    return folder / "ab" / "ablation.html"


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_the_page_draws_all_figures_without_a_network(
    page_file: Path, open_page: Callable[..., Any], width: int, scheme: str
) -> None:
    page = open_page(width=width, scheme=scheme)
    page.context.set_offline(True)
    page.goto(page_file.as_uri())
    charts = page.locator(".chart")
    assert charts.count() == 5
    for place in range(5):
        charts.nth(place).scroll_into_view_if_needed()
        charts.nth(place).locator(".main-svg").first.wait_for()
    page.wait_for_function("[...document.querySelectorAll('.chart')].every((each) => each.dataset.drawn)")
    assert page.locator("#figure-fronts").count() == 1
    assert charts.nth(0).locator(".scatterlayer .trace").count() == 6  # two arms: a line and both ends of a band
    assert page.evaluate("document.documentElement.scrollWidth") <= width
