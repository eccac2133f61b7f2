"""What all figures share: colours that colour-blind people tell apart, inks for light and dark, labels and limits."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from guided_evolution.errors import UsageError
from guided_evolution.individual import Individual
from guided_evolution.problem import Objective, Problem
from guided_evolution.progress import describe, format_scores

if TYPE_CHECKING:
    import plotly.graph_objects as go

T = TypeVar("T")

# after Okabe and Ito, "Color Universal Design" (2008), without their yellow and black, which vanish on one ground
BLUE, ORANGE, GREEN, PINK, SKY, RED = "#2b83c6", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00"
GREY = "#8a929c"
INK, GRID = "#78818c", "rgba(128,136,148,0.22)"
LIGHT, DARK = {"ink": "#3d4650", "ground": "#ffffff"}, {"ink": "#c3cad3", "ground": "#14181d"}
# early to late, at a lightness that stands out on both grounds
AGES = [[0.0, "#d9a441"], [0.5, "#a08f8f"], [1.0, "#5b7fd1"]]
# Drawn as SVG: Plotly's WebGL points compile code at run time, which the pages' content policy forbids.
MOST_POINTS = 2000


def plotly() -> Any:
    """Plotly's graph objects.

    Raises:
        UsageError: When Plotly isn't installed.
    """
    try:
        import plotly.graph_objects as go
    except ImportError:
        raise UsageError("plots need Plotly: pip install 'guided-evolution[plot]'") from None
    return go


def figure(title: str, horizontal: str, vertical: str, **layout: Any) -> go.Figure:
    """An empty figure in the house style, with a title and both axes named."""
    axis = {"gridcolor": GRID, "zeroline": False, "linecolor": GRID, "ticks": "outside", "tickcolor": GRID}
    made: go.Figure = plotly().Figure()
    made.update_layout(
        template="none",
        title={
            "text": escape(title),
            "x": 0,
            "xref": "paper",
            "y": 1,
            "yanchor": "top",
            "pad": {"t": 16},
            "font": {"size": 16},
        },
        font={"color": INK, "size": 13, "family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        colorway=[BLUE, ORANGE, GREEN, PINK, SKY, RED],
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        margin={"l": 70, "r": 24, "t": 84, "b": 60},
        hoverlabel={"align": "left"},
        hovermode="closest",
        xaxis={**axis, "title": {"text": escape(horizontal)}, "automargin": True},
        yaxis={**axis, "title": {"text": escape(vertical)}, "automargin": True},
        height=460,
    )
    made.update_layout(**layout)
    return made


def themed(made: go.Figure, *, dark: bool) -> go.Figure:
    """The figure with the inks of a light or a dark page, ground included; changed in place and given back."""
    theme = DARK if dark else LIGHT
    made.update_layout(font_color=theme["ink"], paper_bgcolor=theme["ground"], plot_bgcolor=theme["ground"])
    return made


def bare(made: go.Figure) -> go.Figure:
    """The figure without its title, for a page that says it in a heading; changed in place and given back."""
    made.update_layout(title=None, margin_t=44)
    return made


def empty(made: go.Figure, text: str) -> go.Figure:
    """The figure with a sentence where its data would be."""
    made.add_annotation(text=escape(text), x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False)
    made.update_xaxes(showticklabels=False).update_yaxes(showticklabels=False)
    return made


def note(made: go.Figure, text: str) -> None:
    """Adds a remark in small print at the lower right, below the axis."""
    made.add_annotation(
        text=escape(text), x=1, y=0, yshift=-74, xref="paper", yref="paper", xanchor="right", showarrow=False,
        font={"size": 11},
    )  # fmt: skip
    made.update_layout(margin_b=max(92, made.layout.margin.b or 0))


def escape(text: object) -> str:
    """Text that Plotly, which reads some HTML, shows as it is."""
    return html.escape(str(text), quote=False)


def axis_title(objective: Objective, *, goal: bool = True) -> str:
    """An objective's name for an axis, with its direction."""
    hint = f" ({'more' if objective.goal == 'max' else 'less'} is better)" if goal else ""
    return f"{objective.name}{hint}"


def wide(values: Sequence[float]) -> bool:
    """Whether positive values spread so far that only a logarithmic axis shows them."""
    positive = [value for value in values if value > 0]
    return len(positive) == len(values) > 0 and max(positive) / min(positive) > 30


def hover(problem: Problem, individual: Individual, *more: str) -> str:
    """What is shown beside the pointer: the id, how it was made, its scores."""
    lines = [f"<b>#{individual.id}</b> {escape(describe(individual))}"]
    if individual.ok:
        lines.append(escape(format_scores(problem, individual.scores)))
    elif individual.outcome is not None:
        lines.append(escape(f"{individual.status}: {individual.outcome.reason[:100]}"))
    return "<br>".join([*lines, *map(escape, more)])


def thinned(items: Sequence[T], most: int = MOST_POINTS) -> list[T]:
    """At most `most` items, evenly over their order, the first and the last included."""
    if len(items) <= most:
        return list(items)
    return [items[math.floor(index * (len(items) - 1) / (most - 1))] for index in range(most)]
