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
STATUS_COLOURS = {
    "rejected": GREY,
    "crashed": RED,
    "timed_out": ORANGE,
    "out_of_memory": PINK,
    "lost": SKY,
    "pruned": BLUE,
}
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
    for key, (label, colour) in STAGES.items():
        shares = [f"{counts[key]} of {counts['tried']} ({counts[key] / counts['tried']:.0%})" for _, counts in rows]
        made.add_bar(
            x=[counts[key] for _, counts in rows],
            y=labels,
            orientation="h",
            name=label,
            marker={"color": colour},
            text=[f"{counts[key]:,}" for _, counts in rows],
            textposition="outside",
            cliponaxis=False,
            hovertext=[f"{name}<br>{label}: {share}" for name, share in zip(labels, shares, strict=True)],
            hoverinfo="text",
        )
    made.update_layout(height=150 + 84 * len(rows), bargap=0.22)
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
    for status in Counter(row["status"] for row in rows):
        mine = [(place, row) for place, row in enumerate(rows) if row["status"] == status]
        made.add_bar(
            x=[row["count"] for _, row in mine],
            y=[place + 0.2 for place, _ in mine],
            orientation="h",
            name=status.replace("_", " "),
            marker={"color": STATUS_COLOURS.get(status, PINK)},
            customdata=[row["ids"][0] for _, row in mine],
            width=0.4,
            hovertext=[
                f"{escape(row['example'][:160])}<br>first: {', '.join(f'#{number}' for number in row['ids'][:6])}"
                for _, row in mine
            ],
            hoverinfo="text",
        )
    # the reasons stand above their bars: beside them they would leave no room for the bars on a narrow screen
    made.add_scatter(
        x=[0] * len(rows),
        y=[place - 0.2 for place in range(len(rows))],
        text=[f" <b>{row['count']:,}</b>  {escape(_short(row['kind']))}" for row in rows],
        mode="text",
        textposition="middle right",
        cliponaxis=False,
        showlegend=False,
        hoverinfo="skip",
    )
    made.update_yaxes(showticklabels=False, showgrid=False, ticks="", range=[len(rows) - 0.4, -0.6])
    made.update_xaxes(rangemode="tozero", dtick=1 if rows[0]["count"] <= 10 else None)
    made.update_layout(height=160 + 46 * len(rows), showlegend=True, margin_l=40)
    if len(rows) < len(kinds):
        note(made, f"the {len(rows)} most frequent of {len(kinds)} reasons shown")
    return made


def _short(text: str, most: int = 64) -> str:
    return text if len(text) <= most else f"{text[: most - 1].rstrip()}…"
