"""Guided Evolution: evolve a program with a language model and multi-objective selection."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guided_evolution.api import evolve
    from guided_evolution.budget import Budget
    from guided_evolution.problem import Objective, Problem
    from guided_evolution.run import Run, open_run

    __version__: str

__all__ = ["Budget", "Objective", "Problem", "Run", "__version__", "evolve", "open_run"]

_HOMES = {
    "evolve": "api",
    "Budget": "budget",
    "Objective": "problem",
    "Problem": "problem",
    "Run": "run",
    "open_run": "run",
}


def __getattr__(name: str) -> Any:
    # Looked up at first use: a worker imports this package for its helpers alone, and must start quickly.
    if name == "__version__":
        return import_module("importlib.metadata").version("guided-evolution")
    if name in _HOMES:
        return getattr(import_module(f"guided_evolution.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
