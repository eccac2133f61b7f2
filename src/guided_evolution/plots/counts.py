"""What each way of asking came to, and what went wrong."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from guided_evolution.errors import UsageError
from guided_evolution.plots.style import BLUE, GREEN, GREY, ORANGE, PINK, RED, SKY, empty, escape, figure, note, plotly
from guided_evolution.run import Run
from guided_evolution.view import breakdown, entered, failures, grouped
from guided_evolution.view.tallies import KEYS

if TYPE_CHECKING:
    import plotly.graph_objects as go

STAGES = {
    "tried": ("tried", GREY),
    "parsed": ("usable reply", SKY),
    "passed": ("passed the check", BLUE),
    "improved": ("improved on its parent", ORANGE),
    "reached": ("reached the front", GREEN),
}
STATUS_COLOURS = {"rejected": GREY, "crashed": RED, "timed_out": ORANGE, "out_of_memory": PINK, "lost": SKY}
MOST_ROWS = 14


def plot_operators(run: Run, by: str = "operator") -> go.Figure:
    """How far the children of each group got: tried, usable reply, passed the check, improved, reached the front.

    Args:
        by: What to group by: "operator", "block", "category", "character" or "model".

    Raises:
        UsageError: When Plotly isn't installed, or `by` is something else.
    """
    plotly()
    if by not in KEYS:
        raise UsageError(f'by must be one of {", ".join(KEYS)}; not "{by}"')
    table = grouped(breakdown(run, entered(run)), by)
    made = figure(f"What each {by} came to", "children", by, barmode="group")
    if not table:
        return empty(made, "no child has been tried yet")
    rows = list(table.items())[:MOST_ROWS]
    labels = [escape(name.removeprefix("mate_").replace("_", " ") or "(none)") for name, _ in rows]
    for key, (label, colour) in reversed(STAGES.items()):
        shares = [f"{counts[key]} of {counts['tried']} ({counts[key] / counts['tried']:.0%})" for _, counts in rows]
        made.add_bar(
            x=[counts[key] for _, counts in rows],
            y=labels,
            orientation="h",
            name=label,
            marker={"color": colour},
            text=[counts[key] for _, counts in rows],
            textposition="outside",
            cliponaxis=False,
            hovertext=[f"{name}<br>{label}: {share}" for name, share in zip(labels, shares, strict=True)],
            hoverinfo="text",
        )
    made.update_layout(height=150 + 84 * len(rows), bargap=0.22, legend_traceorder="reversed")
    made.update_yaxes(autorange="reversed", title_standoff=12)
    if len(rows) < len(table):
        note(made, f"the {len(rows)} most tried of {len(table)} shown")
    return made


def plot_failures(run: Run) -> go.Figure:
    """The individuals that failed, by kind of reason, coloured by status.

    Raises:
        UsageError: When Plotly isn't installed.
    """
    plotly()
    kinds = failures(run)
    total = sum(row["count"] for row in kinds)
    made = figure(f"{total} of {len(run.individuals)} individuals failed", "individuals", "reason", barmode="stack")
    if not kinds:
        return empty(made, "nothing failed")
    rows = kinds[:MOST_ROWS]
    places = list(range(len(rows)))
    for status in Counter(row["status"] for row in rows):
        mine = [(place, row) for place, row in zip(places, rows, strict=True) if row["status"] == status]
        made.add_bar(
            x=[row["count"] for _, row in mine],
            y=[place for place, _ in mine],
            orientation="h",
            name=status.replace("_", " "),
            marker={"color": STATUS_COLOURS.get(status, PINK)},
            customdata=[row["ids"][0] for _, row in mine],
            text=[row["count"] for _, row in mine],
            textposition="outside",
            cliponaxis=False,
            width=0.62,
            hovertext=[
                f"{escape(row['example'][:160])}<br>first: {', '.join(f'#{number}' for number in row['ids'][:6])}"
                for _, row in mine
            ],
            hoverinfo="text",
        )
    made.update_yaxes(tickvals=places, ticktext=[escape(_short(row["kind"])) for row in rows], autorange="reversed")
    made.update_layout(height=160 + 34 * len(rows), showlegend=True)
    if len(rows) < len(kinds):
        note(made, f"the {len(rows)} most frequent of {len(kinds)} reasons shown")
    return made


def _short(text: str, most: int = 48) -> str:
    return text if len(text) <= most else f"{text[: most - 1].rstrip()}…"
