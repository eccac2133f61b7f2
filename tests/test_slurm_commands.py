"""Slurm's commands as this package uses them, where no Slurm is needed to tell."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from guided_evolution.errors import UsageError
from guided_evolution.executors.slurm_commands import Slurm, environment
from guided_evolution.testing import write_tiny_problem

GE = Path(sys.executable).parent / "ge"
KEY = "sk-ge-test-0123456789"


def test_the_environment_is_an_allow_list() -> None:
    given = {
        "PATH": "/bin",
        "HOME": "/home/me",
        "PYTHONPATH": "/src",
        "SBATCH_ACCOUNT": "lab",
        "SLURM_CONF": "/etc/slurm.conf",
        "SLURM_JOB_ID": "7",
        "CUDA_VISIBLE_DEVICES": "3",
        "OPENAI_API_KEY": KEY,
        "https_proxy": "http://proxy:1",
        "http_proxy": f"http://me:{KEY}@proxy:1",
    }
    kept = environment(given)
    assert kept.keys() == {"PATH", "HOME", "PYTHONPATH", "SBATCH_ACCOUNT", "SLURM_CONF", "https_proxy"}


def test_without_sbatch_nothing_is_begun(tmp_path: Path) -> None:
    problem = write_tiny_problem(tmp_path / "tiny")
    (tmp_path / "empty").mkdir()
    command = [str(GE), "run", str(problem), "--run", str(tmp_path / "run"), "--executor", "slurm"]
    environment = {**os.environ, "PATH": str(tmp_path / "empty")}
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert result.returncode == 2
    assert "--executor slurm: there is no sbatch on this machine" in result.stderr
    assert len(result.stderr.strip().splitlines()) <= 2
    assert not (tmp_path / "run").exists()


def test_options_that_cannot_be_read_are_named() -> None:
    with pytest.raises(UsageError, match="No closing quotation"):
        Slurm("--comment='half")
