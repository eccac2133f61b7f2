"""When the model and the evaluations were busy."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from guided_evolution.plots.style import BLUE, GREEN, GREY, ORANGE, PINK, RED, SKY, empty, figure, note, plotly
from guided_evolution.run import Run
from guided_evolution.view import lane_use, lanes
from guided_evolution.view.slots import EVALUATION, MODEL

if TYPE_CHECKING:
    import plotly.graph_objects as go

COLOURS = {
    "mutate": BLUE,
    "eot": SKY,
    "mate": PINK,
    "distil": ORANGE,
    "repair": GREY,
    "ok": GREEN,
    "crashed": RED,
    "timed_out": ORANGE,
    "pruned": SKY,
}
MOST_BARS = 1500
MOST_SLOTS = 24


def plot_lanes(run: Run) -> go.Figure:
    """Which slots of the model lane and the evaluation lane were busy when, each piece of work a bar.

    Of a long run, neighbouring pieces of the same kind are drawn as one where they would be narrower than a pixel.

    Raises:
        UsageError: When Plotly isn't installed.
    """
    plotly()
    work = lanes(run)
    use = lane_use(run)
    share = ", ".join(f"{name} {value:.0%}" for name, value in use.items())
    longest = max((row["end"] for row in work), default=0.0)
    unit, divisor = ("hours", 3600) if longest > 7200 else ("minutes", 60) if longest > 180 else ("seconds", 1)
    title = f"Busy slots of each lane{f' (of its time: {share})' if share else ''}"
    made = figure(title, f"{unit} since the run began", "lane and slot", barmode="overlay")
    if not work:
        return empty(made, "nothing has run yet")
    slots = 1 + max(row["slot"] for row in work)
    shown = [row for row in work if row["slot"] < MOST_SLOTS]
    bars = _merged(shown, longest / 1200 if len(shown) > MOST_BARS else 0.0)
    labels = _labels(bars)
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for bar in bars:
        groups[bar["lane"], bar["kind"]].append(bar)
    for (lane, kind), group in sorted(groups.items(), key=lambda item: (item[0][0] != MODEL, item[0][1])):
        made.add_bar(
            base=[bar["start"] / divisor for bar in group],
            x=[(bar["end"] - bar["start"]) / divisor for bar in group],
            y=[labels[bar["lane"], bar["slot"]] for bar in group],
            orientation="h",
            name=f"{lane}: {kind.replace('_', ' ')}",
            customdata=[bar["individual"] for bar in group],
            marker={"color": COLOURS.get(kind, GREY), "line": {"width": 0}},
            hovertext=[
                f"#{bar['individual']} {kind}, {bar['end'] - bar['start']:.2f} s"
                + (f" ({bar['pieces']} pieces)" if bar["pieces"] > 1 else "")
                for bar in group
            ],
            hoverinfo="text",
            width=0.8,
        )
    made.update_yaxes(categoryorder="array", categoryarray=list(labels.values())[::-1], showgrid=False)
    made.update_layout(height=220 + round(len(labels) * min(40, 160 / len(labels) + 14)), bargap=0.1, margin_t=116)
    remarks = [f"{len(shown):,} pieces of work drawn as {len(bars):,} bars"] if len(bars) < len(shown) else []
    if slots > MOST_SLOTS:
        remarks.append(f"the first {MOST_SLOTS} of {slots:,} slots of a lane shown")
    if remarks:
        note(made, "; ".join(remarks))
    return made


def _labels(bars: list[dict[str, Any]]) -> dict[tuple[str, int], str]:
    slots = sorted({(bar["lane"], bar["slot"]) for bar in bars}, key=lambda key: (key[0] != MODEL, key[1]))
    names = {MODEL: "model", EVALUATION: "evaluation"}
    return {key: f"{names[key[0]]} {key[1] + 1}" for key in slots}


def _merged(work: list[dict[str, Any]], gap: float) -> list[dict[str, Any]]:
    """Neighbours of one slot and kind, closer than `gap` seconds, as one bar."""
    bars: list[dict[str, Any]] = []
    last: dict[tuple[str, int], dict[str, Any]] = {}
    for row in work:
        before = last.get((row["lane"], row["slot"]))
        if gap and before and before["kind"] == row["kind"] and row["start"] - before["end"] <= gap:
            before["end"] = max(before["end"], row["end"])
            before["pieces"] += 1
            continue
        bar = {**row, "pieces": 1}
        last[row["lane"], row["slot"]] = bar
        bars.append(bar)
    return bars
