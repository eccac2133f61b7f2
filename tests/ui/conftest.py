"""A run to show, made once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from dashboards import asked, ge
from starlette.testclient import TestClient

from guided_evolution.testing import write_tiny_problem


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    write_tiny_problem(folder / "tiny")
    ge("run", "tiny", "--run", "runs/one", "--seed", 3, cwd=folder)
    return folder


@pytest.fixture
def client(home: Path) -> Iterator[TestClient]:
    with asked(home / "runs") as client:
        yield client
