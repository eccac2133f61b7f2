"""The Pareto front: in two objectives as a staircase, in more as parallel coordinates or any two of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from guided_evolution import population
from guided_evolution.errors import UsageError
from guided_evolution.individual import Individual
from guided_evolution.plots.style import (
    AGES,
    BLUE,
    GREY,
    RED,
    axis_title,
    empty,
    figure,
    hover,
    note,
    plotly,
    thinned,
    wide,
)
from guided_evolution.problem import Objective
from guided_evolution.run import Run
from guided_evolution.view import named

if TYPE_CHECKING:
    import plotly.graph_objects as go


def plot_front(run: Run, objectives: Sequence[str] | None = None, generation: int | None = None) -> go.Figure:
    """Every scored individual in two objectives: the seed, the front as a staircase, the rest by generation.

    Args:
        objectives: The names of two objectives, for the vertical and the horizontal axis. None takes the first two of
            a problem with two, and parallel coordinates for a problem with more.
        generation: Show the run as it was when this generation had ended; None shows all of it.

    Raises:
        UsageError: When Plotly isn't installed, the problem has a single objective, or a name is unknown.
    """
    plotly()
    problem = run.problem
    if len(problem.objectives) < 2:
        raise UsageError("a front needs two objectives; this problem has one")
    upto = [each for each in run.individuals if generation is None or each.generation <= generation]
    front = run.front if generation is None else population.front(problem, upto)
    if objectives is None and len(problem.objectives) > 2:
        return _parallel(run, population.distinct(upto), front)
    vertical, horizontal = _chosen(problem.objectives, objectives)
    when = "" if generation is None else f", end of generation {generation}"
    made = figure(
        f"{problem.name}: {len(upto)} individuals{when}",
        axis_title(horizontal),
        f"validation {axis_title(vertical)}",
    )
    scored = [each for each in population.distinct(upto) if each.id]
    members = {each.id for each in front}
    rest = [each for each in scored if each.id not in members]
    if not front:
        return empty(made, "nothing has been scored yet")
    shown = thinned(rest)
    _dominated(run, made, shown, vertical, horizontal)
    _members(run, made, front, vertical, horizontal)
    _seed(run, made, vertical, horizontal)
    if wide([each.scores[horizontal.name] for each in (*shown, *front)]):
        made.update_xaxes(type="log", dtick="D2", title=f"{axis_title(horizontal)}, logarithmic")
    if len(shown) < len(rest):
        note(made, f"{len(shown):,} of {len(rest):,} dominated individuals shown")
    return made


def _chosen(objectives: Sequence[Objective], names: Sequence[str] | None) -> tuple[Objective, Objective]:
    if names is None:
        return objectives[0], objectives[1]
    known = {each.name: each for each in objectives}
    unknown = [name for name in names if name not in known]
    if unknown or len(names) != 2:
        raise UsageError(f"a front shows two of the objectives: {', '.join(known)}; not {', '.join(names) or 'none'}")
    return known[names[0]], known[names[1]]


def _points(
    run: Run, individuals: Sequence[Individual], vertical: Objective, horizontal: Objective
) -> dict[str, list[Any]]:
    return {
        "x": [each.scores[horizontal.name] for each in individuals],
        "y": [each.scores[vertical.name] for each in individuals],
        "customdata": [each.id for each in individuals],
        "text": [hover(run.problem, each, f"generation {each.generation}") for each in individuals],
    }


def _dominated(
    run: Run, made: go.Figure, individuals: Sequence[Individual], vertical: Objective, horizontal: Objective
) -> None:
    ages = [each.generation for each in individuals]
    marker = {
        "size": 8 if len(individuals) < 500 else 5,
        "opacity": 0.75,
        "color": ages,
        "colorscale": AGES,
        "colorbar": {"title": {"text": "generation"}, "thickness": 10, "outlinewidth": 0, "len": 0.85, "dtick": None},
        "showscale": len(set(ages)) > 1,
    }
    made.add_scatter(
        **_points(run, individuals, vertical, horizontal),
        name="dominated", mode="markers", marker=marker, hoverinfo="text",
    )  # fmt: skip


def _members(
    run: Run, made: go.Figure, front: Sequence[Individual], vertical: Objective, horizontal: Objective
) -> None:
    ordered = sorted(front, key=lambda each: each.scores[horizontal.name])
    two = len(run.problem.objectives) == 2
    names: dict[int, list[str]] = {}
    for name, number in named(run).items():
        names.setdefault(number, []).append(name)
    points = _points(run, ordered, vertical, horizontal)
    made.add_scatter(
        **{**points, "text": ["/".join(names.get(each.id, ())) for each in ordered]},
        hovertext=points["text"],
        name="Pareto front",
        mode=("lines+" if two else "") + ("markers+text" if names else "markers"),
        textposition="top center" if vertical.goal == "max" else "bottom center",
        line={"shape": "hv" if horizontal.goal == "min" else "vh", "color": BLUE, "width": 2},
        marker={"size": 11, "color": BLUE},
        hoverinfo="text",
    )


def _seed(run: Run, made: go.Figure, vertical: Objective, horizontal: Objective) -> None:
    seed = run.individuals[0]
    if seed.id or not seed.ok:
        return
    marker = {"size": 15, "color": RED, "symbol": "star", "line": {"color": "white", "width": 1}}
    points = _points(run, [seed], vertical, horizontal)
    made.add_scatter(**points, name="seed", mode="markers", marker=marker, hoverinfo="text")


def _parallel(run: Run, scored: Sequence[Individual], front: Sequence[Individual]) -> go.Figure:
    """One axis per objective, best at the top; each individual a line."""
    problem = run.problem
    members = {each.id for each in front}
    made = figure(f"{problem.name}: the front in {len(problem.objectives)} objectives", "objective", "")
    rest = thinned([each for each in scored if each.id not in members and each.id], 300)
    shown = [*rest, *front, *(each for each in scored if each.id == 0)]
    if not shown:
        return empty(made, "nothing has been scored yet")
    spans = {}
    for objective in problem.objectives:
        values = [objective.minimised(each.scores[objective.name]) for each in shown]
        spans[objective.name] = (min(values), max(values) - min(values) or 1.0)

    def heights(each: Individual) -> list[float]:
        lows = ((item, *spans[item.name]) for item in problem.objectives)
        return [1 - (item.minimised(each.scores[item.name]) - low) / span for item, low, span in lows]

    for group, name, colour, width in ((rest, "dominated", GREY, 0.6), (front, "Pareto front", BLUE, 1.8)):
        _lines(run, made, group, heights, name, {"color": colour, "width": width})
    _lines(run, made, [each for each in scored if each.id == 0], heights, "seed", {"color": RED, "width": 3})
    titles = []
    for objective in problem.objectives:
        low, span = spans[objective.name]
        best, worst = objective.minimised(low), objective.minimised(low + span)
        titles.append(f"{objective.name}<br>best {best:.4g}<br>worst {worst:.4g}")
    made.update_xaxes(tickvals=list(range(len(titles))), ticktext=titles, range=[-0.3, len(titles) - 0.7])
    made.update_yaxes(title="share of the range seen (1 is best)")
    made.update_layout(margin_b=110)
    return made


def _lines(run: Run, made: go.Figure, group: Sequence[Individual], heights: Any, name: str, line: Any) -> None:
    """All lines of a group as one trace, broken between individuals."""
    xs: list[float | None] = []
    ys: list[float | None] = []
    ids: list[int | None] = []
    texts: list[str] = []
    for each in group:
        values = heights(each)
        xs += [*range(len(values)), None]
        ys += [*values, None]
        ids += [each.id] * len(values) + [None]
        texts += [hover(run.problem, each)] * len(values) + [""]
    made.add_scatter(
        x=xs, y=ys, customdata=ids, text=texts, name=name, mode="lines+markers", line=line, marker={"size": 5},
        hoverinfo="text", opacity=0.45 if name == "dominated" else 1,
    )  # fmt: skip
