"""An ablation as a page of its own and as Markdown, written beside its runs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

from guided_evolution.ablation import figures, tables
from guided_evolution.ablation.results import Results
from guided_evolution.errors import RunError
from guided_evolution.plots.style import plotly
from guided_evolution.report.page import html_page

STEM = "ablation"


def html(results: Results) -> str:
    """The page; it asks the network for nothing.

    Raises:
        UsageError: When Jinja2 or Plotly isn't installed.
    """
    plotly()
    page = (resources.files("guided_evolution.ablation") / "page.html").read_text(encoding="utf-8")
    charts: dict[str, Callable[[], Any]] = {"fronts": partial(figures.plot_fronts, results)}
    for each in results.measures:
        charts[f"curve-{each.key}"] = partial(figures.plot_curves, results, each)
        charts[f"seeds-{each.key}"] = partial(figures.plot_seeds, results, each)
    return html_page(page, content(results), charts)


def content(results: Results) -> dict[str, Any]:
    """What the page's template fills in."""
    plan, problem = results.plan, results.problem
    seeds = tables.count(len(plan.seeds))
    told = tables.sentences(results)
    seeds_head, seeds_rows = tables.seeds_table(results)
    operators_head, operators_rows = tables.operators_table(results)
    first, second = problem.objectives[0], problem.objectives[1:2]
    shown = f" in {first.name} and {second[0].name}" if second and len(problem.objectives) > 2 else ""
    best = results.measures[1].name
    bands = "The bands are 95 % bootstrap intervals of the mean, at each number of evaluations." * (len(plan.seeds) > 1)
    return {
        "problem": problem.name,
        "summary": problem.summary,
        "facts": f"{len(plan.arms)} arms · {seeds} · {plan.evaluations:,} evaluations each",
        "head": tables.head(results),
        "rows": tables.rows(results),
        "explained": tables.explained(results),
        "sentences": [
            (
                each.name[0].upper() + each.name[1:],
                [text for text, found in zip(told, results.comparisons, strict=True) if found.measure == each],
            )
            for each in results.measures
        ],
        "remarks": tables.remarks(results),
        "best": best[0].upper() + best[1:],
        "curve_note": f"Means over {seeds}. {bands} A run that ended early keeps its last value.",
        "best_note": "Of programs that satisfy the constraints and are no worse than the seed program elsewhere.",
        "seeds_head": seeds_head,
        "seeds_rows": seeds_rows,
        "operators_head": operators_head,
        "operators_rows": operators_rows,
        "operators_note": tables.OPERATORS_NOTE,
        "fronts_note": f"Members of the joint front{shown}; the star is the seed program.",
        "setup": tables.setup(results),
    }


def write(results: Results, root: Path, *, page: bool, stem: str = STEM) -> Path:
    """Writes Markdown, and the page if asked to, and gives the path of the page, else of the Markdown.

    Args:
        stem: Name of both files, without its ending.

    Raises:
        UsageError: When the page is asked for, and Jinja2 or Plotly isn't installed.
        RunError: When a file can't be written.
    """
    texts = {f"{stem}.md": tables.markdown(results), **({f"{stem}.html": html(results)} if page else {})}
    try:
        for name, text in texts.items():
            new = root / f"{name}.new"
            new.write_text(text, encoding="utf-8")
            new.replace(root / name)
    except OSError as error:
        raise RunError(f"{root} can't be written: {error.strerror}.") from None
    return root / f"{stem}.{'html' if page else 'md'}"
