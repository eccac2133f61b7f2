"""A run as a report: one HTML file that needs no network, or Markdown, CSV or JSON, all from the run's one document."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from guided_evolution import view
from guided_evolution.errors import RunError, UsageError
from guided_evolution.report.page import html_report
from guided_evolution.report.tables import csv_report, markdown_report
from guided_evolution.run import Run

FORMATS = ("html", "md", "csv", "json")


def report(run: Run, kind: str = "html") -> str:
    """The report's text.

    Args:
        kind: "html" (everything, with charts), "md" (the same without charts), "csv" (a row per individual) or "json"
            (the whole document, as `ge show RUN --json`).

    Raises:
        UsageError: When the format is unknown, or HTML's packages aren't installed.
        RunError: When the run has no individual yet.
    """
    makers: dict[str, Callable[[Run], str]] = {
        "html": html_report,
        "md": markdown_report,
        "csv": csv_report,
        "json": lambda each: json.dumps(view.run_document(each), indent=2, ensure_ascii=False) + "\n",
    }
    if kind not in makers:
        raise UsageError(f'the format must be one of {", ".join(FORMATS)}; not "{kind}"')
    if not run.individuals:
        raise RunError(f"{run.folder}: nothing has been recorded yet, so there is nothing to report.")
    return makers[kind](run)


def write_report(run: Run, target: Path, kind: str = "html") -> Path:
    """Writes the report to a file and gives its path.

    Raises:
        RunError: When the file can't be written; and as `report`.
    """
    text = report(run, kind)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RunError(f"{target}: can't write: {error}") from None
    return target
