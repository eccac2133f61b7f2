"""Experiment trackers as listeners: MLflow, Weights & Biases, TensorBoard and trackio, each an extra.

`ge run PROBLEM --track mlflow`, or `ge.evolve(..., listeners=[open_tracker("mlflow")])`. What a tracker is sent is in
`base.Tracker`. One that fails says so in one line and is left out for the rest of the run.
"""

from __future__ import annotations

from importlib import import_module

from guided_evolution.errors import UsageError
from guided_evolution.trackers.base import Tracker

NAMES = {
    "mlflow": "MLflowTracker",
    "tensorboard": "TensorBoardTracker",
    "trackio": "TrackioTracker",
    "wandb": "WandbTracker",
}

__all__ = ["NAMES", "Tracker", "open_tracker"]


def open_tracker(name: str) -> Tracker:
    """A tracker by name, ready to listen.

    Raises:
        UsageError: When there is no such tracker, or its package isn't installed.
    """
    if name not in NAMES:
        raise UsageError(f'there is no tracker "{name}"; there are: {", ".join(NAMES)}')
    try:
        made: Tracker = getattr(import_module(f"guided_evolution.trackers.{name}"), NAMES[name])()
    except ImportError as error:
        raise UsageError(f"--track {name} needs: pip install 'guided-evolution[{name}]' ({error})") from None
    return made
