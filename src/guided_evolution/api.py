"""The Python interface: one function that runs a problem."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from guided_evolution import session
from guided_evolution.events import Listener
from guided_evolution.llm import LLM
from guided_evolution.presets import expanded
from guided_evolution.problem import Problem
from guided_evolution.run import Run
from guided_evolution.settings import Settings


def evolve(
    problem: str | Path | Problem,
    *,
    llm: str | Sequence[str] | LLM | None = None,
    folder: str | Path | None = None,
    listeners: Iterable[Listener] = (),
    reuse: Iterable[str | Path] = (),
    **options: Any,
) -> Run:
    """Evolves a problem and gives the finished run.

    Args:
        problem: A problem folder, or one that was loaded.
        llm: A model specification as on the command line, several with weights, or a model.
        folder: Where the run is kept; None makes a new folder below `runs`.
        listeners: Hear every event.
        reuse: Other runs of the problem; a program that was scored there isn't scored again.
        options: Anything of `Settings`, e.g. `generations=5, seed=7`; `preset="paper"` sets what it names, below the
            others.

    Raises:
        GuidedEvolutionError: When the problem is wrong, the seed can't be scored or the model can't be asked.
    """
    loaded = problem if isinstance(problem, Problem) else Problem.load(problem)
    settings = Settings().with_changes(loaded.evolution, f"{loaded.folder}: evolution")
    model = None
    if isinstance(llm, str | Sequence):
        options["llm"] = llm
    elif llm is not None:
        model, options["llm"] = llm, llm.name
    settings = settings.with_changes(expanded(options), "evolve")
    where = Path(folder) if folder else session.default_folder(loaded, Path("runs"))
    return session.start(loaded, settings, where, listeners, model, reuse=[Path(path) for path in reuse])
