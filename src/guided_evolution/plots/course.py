"""How the run got better, over evaluations, tokens or money."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from guided_evolution.errors import UsageError
from guided_evolution.plots.style import BLUE, GREY, ORANGE, RED, axis_title, empty, figure, plotly, thinned
from guided_evolution.run import Run
from guided_evolution.view import series

if TYPE_CHECKING:
    import plotly.graph_objects as go

OVER = {
    "evaluations": "evaluations (distinct programs, the seed included)",
    "tokens": "model tokens, read and written",
    "usd": "model calls, US dollars",
    "seconds": "wall-clock time, seconds",
}


def plot_hypervolume(run: Run, over: str = "evaluations") -> go.Figure:
    """The hypervolume of the front after each evaluation.

    Args:
        over: "evaluations", "tokens", "usd" or "seconds".

    Raises:
        UsageError: When Plotly isn't installed, or `over` is something else or was not recorded.
    """
    plotly()
    progress = series(run)
    across = _across(progress, over)
    names = " × ".join(each.name for each in run.problem.objectives)
    made = figure("Hypervolume of the front", OVER[over], f"hypervolume ({names})")
    if not across:
        return empty(made, "nothing has been evaluated yet")
    _step(made, progress, across, progress["hypervolume"], over, name="hypervolume", color=BLUE)
    made.update_layout(showlegend=False)
    return made


def plot_best(run: Run, objective: str | None = None, over: str = "evaluations") -> go.Figure:
    """The best value of one objective so far, of all, and of those no worse than the seed in every other objective.

    Args:
        objective: Its name; None takes the first.
        over: "evaluations", "tokens", "usd" or "seconds".

    Raises:
        UsageError: When Plotly isn't installed, there is no such objective, or `over` is something else or was not
            recorded.
    """
    plotly()
    known = {each.name: each for each in run.problem.objectives}
    chosen = next(iter(known.values())) if objective is None else known.get(objective)
    if chosen is None:
        raise UsageError(f'there is no objective "{objective}"; there are: {", ".join(known)}')
    progress = series(run)
    across = _across(progress, over)
    made = figure(f"Best {chosen.name} so far", OVER[over], f"validation {axis_title(chosen)}")
    if not across:
        return empty(made, "nothing has been evaluated yet")
    if len(known) > 1:
        within = progress["best_within_seed"][chosen.name]
        label = "no worse than the seed elsewhere"
        _step(made, progress, across, within, over, name=label, color=ORANGE, width=3)
        _step(made, progress, across, progress["best"][chosen.name], over, name="all", color=BLUE)
    else:
        _step(made, progress, across, progress["best"][chosen.name], over, name="best so far", color=BLUE)
    seed = run.individuals[0].scores.get(chosen.name)
    if seed is not None:
        made.add_hline(y=seed, line={"color": RED, "dash": "dot", "width": 1.5}, annotation_text="seed")
    return made


def _across(progress: dict[str, Any], over: str) -> list[float]:
    if over not in OVER:
        raise UsageError(f'over must be one of {", ".join(OVER)}; not "{over}"')
    values: list[float] = progress[over]
    if values and over in ("tokens", "usd") and not progress["tail"][over]:
        what = "tokens" if over == "tokens" else "price"
        raise UsageError(f"no model call of this run reports its {what}, so there is nothing to plot over")
    return values


def _step(
    made: go.Figure,
    progress: dict[str, Any],
    across: list[float],
    values: list[float | None],
    over: str,
    *,
    name: str,
    color: str,
    width: float = 2,
) -> None:
    """One staircase; of a long run only the corners, and the end of what was spent."""
    corners = [0, *(index for index in range(1, len(values)) if values[index] != values[index - 1]), len(values) - 1]
    kept = thinned(sorted(set(corners)))
    xs, ys = [across[index] for index in kept], [values[index] for index in kept]
    ids = [progress["id"][index] for index in kept]
    end = progress["tail"].get(over)
    if end is not None and end > xs[-1]:
        xs, ys, ids = [*xs, end], [*ys, ys[-1]], [*ids, ids[-1]]
    made.add_scatter(
        x=xs,
        y=ys,
        customdata=ids,
        name=name,
        mode="lines+markers",
        line={"shape": "hv", "color": color, "width": width},
        marker={"size": 6 if len(xs) < 200 else 3, "color": color, "line": {"color": GREY, "width": 0}},
        hovertemplate=f"%{{y:.5g}} after %{{x:,.6~g}} {'USD' if over == 'usd' else over}"
        "<br>set by #%{customdata}<extra></extra>",
    )
