"""What this machine offers to a run."""

from __future__ import annotations

import platform
import shutil
import subprocess
from contextlib import suppress
from importlib import metadata, util
from typing import Any

from guided_evolution.evaluation import sandbox
from guided_evolution.executors import slurm_commands
from guided_evolution.llm import models
from guided_evolution.llm.spec import keys_found
from guided_evolution.locations import cache_folder, data_folder
from guided_evolution.session import cores


def findings() -> dict[str, Any]:
    """Name to value of everything `ge doctor` reports; keys are named, never shown."""
    return {
        "guided-evolution": metadata.version("guided-evolution"),
        "python": platform.python_version(),
        "cores": cores(),
        "gpus": _gpus(),
        "torch": metadata.version("torch") if util.find_spec("torch") else "not installed (extra [torch])",
        "local models": [model.name for model in models.MODELS if models.find(model.name)],
        "keys found": [name for name, found in keys_found().items() if found],
        "sandbox": str(sandbox.probe()),
        "executors": _executors(),
        "data": str(data_folder() or "GUIDED_EVOLUTION_DATA is not set"),
        "cache": str(cache_folder()),
    }


def _executors() -> list[str]:
    found = ["local"]
    # Asked of its metadata: importing Ray takes seconds.
    with suppress(metadata.PackageNotFoundError):
        found.append(f"ray {metadata.version('ray')}")
    if slurm := slurm_commands.version():
        found.append(f"slurm {slurm}")
    return found


def _gpus() -> list[str]:
    if not shutil.which("nvidia-smi"):
        return []
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return listed.strip().splitlines()
