"""The figures of an ablation: both curves with bands, the arms' pooled fronts, the seeds as paired points."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from guided_evolution.ablation.measures import Measure
from guided_evolution.ablation.results import Curve, Results
from guided_evolution.errors import UsageError
from guided_evolution.plots.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PINK,
    RED,
    SKY,
    axis_title,
    empty,
    escape,
    figure,
    thinned,
    wide,
)

if TYPE_CHECKING:
    import plotly.graph_objects as go

# the first arm, which the others are compared with, in the strongest
COLOURS = (BLUE, ORANGE, GREEN, PINK, RED, SKY, GREY)
# where lines lie on each other, those below show through the gaps
_DASHES = ("solid", "dash", "dot", "dashdot")
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "star", "cross")


def colour(place: int) -> str:
    """The colour of the arm at a place of the plan."""
    return COLOURS[place % len(COLOURS)]


def plot_curves(results: Results, measure: Measure) -> go.Figure:
    """One measure after each evaluation: the mean over seeds of each arm, with pointwise 95 % bootstrap intervals."""
    made = figure(
        f"{measure.name} over evaluations", "evaluations (distinct programs, the seed included)", label(measure)
    )
    curves = [each for each in results.curves if each.measure == measure]
    for place, each in enumerate(curves):
        _band(made, each, colour(place))
    for place, each in enumerate(curves):
        kept = _kept(each)
        made.add_scatter(
            x=[index + 1 for index in kept],
            y=[each.mean[index] for index in kept],
            name=escape(each.arm),
            legendgroup=each.arm,
            mode="lines",
            line={"shape": "hv", "color": colour(place), "width": 2.5, "dash": _DASHES[place % len(_DASHES)]},
            hovertemplate=f"{escape(each.arm)}: %{{y:.5g}} after %{{x:,}} evaluations<extra></extra>",
        )
    if not any(value is not None for each in curves for value in each.mean):
        return empty(made, "in some run of every arm no program satisfies the constraints")
    return made


def _kept(curve: Curve) -> list[int]:
    return thinned([index for index, value in enumerate(curve.mean) if value is not None])


def _band(made: go.Figure, curve: Curve, ink: str) -> None:
    kept = [index for index in _kept(curve) if curve.low[index] is not None]
    if all(math.isclose(curve.low[index] or 0.0, curve.high[index] or 0.0) for index in kept):
        return  # a band without height would be drawn over the whole figure
    red, green, blue = (int(ink[start : start + 2], 16) for start in (1, 3, 5))
    line = {"shape": "hv", "width": 0, "color": ink}
    for ends, fill in ((curve.low, None), (curve.high, "tonexty")):
        made.add_scatter(
            x=[index + 1 for index in kept],
            y=[ends[index] for index in kept],
            legendgroup=curve.arm,
            showlegend=False,
            mode="lines",
            line=line,
            fill=fill,
            fillcolor=f"rgba({red},{green},{blue},0.16)",
            hoverinfo="skip",
        )


def plot_fronts(results: Results) -> go.Figure:
    """The pooled front of each arm's runs, in the first two objectives.

    Raises:
        UsageError: When the problem has a single objective.
    """
    objectives = results.problem.objectives
    if len(objectives) < 2:
        raise UsageError("a front needs two objectives; this problem has one")
    vertical, horizontal = objectives[:2]
    made = figure("Pooled fronts", axis_title(horizontal), f"validation {axis_title(vertical)}")
    seen = []
    for place, (name, members) in enumerate(results.fronts.items()):
        ordered = sorted(thinned(members), key=lambda each: each["scores"][horizontal.name])
        points = _points(ordered, vertical.name, horizontal.name)
        seen += points["x"]
        made.add_scatter(
            **points,
            name=escape(name),
            mode="lines+markers" if len(objectives) == 2 else "markers",
            line={
                "shape": "hv" if horizontal.goal == "min" else "vh",
                "color": colour(place),
                "width": 2,
                "dash": _DASHES[place % len(_DASHES)],
            },
            # members that arms share lie on each other, the first arm's below
            marker={
                "size": max(9, 16 - 2 * place),
                "opacity": 0.8,
                "color": colour(place),
                "symbol": _SYMBOLS[place % len(_SYMBOLS)],
            },
            hovertemplate=f"{escape(name)}, seed %{{customdata[0]}}, #%{{customdata[1]}}"
            f"<br>{escape(vertical.name)} %{{y:.5g}}, {escape(horizontal.name)} %{{x:.5g}}<extra></extra>",
        )
    if not seen:
        return empty(made, "nothing has been scored")
    if results.start:
        made.add_scatter(
            x=[results.start[horizontal.name]],
            y=[results.start[vertical.name]],
            name="seed program",
            mode="markers",
            marker={"size": 16, "color": INK, "symbol": "star", "line": {"color": "white", "width": 1}},
            hovertemplate="seed program: %{y:.5g}, %{x:.5g}<extra></extra>",
        )
        seen.append(results.start[horizontal.name])
    if wide(seen):
        made.update_xaxes(type="log", dtick="D2", title=f"{axis_title(horizontal)}, logarithmic")
    return made


def _points(members: Sequence[Mapping[str, Any]], vertical: str, horizontal: str) -> dict[str, list[Any]]:
    return {
        "x": [each["scores"][horizontal] for each in members],
        "y": [each["scores"][vertical] for each in members],
        "customdata": [[each["seed"], each["id"]] for each in members],
    }


def plot_seeds(results: Results, measure: Measure) -> go.Figure:
    """One measure at the end of every run: a column of points for each arm, a line for each seed, a bar at the mean."""
    plan = results.plan
    names = [arm.name for arm in plan.arms]
    values = {(run.arm, run.seed): run.value(measure) for run in results.runs}
    made = figure(f"{measure.name} at the end", "arm", label(measure), showlegend=False)
    for seed in plan.seeds:
        made.add_scatter(
            x=list(range(len(names))),
            y=[values[name, seed] for name in names],
            mode="lines",
            line={"color": GREY, "width": 1},
            opacity=0.55,
            hoverinfo="skip",
        )
    for place, name in enumerate(names):
        column = [values[name, seed] for seed in plan.seeds]
        made.add_scatter(
            x=[place] * len(column),
            y=column,
            customdata=list(plan.seeds),
            name=escape(name),
            mode="markers",
            marker={"size": 9, "color": colour(place), "opacity": 0.85},
            hovertemplate=f"{escape(name)}, seed %{{customdata}}: %{{y:.5g}}<extra></extra>",
        )
        known = [value for value in column if value is not None]
        if known and len(known) == len(column):
            middle = sum(known) / len(known)
            line = {"color": INK, "width": 3}
            made.add_shape(type="line", x0=place - 0.18, x1=place + 0.18, y0=middle, y1=middle, line=line)
    made.update_xaxes(
        tickvals=list(range(len(names))), ticktext=[escape(name) for name in names], range=[-0.5, len(names) - 0.5]
    )
    return made


def label(measure: Measure) -> str:
    """A measure's name for an axis."""
    what = "hypervolume, % of the joint front's" if measure.key == "volume" else measure.name
    return what if measure.larger else f"{what} (less is better)"
