"""The contract of an executor, over the one that every run has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from guided_evolution.executors.local import LocalExecutor
from guided_evolution.testing import ExecutorConformance


class TestLocalExecutor(ExecutorConformance):
    @pytest.fixture
    def executor(self, tmp_path: Path) -> Iterator[LocalExecutor]:
        made = LocalExecutor(2, tmp_path / "jobs")
        yield made
        made.close()
        assert not (tmp_path / "jobs").exists() or list((tmp_path / "jobs").iterdir()) == []
