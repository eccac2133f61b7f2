"""From the name of an executor to one that runs."""

from __future__ import annotations

from pathlib import Path

from guided_evolution.evaluation import sandbox
from guided_evolution.executors import Executor
from guided_evolution.settings import Settings


def check_executor(settings: Settings) -> None:
    """Looks whether the executor could be opened, before there is a folder to open it on.

    Raises:
        UsageError: When what it needs isn't here.
        RunError: When the cluster can't be reached, or a jail is required and none works on this machine.
    """
    jail_in_force(settings)
    if settings.executor == "slurm":
        from guided_evolution.executors.slurm_commands import Slurm

        Slurm(settings.sbatch).require()
    elif settings.executor == "ray":
        from guided_evolution.executors.ray import require

        require()


def jail_in_force(settings: Settings) -> str:
    """What keeps candidates in, in words.

    Raises:
        RunError: When a jail is required and none works on this machine.
    """
    if settings.executor == "local":
        return str(sandbox.sandbox(settings.sandbox))
    return f"{settings.sandbox}, tried on each node"


def open_executor(settings: Settings, folder: Path) -> Executor:
    """The executor that the settings name.

    Args:
        settings: Their `executor`, `workers` and, for Slurm, `sbatch` count.
        folder: The run's folder for jobs; what a session left there that was killed is taken up or removed.

    Raises:
        UsageError: When what it needs isn't here.
        RunError: When the cluster can't be reached.
    """
    if settings.executor == "local":
        from guided_evolution.executors.local import LocalExecutor

        return LocalExecutor(settings.workers or 1, folder)
    if settings.executor == "ray":
        from guided_evolution.executors.ray import RayExecutor

        return RayExecutor(settings.workers, folder)
    from guided_evolution.executors.slurm import SlurmExecutor

    return SlurmExecutor(settings.workers, folder, settings.sbatch)
