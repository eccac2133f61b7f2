"""The paper's own figures: the named members of the front as bars, and models as points of accuracy over size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from guided_evolution.errors import UsageError
from guided_evolution.individual import Individual
from guided_evolution.plots.style import (
    BLUE,
    GRID,
    ORANGE,
    PINK,
    RED,
    axis_title,
    empty,
    escape,
    figure,
    hover,
    plotly,
    wide,
)
from guided_evolution.problem import Objective
from guided_evolution.progress import format_value
from guided_evolution.run import Run
from guided_evolution.view import named, trade_off

if TYPE_CHECKING:
    import plotly.graph_objects as go


def plot_sizes(run: Run) -> go.Figure:
    """Bars of both objectives for the seed and the front's T, S, M and L; see `view.named` for the rule.

    Raises:
        UsageError: When Plotly isn't installed, or the problem hasn't one objective to raise and one to lower.
    """
    plotly()
    raised, lowered = _pair(run)
    made = figure(
        "The seed and the front's named members",
        "member of the front, smallest first",
        axis_title(raised),
        barmode="group",
    )
    members = _members(run)
    if len(members) < 2:
        return empty(made, "no evolved member of the front is as small as the seed")
    ordered = sorted(members.items(), key=lambda item: item[1].scores[lowered.name])
    labels = [f"{label}<br>#{each.id}" for label, each in ordered]
    values = [each.scores[raised.name] for _, each in ordered]
    sizes = [each.scores[lowered.name] for _, each in ordered]
    shared: dict[str, Any] = {"x": labels, "customdata": [each.id for _, each in ordered], "hoverinfo": "text"}
    shared["hovertext"] = [hover(run.problem, each) for _, each in ordered]
    for number, (objective, numbers, colour) in enumerate(((raised, values, BLUE), (lowered, sizes, ORANGE))):
        made.add_bar(
            **shared,
            y=numbers,
            name=objective.name,
            marker={"color": colour},
            text=[format_value(value) for value in numbers],
            textposition="outside",
            cliponaxis=False,
            offsetgroup=number,
            yaxis="y2" if number else "y",
        )
    made.update_layout(
        yaxis2={
            "title": axis_title(lowered),
            "overlaying": "y",
            "side": "right",
            "showgrid": False,
            "automargin": True,
            "zeroline": False,
        },
        margin_r=90,
    )
    if min(values) > 0:
        made.update_yaxes(range=[0, max(values) * 1.12], selector={"side": None})
    return made


def plot_scatter(
    run: Run, references: Mapping[str, Mapping[str, float]] | None = None, *, tested: bool = False
) -> go.Figure:
    """The objective to raise over the one to lower: the front, the seed, and reference models by name.

    Args:
        references: For each reference model its value of both objectives, measured in the same way as this run's, e.g.
            {"ResNet-20": {"accuracy": 0.91, "parameters": 272_474}}.
        tested: Show the held-out figures of `ge test` instead of the validation's, for those individuals that have
            them.

    Raises:
        UsageError: When Plotly isn't installed, the problem hasn't one objective to raise and one to lower, or a
            reference lacks one of them.
    """
    plotly()
    raised, lowered = _pair(run)
    given = dict(references or {})
    for name, values in given.items():
        if raised.name not in values or lowered.name not in values:
            raise UsageError(f'reference "{name}" needs {raised.name} and {lowered.name}')
    kind = "held-out" if tested else "validation"
    made = figure(f"{raised.name} over {lowered.name}", axis_title(lowered), f"{kind} {axis_title(raised)}")
    front = [(each, scores) for each in run.front if (scores := _scores(run, each, raised, tested=tested))]
    if not front:
        return empty(made, "the front has not been tested; run ge test" if tested else "nothing has been scored yet")
    names: dict[int, str] = {}
    for label, each in _members(run).items():
        names[each.id] = label
    evolved = [item for item in front if item[0].id]
    _points(run, made, evolved, names, (raised, lowered), "evolved", {"color": BLUE, "size": 11})
    seed = run.individuals[0]
    if mine := _scores(run, seed, raised, tested=tested):
        star = {"color": RED, "size": 15, "symbol": "star"}
        _points(run, made, [(seed, mine)], {}, (raised, lowered), "seed", star)
    if given:
        made.add_scatter(
            x=[values[lowered.name] for values in given.values()],
            y=[values[raised.name] for values in given.values()],
            text=[escape(name) for name in given],
            name="reference",
            mode="markers+text",
            textposition="bottom right",
            marker={"color": PINK, "size": 10, "symbol": "diamond"},
            hovertemplate="%{text}<br>%{y} at %{x:,}<extra></extra>",
        )
    across = [each.scores[lowered.name] for each, _ in front] + [values[lowered.name] for values in given.values()]
    if wide(across):
        made.update_xaxes(type="log", dtick="D2", title=f"{axis_title(lowered)}, logarithmic")
    return made


def _pair(run: Run) -> tuple[Objective, Objective]:
    pair = trade_off(run)
    if pair is None:
        raise UsageError("this figure needs one objective to raise and one to lower, such as accuracy and size")
    return pair


def _members(run: Run) -> dict[str, Individual]:
    """The seed and the named members, each once, under all of its names."""
    labels: dict[int, list[str]] = {0: ["seed"]} if run.individuals and run.individuals[0].ok else {}
    for name, number in named(run).items():
        labels.setdefault(number, []).append(name)
    return {"/".join(names): run.by_id[number] for number, names in labels.items()}


def _scores(run: Run, each: Individual, raised: Objective, *, tested: bool) -> Mapping[str, float] | None:
    if not tested:
        return each.scores if each.ok else None
    outcome = run.tests.get(each.id)
    return {**each.scores, **outcome.scores} if outcome is not None and raised.name in outcome.scores else None


def _points(
    run: Run,
    made: go.Figure,
    points: list[tuple[Individual, Mapping[str, float]]],
    names: Mapping[int, str],
    objectives: tuple[Objective, Objective],
    title: str,
    marker: Mapping[str, Any],
) -> None:
    raised, lowered = objectives
    made.add_scatter(
        x=[scores[lowered.name] for _, scores in points],
        y=[scores[raised.name] for _, scores in points],
        text=[names.get(each.id, "") for each, _ in points],
        customdata=[each.id for each, _ in points],
        hovertext=[hover(run.problem, each) for each, _ in points],
        hoverinfo="text",
        name=title,
        mode="markers+text" if names else "markers",
        textposition="top center",
        marker={**marker, "line": {"color": GRID, "width": 1}},
    )
