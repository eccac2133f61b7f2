"""The charts of a run as JSON, limited to what a browser draws quickly; the page's script draws them."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from guided_evolution import plots
from guided_evolution.errors import GuidedEvolutionError
from guided_evolution.run import Run
from guided_evolution.ui.queries import number_in
from guided_evolution.ui.reading import Reading

Parameters = Mapping[str, str]


def _front(run: Run, parameters: Parameters) -> Any:
    return plots.plot_front(run, generation=number_in(parameters.get("generation")))


def _best(run: Run, parameters: Parameters) -> Any:
    return plots.plot_best(run, over=parameters.get("over", "evaluations"))


def _hypervolume(run: Run, parameters: Parameters) -> Any:
    return plots.plot_hypervolume(run, over=parameters.get("over", "evaluations"))


def _operators(run: Run, parameters: Parameters) -> Any:
    return plots.plot_operators(run, by=parameters.get("by", "operator"))


def _lineage(run: Run, parameters: Parameters) -> Any:
    return plots.plot_lineage(run, number_in(parameters.get("individual")))


FIGURES: Mapping[str, Callable[[Run, Parameters], Any]] = {
    "front": _front,
    "best": _best,
    "hypervolume": _hypervolume,
    "operators": _operators,
    "failures": lambda run, _: plots.plot_failures(run),
    "lanes": lambda run, _: plots.plot_lanes(run),
    "lineage": _lineage,
}
CONTROLS = ("generation", "over", "by", "individual")


def figure_json(reading: Reading, name: str, parameters: Parameters) -> str:
    """A chart as Plotly's JSON; where there is nothing to draw, an object whose `empty` says why."""
    wanted = {key: parameters[key] for key in CONTROLS if key in parameters}
    try:
        return reading.once(("figure", name, *sorted(wanted.items())), lambda: _made(reading.run, name, wanted))
    except GuidedEvolutionError as error:
        return json.dumps({"empty": str(error)})


def _made(run: Run, name: str, wanted: Parameters) -> str:
    text: str = FIGURES[name](run, wanted).to_json()
    return text


def style_marks(script: Path | None) -> list[str]:
    """The ids of style elements that Plotly adds for its maps unless they are there; a page brings them, empty."""
    if script is None:
        return []
    return sorted(set(re.findall(r'getElementById\("([0-9a-f]{64})"\)', script.read_text(encoding="utf-8"))))


def plotly_script() -> Path | None:
    """Plotly's script as its Python package brings it along; None without Plotly."""
    found = importlib.util.find_spec("plotly")
    if found is None or not found.submodule_search_locations:
        return None
    path = Path(next(iter(found.submodule_search_locations))) / "package_data" / "plotly.min.js"
    return path if path.is_file() else None
