"""Plotly figures of a run, as in `optuna.visualization`: each takes a `Run` and gives a `plotly.graph_objects.Figure`.

Every point that stands for an individual carries its id as `customdata`. The ground is transparent and the inks are
readable on light and dark pages; `style.themed` fits a figure to one of them.
"""

from __future__ import annotations

from guided_evolution.plots.counts import plot_failures, plot_operators
from guided_evolution.plots.course import plot_best, plot_hypervolume
from guided_evolution.plots.descent import plot_lineage
from guided_evolution.plots.front import plot_front
from guided_evolution.plots.sizes import plot_scatter, plot_sizes
from guided_evolution.plots.slots import plot_lanes

__all__ = [
    "plot_best",
    "plot_failures",
    "plot_front",
    "plot_hypervolume",
    "plot_lanes",
    "plot_lineage",
    "plot_operators",
    "plot_scatter",
    "plot_sizes",
]
