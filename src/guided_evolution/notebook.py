"""How a run and an individual look in a notebook: small tables, every text escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

from guided_evolution import view
from guided_evolution.individual import Individual
from guided_evolution.progress import describe, format_seconds, format_value

if TYPE_CHECKING:
    from guided_evolution.run import Run

MOST_ROWS = 20


def run_html(run: Run) -> str:
    """The run's state and its front."""
    spent = run.spending
    state = f"{run.status}{f' ({run.stop_reason})' if run.stop_reason else ''}"
    facts = (
        f"{state}; {len(run.individuals):,} individuals, {spent['calls']:,.0f} model calls, "
        f"{format_seconds(run.seconds)}; {run.folder}"
    )
    names: dict[int, list[str]] = {0: ["seed"]}
    for name, number in view.named(run).items():
        names.setdefault(number, []).append(name)
    objectives = run.problem.objectives
    head = ["id", "", *(f"{each.name} {'↑' if each.goal == 'max' else '↓'}" for each in objectives), "made by"]
    members = [each for each in run.individuals if each.id == 0 and each not in run.front] + run.front[:MOST_ROWS]
    rows = [
        [
            f"#{each.id}",
            "/".join(names.get(each.id, ())),
            *(format_value(each.scores[item.name]) if each.ok else each.status.value for item in objectives),
            describe(each),
        ]
        for each in members
    ]
    more = f"<p>and {len(run.front) - MOST_ROWS} more on the front</p>" if len(run.front) > MOST_ROWS else ""
    return f"<div><p><b>{escape(run.problem.name)}</b>: {escape(facts)}</p>{_table(head, rows)}{more}</div>"


def individual_html(individual: Individual) -> str:
    """An individual's origin, outcome and changed block."""
    outcome = individual.outcome
    rows = [["made by", describe(individual)]]
    if individual.origin.parents:
        rows.append(["parents", " ".join(f"#{parent}" for parent in individual.origin.parents)])
    if outcome is not None:
        rows.append(["status", f"{outcome.status.value}{f': {outcome.reason}' if outcome.reason else ''}"])
        rows += [[name, format_value(value)] for name, value in (*outcome.scores.items(), *outcome.metrics.items())]
    block = next((each for each in individual.genome.blocks if each.name == individual.origin.block), None)
    code = f"<pre>{escape(block.source)}</pre>" if block is not None else ""
    return f"<div><p><b>#{individual.id}</b>, generation {individual.generation}</p>{_table([], rows)}{code}</div>"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    top = f"<thead><tr>{''.join(f'<th>{escape(cell)}</th>' for cell in head)}</tr></thead>" if head else ""
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table>{top}<tbody>{body}</tbody></table>"
