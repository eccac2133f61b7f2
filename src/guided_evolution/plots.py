"""Plotly figures of a run, as in `optuna.visualization`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from guided_evolution.errors import UsageError
from guided_evolution.individual import Individual
from guided_evolution.progress import describe, format_scores
from guided_evolution.run import Run

if TYPE_CHECKING:
    import plotly.graph_objects as go


def plot_front(run: Run) -> go.Figure:
    """The first two objectives of every scored individual: the seed, the front as a staircase, and the rest.

    Raises:
        UsageError: When Plotly isn't installed, or the problem has a single objective.
    """
    try:
        import plotly.graph_objects as go
    except ImportError:
        raise UsageError("plots need Plotly: pip install 'guided-evolution[plot]'") from None
    problem = run.problem
    if len(problem.objectives) < 2:
        raise UsageError("a front needs two objectives; this problem has one")
    vertical, horizontal = problem.objectives[:2]
    front = run.front
    members = {each.id for each in front}
    rest = [each for each in run.individuals if each.ok and each.id not in members and each.id and each.twin is None]
    figure = go.Figure()

    def add(individuals: Sequence[Individual], name: str, **style: object) -> None:
        figure.add_scatter(
            x=[each.scores[horizontal.name] for each in individuals],
            y=[each.scores[vertical.name] for each in individuals],
            text=[f"#{each.id} {describe(each)}<br>{format_scores(problem, each.scores)}" for each in individuals],
            hoverinfo="text",
            name=name,
            **style,
        )

    line = {"shape": "hv" if horizontal.goal == "min" else "vh", "color": "#0b7285", "width": 2}
    ordered = sorted(front, key=lambda each: each.scores[horizontal.name])
    add(rest, "dominated", mode="markers", marker={"size": 8, "color": "#adb5bd"})
    add(ordered, "Pareto front", mode="lines+markers", line=line, marker={"size": 11, "color": "#0b7285"})
    add([run.seed], "seed", mode="markers", marker={"size": 14, "color": "#e8590c", "symbol": "star"})
    figure.update_layout(
        template="plotly_white",
        title=f"{problem.name}: {len(run.individuals)} individuals",
        xaxis_title=f"{horizontal.name} ({'less' if horizontal.goal == 'min' else 'more'} is better)",
        yaxis_title=f"validation {vertical.name} ({'less' if vertical.goal == 'min' else 'more'} is better)",
        legend={"orientation": "h", "y": -0.2},
        margin={"l": 70, "r": 20, "t": 50, "b": 60},
    )
    return figure
