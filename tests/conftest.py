from __future__ import annotations

from pathlib import Path

import pytest

from guided_evolution.problem import Problem

# Before the first import of it: a failed assertion of a conformance case then shows its values.
pytest.register_assert_rewrite("guided_evolution.testing")


@pytest.fixture
def tiny(tmp_path: Path) -> Problem:
    from guided_evolution.testing import write_tiny_problem

    return Problem.load(write_tiny_problem(tmp_path / "tiny"))
