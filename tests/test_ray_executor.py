"""Jobs on Ray: the contract of an executor, lost nodes, GPUs, and a whole run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from guided_evolution.executors.ray import RayExecutor
from guided_evolution.testing import SECRET_NAME, ExecutorConformance

ray: Any = pytest.importorskip("ray")


@pytest.fixture(scope="module")
def here() -> Iterator[None]:
    """A Ray on this machine, with more CPUs and GPUs than there are, and a secret in its processes."""
    os.environ[SECRET_NAME] = "not-a-real-key"
    ray.init(num_cpus=4, num_gpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()
    del os.environ[SECRET_NAME]


@pytest.mark.usefixtures("here")
class TestRayExecutor(ExecutorConformance):
    @pytest.fixture
    def executor(self, tmp_path: Path) -> Iterator[RayExecutor]:
        made = RayExecutor(2, tmp_path / "jobs")
        yield made
        made.close()
