from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from guided_evolution.problem import Problem

# Before the first import of it: a failed assertion of a conformance case then shows its values.
pytest.register_assert_rewrite("guided_evolution.testing")

# On a new machine the first text that is drawn waits for a table of all characters.
settings.register_profile("new machine", suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("new machine")


@pytest.fixture
def tiny(tmp_path: Path) -> Problem:
    from guided_evolution.testing import write_tiny_problem

    return Problem.load(write_tiny_problem(tmp_path / "tiny"))
