"""The report as one HTML file: template, style, script, figures and the drawing library, all inside."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any

from guided_evolution import plots
from guided_evolution.errors import UsageError
from guided_evolution.plots.style import bare
from guided_evolution.report.content import content
from guided_evolution.run import Run

_MOST_TEXT = 40_000
Makers = Mapping[str, Callable[[], Any]]


def html_report(run: Run) -> str:
    """The page; it asks the network for nothing, and its content policy forbids it to.

    Raises:
        UsageError: When Jinja2 or Plotly isn't installed.
    """
    page = (resources.files("guided_evolution.report") / "page.html").read_text(encoding="utf-8")
    return html_page(page, content(run), makers(run))


def html_page(page: str, values: Mapping[str, Any], charts: Makers) -> str:
    """A page on the skeleton that all reports share: style, script and the drawing library inside.

    Args:
        page: A template that extends "skeleton.html"; "macros.html" has its tables and charts.
        values: What the template fills in.
        charts: Makers of Plotly's figures by name; one that raises `UsageError` has nothing to show, and is left out.

    Raises:
        UsageError: When Jinja2 or Plotly isn't installed.
    """
    try:
        import jinja2
        from markupsafe import Markup
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise UsageError("a report in HTML needs: pip install 'guided-evolution[plot]'") from None
    folder = resources.files("guided_evolution.report")
    names = ("skeleton.html", "macros.html", "page.css", "page.js")
    texts = {name: (folder / name).read_text(encoding="utf-8") for name in names}
    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        loader=jinja2.DictLoader(texts),
    )
    environment.filters["difflines"] = difflines
    environment.filters["short"] = _short
    scripts = [get_plotlyjs().replace("</script", r"<\/script"), texts["page.js"]]
    return environment.from_string(page).render(
        **values,
        figures={name: Markup(text) for name, text in figures(charts).items()},
        style=Markup(texts["page.css"]),
        scripts=[Markup(text) for text in scripts],
        policy="; ".join(
            [
                "default-src 'none'",
                f"script-src {' '.join(map(_source, scripts))}",
                "style-src 'unsafe-inline'",
                "img-src data: blob:",
                "base-uri 'none'",
                "form-action 'none'",
            ]
        ),
    )


def makers(run: Run) -> Makers:
    """What a run's report draws."""
    return {
        "front": lambda: plots.plot_front(run),
        "hypervolume": lambda: plots.plot_hypervolume(run),
        "best": lambda: plots.plot_best(run),
        "best_tokens": lambda: plots.plot_best(run, over="tokens"),
        "operators": lambda: plots.plot_operators(run),
        "characters": lambda: plots.plot_operators(run, "character"),
        "failures": lambda: plots.plot_failures(run),
        "lineage": lambda: plots.plot_lineage(run),
        "lanes": lambda: plots.plot_lanes(run),
        "sizes": lambda: plots.plot_sizes(run),
    }


def figures(charts: Makers) -> dict[str, str]:
    """The figures that there is the data for, as JSON that can stand inside a page."""
    made = {}
    for name, make in charts.items():
        try:
            text = bare(make()).to_json()
        except UsageError:
            continue  # the problem has one objective, say, or the model counts no tokens
        # inside a script element nothing but "<" can end it
        made[name] = json.dumps(json.loads(text), separators=(",", ":")).replace("<", "\\u003c")
    return made


def difflines(text: str) -> list[tuple[str, str]]:
    """A unified diff as lines with their kind: "add", "remove", "place" or "same"."""
    kinds = {"+": "add", "-": "remove", "@": "place"}
    return [
        ("place" if line.startswith(("+++", "---")) else kinds.get(line[:1], "same"), line)
        for line in text.rstrip("\n").split("\n")
    ]


def _short(text: str) -> str:
    return text if len(text) <= _MOST_TEXT else f"{text[:_MOST_TEXT]}\n… ({len(text):,} characters)"


def _source(text: str) -> str:
    """A script's hash as a content policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
