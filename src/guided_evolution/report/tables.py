"""The report as Markdown and as a table of values."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence

from guided_evolution import view
from guided_evolution.report.content import content
from guided_evolution.run import Run

_PLAIN = ("id", "generation", "status", "reason", "operator", "block", "category", "character")


def csv_report(run: Run) -> str:
    """One row per individual: where it comes from, its scores, metrics and held-out scores."""
    objectives = [each.name for each in run.problem.objectives]
    metrics = sorted({name for each in run.individuals if each.outcome for name in each.outcome.metrics})
    tests = run.tests
    tested = sorted({name for outcome in tests.values() for name in outcome.scores})
    front = {each.id for each in run.front}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        [
            *_PLAIN,
            "parents",
            "twin",
            "front",
            "seconds",
            *objectives,
            *(f"metric {name}" for name in metrics),
            *(f"test {name}" for name in tested),
            "digest",
        ]
    )
    for each in run.individuals:
        document = view.individual_document(each, view.verified(run, each.id))
        test = tests[each.id].scores if each.id in tests else {}
        writer.writerow(
            [
                *(_cell(document[name]) for name in _PLAIN),
                " ".join(map(str, document["parents"])),
                document["twin"],
                int(each.id in front),
                document["seconds"],
                *(document["scores"].get(name) for name in objectives),
                *(document["metrics"].get(name) for name in metrics),
                *(test.get(name) for name in tested),
                document["digest"],
            ]
        )
    return text.getvalue()


def _cell(value: object) -> object:
    """Text that a spreadsheet would take for a formula gets an apostrophe: it may come from a candidate."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def markdown_report(run: Run) -> str:
    """The report without its charts; whatever a model or a candidate wrote stands in code."""
    told = content(run)
    parts = [f"# {markdown_text(told['problem'])}: what evolved", "", markdown_text(told["summary"]), ""]
    state = f"{told['status']} ({told['stop_reason']})" if told["stop_reason"] else told["status"]
    parts += [
        f"Run {markdown_text(told['run'])}, begun {told['begun']}, {markdown_text(state)}.",
        "",
        f"**{markdown_text(told['verdict'])}**",
        "",
    ]
    if told["comparison"]:
        compared = told["comparison"]
        parts += ["## Against the seed", "", *markdown_table(compared["head"], compared["validation"])]
        if compared["test"]:
            parts += ["Held-out, measured once:", "", *markdown_table(compared["head"], compared["test"])]
    parts += _winner(told)
    parts += ["## Cost", "", *markdown_table(["", "until the winner", "whole run"], told["cost"])]
    front = told["front"]
    parts += [f"## The front ({front['size']} members)", "", *markdown_table(front["head"], front["rows"])]
    parts += [markdown_text(front["note"]), ""] if front["note"] else []
    parts += ["## What each way of asking came to", ""]
    for by, rows in told["operators"]["tables"]:
        parts += markdown_table([by, *told["operators"]["head"]], rows)
    for title, key in (("Failures", "failures"), ("Replies that were not used", "refusals")):
        kinds = told[key]
        parts += [f"## {title} ({kinds['total']})", ""]
        parts += (
            markdown_table(["count", "status", "example", "ids"], kinds["rows"]) if kinds["rows"] else ["None.", ""]
        )
    parts += [
        "## For an appendix",
        "",
        markdown_text(told["appendix"]),
        "",
        *markdown_table(["", ""], told["configuration"]),
    ]
    return "\n".join(parts)


def _winner(told: dict[str, object]) -> list[str]:
    winner = told["winner"]
    if not isinstance(winner, dict):
        return []
    parts = [f"## The winning change: {markdown_text(winner['made_by'])}", ""]
    for step in winner["steps"]:
        parts += [f"* {markdown_text(name)}: {markdown_text(value)}" for name, value in step]
    parts += ["", *_fence(winner["diff"], "diff")]
    for each in winner["exchanges"]:
        parts += [
            f"### {markdown_text(each['purpose'])} ({markdown_text(each['facts'])})",
            "",
            "The prompt:",
            "",
            *_fence(each["prompt"]),
        ]
        parts += ["The reply:", "", *_fence(each["reply"])]
    return parts


def _fence(text: str, language: str = "") -> list[str]:
    """A code fence longer than any run of backticks in the text."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}{language}", text.rstrip("\n"), fence, ""]


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table's lines, an empty one after it."""
    lines = [f"| {' | '.join(map(markdown_text, head))} |", f"|{'---|' * len(head)}"]
    return [*lines, *(f"| {' | '.join(map(markdown_text, row))} |" for row in rows), ""]


def markdown_text(text: object) -> str:
    """Text that Markdown shows as it is, on one line."""
    flat = " ".join(str(text).split())
    return re.sub(r"([\\`*_\[\]<>|&#])", r"\\\1", flat)
