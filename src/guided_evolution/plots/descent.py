"""Who comes from whom."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from guided_evolution.individual import Individual
from guided_evolution.plots.style import BLUE, GREEN, GREY, ORANGE, RED, empty, figure, hover, note, plotly
from guided_evolution.run import Run
from guided_evolution.view.lineage import PARENT, PARTNER, TEACHER, ancestry, edges, trunk

if TYPE_CHECKING:
    import plotly.graph_objects as go

MOST_NODES = 400
LINKS = {
    PARENT: ("changed", {"color": "rgba(128,136,148,0.75)", "width": 1.6}),
    PARTNER: ("mated with", {"color": ORANGE, "width": 1.2, "dash": "dash"}),
    TEACHER: ("taught by", {"color": GREEN, "width": 1, "dash": "dot"}),
}


def plot_lineage(run: Run, individual: int | None = None) -> go.Figure:
    """The individuals by generation with a link from every parent: solid to the one that was changed, dashed from
    the other parent of a mating, dotted from the elite whose lesson was applied.

    Args:
        individual: Show this one's ancestors; None shows the whole run, or the ancestors of the front where the run
            has more than some hundreds of individuals.

    Raises:
        UsageError: When Plotly isn't installed.
        RunError: When there is no such individual.
    """
    plotly()
    everyone = run.by_id
    remark = ""
    if individual is not None:
        run.individual(individual)
        shown = ancestry(run, [individual])
    elif len(everyone) <= MOST_NODES:
        shown = set(everyone)
    else:
        shown = ancestry(run, (each.id for each in run.front))
        remark = f"ancestors of the front: {len(shown):,} of {len(everyone):,} individuals"
    if len(shown) > MOST_NODES:
        ends = [individual] if individual is not None else [each.id for each in run.front]
        shown = _trunks(run, ends)
        remark = f"without mating partners: {len(shown):,} of {len(everyone):,} individuals"
    title = "Lineage" if individual is None else f"Lineage of #{individual}"
    made = figure(title, "generation", "individuals")
    if not shown:
        return empty(made, "there is no individual yet")
    links = [link for link in edges(run) if link[0] in shown and link[1] in shown]
    where = _places([everyone[number] for number in sorted(shown)], links)
    for kind, (name, line) in LINKS.items():
        _links(made, [(one, two) for one, two, each in links if each == kind], where, name, line)
    front = {each.id for each in run.front}
    _nodes(run, made, (everyone[number] for number in sorted(shown)), front, where)
    made.update_yaxes(showticklabels=False, showgrid=False, ticks="")
    last = int(max(place[0] for place in where.values()))
    step = max(1, round(last / 12))
    ticks = [-1, *range(0 if step == 1 else step, last + 1, step)]
    made.update_xaxes(tickvals=ticks, ticktext=["seed", *map(str, ticks[1:])])
    tallest = max(sum(1 for place in where.values() if place[0] == x) for x in {place[0] for place in where.values()})
    made.update_layout(height=min(900, 300 + 18 * tallest))
    if remark:
        note(made, remark)
    return made


def _trunks(run: Run, ends: Iterable[int]) -> set[int]:
    """As many whole lines of descent, along the parents that were changed, as can be told apart."""
    shown: set[int] = set()
    for number in ends:
        line = trunk(run, number)
        if len(shown.union(line)) > MOST_NODES:
            break
        shown.update(line)
    return shown


def _places(individuals: list[Individual], links: list[tuple[int, int, str]]) -> dict[int, tuple[float, float]]:
    """A place for each: its generation across, and beside its parents in that generation's column."""
    parents: Mapping[int, list[int]] = defaultdict(list)
    for one, two, kind in links:
        if kind != TEACHER:
            parents[two].append(one)
    columns: Mapping[int, list[Individual]] = defaultdict(list)
    for each in individuals:
        columns[-1 if each.id == 0 else each.generation].append(each)
    where: dict[int, tuple[float, float]] = {}

    def middle(each: Individual) -> float:
        known = [where[number][1] for number in parents[each.id] if number in where]
        return sum(known) / len(known) if known else 0.0

    for generation in sorted(columns):
        column = sorted(columns[generation], key=lambda each: (middle(each), each.id))
        for place, each in enumerate(column):
            where[each.id] = (max(generation, -1), place - (len(column) - 1) / 2)
    return where


def _links(
    made: go.Figure,
    pairs: list[tuple[int, int]],
    where: Mapping[int, tuple[float, float]],
    name: str,
    line: Mapping[str, object],
) -> None:
    if not pairs:
        return
    xs: list[float | None] = []
    ys: list[float | None] = []
    for one, two in pairs:
        (left, high), (right, low) = where[one], where[two]
        # a gentle S keeps links that pass a column apart from its members
        xs += [left, left + (right - left) * 0.35, right - (right - left) * 0.35, right, None]
        ys += [high, high + (low - high) * 0.1, high + (low - high) * 0.9, low, None]
    made.add_scatter(
        x=xs, y=ys, name=name, mode="lines", line={**line, "shape": "spline"}, opacity=0.55, hoverinfo="skip"
    )


def _nodes(
    run: Run,
    made: go.Figure,
    individuals: Iterable[Individual],
    front: set[int],
    where: Mapping[int, tuple[float, float]],
) -> None:
    kinds: dict[str, list[Individual]] = {"failed": [], "scored": [], "Pareto front": [], "seed": []}
    for each in individuals:
        kind = "seed" if not each.id else "Pareto front" if each.id in front else "scored" if each.ok else "failed"
        kinds[kind].append(each)
    styles = {
        "failed": {"symbol": "x", "size": 7, "color": GREY},
        "scored": {"symbol": "circle", "size": 9, "color": "#a9b4c0", "line": {"color": GREY, "width": 1}},
        "Pareto front": {"symbol": "circle", "size": 12, "color": BLUE},
        "seed": {"symbol": "star", "size": 15, "color": RED},
    }
    for kind, members in kinds.items():
        if members:
            made.add_scatter(
                x=[where[each.id][0] for each in members],
                y=[where[each.id][1] for each in members],
                customdata=[each.id for each in members],
                text=[hover(run.problem, each) for each in members],
                name=kind,
                mode="markers",
                marker=styles[kind],
                hoverinfo="text",
            )
