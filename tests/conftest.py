from __future__ import annotations

from pathlib import Path

import pytest

from guided_evolution.problem import Problem
from guided_evolution.testing import write_tiny_problem


@pytest.fixture
def tiny(tmp_path: Path) -> Problem:
    return Problem.load(write_tiny_problem(tmp_path / "tiny"))
