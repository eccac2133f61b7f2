"""A run as one document of plain values: what `--json`, the tables, plots and pages all show.

Numbers are computed here and nowhere else. The document's shape is documented in docs/json.md; `schema` counts
changes that a reader would notice.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from typing import Any

from guided_evolution.individual import Exchange, Individual, Outcome
from guided_evolution.run import Run
from guided_evolution.view.course import entered, series
from guided_evolution.view.early import pruned
from guided_evolution.view.lineage import ancestry, edges, trunk
from guided_evolution.view.measurements import verified, verified_counts
from guided_evolution.view.slots import advice, lane_use, lanes
from guided_evolution.view.tallies import breakdown, failures, grouped, improved, refusals
from guided_evolution.view.verdict import change, headline, named, nothing_named, sizes, trade_off

__all__ = [
    "SCHEMA",
    "advice",
    "ancestry",
    "breakdown",
    "change",
    "detail_document",
    "edges",
    "entered",
    "exchange_document",
    "failures",
    "front_document",
    "grouped",
    "headline",
    "improved",
    "individual_document",
    "lane_use",
    "lanes",
    "named",
    "nothing_named",
    "operator_counts",
    "outcome_document",
    "pruned",
    "refusals",
    "run_document",
    "series",
    "sizes",
    "summary_document",
    "trade_off",
    "trunk",
    "verified",
    "verified_counts",
]

SCHEMA = 1


def run_document(run: Run) -> dict[str, Any]:
    """The whole run: `ge show RUN --json`; made in time that grows with its size."""
    progress = series(run)
    return {
        "schema": SCHEMA,
        **_head(run),
        "seed": 0,
        "settings": dict(run.settings),
        "replay_of": run.replay_of,
        "problem_changes": run.problem_changes,
        "spending": dict(run.spending),
        "estimate": run.estimate,
        "models": run.model_choices,
        "odds": run.operator_odds,
        "prompts": prompt_sharing(run),
        "operators": operator_counts(run),
        "failures": dict(Counter(each.status.value for each in run.individuals if not each.ok)),
        "hypervolume": run.hypervolume() if run.individuals else None,
        "front": [each.id for each in run.front],
        "names": named(run),
        "headline": headline(run, progress),
        "series": progress,
        "breakdown": breakdown(run, entered(run, progress)),
        "failure_kinds": failures(run),
        "refusals": refusals(run),
        "lineage": edges(run),
        "lanes": {"use": dict(lane_use(run)), "intervals": lanes(run)},
        "verified": verified_counts(run),
        "pruned": pruned(run),
        "tests": {str(number): outcome_document(outcome) for number, outcome in run.tests.items()},
        "versions": dict(run.versions),
        "machine": dict(run.machine),
        "individuals": [individual_document(each, verified(run, each.id)) for each in run.individuals],
    }


def front_document(run: Run) -> dict[str, Any]:
    """The Pareto front: `ge front RUN --json`."""
    tests = run.tests
    front = []
    for individual in run.front:
        document = individual_document(individual, verified(run, individual.id))
        if individual.id in tests:
            document["test"] = outcome_document(tests[individual.id])
        front.append(document)
    return {"schema": SCHEMA, **_head(run), "seed": 0, "front": front}


def summary_document(run: Run) -> dict[str, Any]:
    """One row of `ge runs --json`."""
    front = [each.id for each in run.front]
    return {**_head(run), "individuals": len(run.individuals), "front": front, "verified": verified_counts(run)}


def individual_document(individual: Individual, verified: Mapping[str, Any] | None) -> dict[str, Any]:
    """One individual without its exchanges and program; `verified` is what `verified` gives."""
    outcome = individual.outcome
    return {
        "id": individual.id,
        "generation": individual.generation,
        "status": individual.status.value,
        "reason": outcome.reason if outcome else "",
        "scores": dict(individual.scores),
        "metrics": dict(outcome.metrics) if outcome else {},
        "operator": individual.origin.operator,
        "parents": list(individual.origin.parents),
        "block": individual.origin.block,
        "category": individual.origin.category,
        "character": individual.origin.character,
        "lesson": individual.origin.lesson,
        "twin": individual.twin,
        "digest": individual.genome.digest,
        "seconds": outcome.seconds if outcome else None,
        "taken_from": outcome.taken_from if outcome else "",
        "verified": verified,
    }


def detail_document(run: Run, number: int) -> dict[str, Any]:
    """One individual with everything that is known of it: `ge show RUN ID --json`."""
    individual = run.individual(number)
    outcome = individual.outcome
    document = individual_document(individual, verified(run, number))
    document["steps"] = [
        {name: getattr(step, name) for name in type(step).__dataclass_fields__} for step in individual.origin.steps
    ]
    document["feedback"] = outcome.feedback if outcome else ""
    document["log_tail"] = outcome.log_tail if outcome else ""
    document["peak_mb"] = outcome.peak_mb if outcome else None
    document["partials"] = [
        {"step": each.step, "seconds": each.seconds, "scores": dict(each.scores)}
        for each in run.curve(individual.genome.digest)
        if outcome is not None and individual.status != "rejected"
    ]
    document["files"] = individual.genome.files
    document["exchanges"] = [exchange_document(exchange) for exchange in individual.origin.exchanges]
    document["lessons"] = [
        exchange_document(exchange)
        for step in individual.origin.steps
        if step.teacher is not None
        for exchange in run.lessons(step.teacher, step.lesson)
    ]
    test = run.tests.get(number)
    document["test"] = outcome_document(test) if test else None
    return {"schema": SCHEMA, **_head(run), "individual": document}


def exchange_document(exchange: Exchange) -> dict[str, Any]:
    """One question and its answer."""
    return {name: getattr(exchange, name) for name in Exchange.__dataclass_fields__}


def outcome_document(outcome: Outcome) -> dict[str, Any]:
    """What one stage gave."""
    return {
        "status": outcome.status.value,
        "reason": outcome.reason,
        "scores": dict(outcome.scores),
        "metrics": dict(outcome.metrics),
        "seconds": outcome.seconds,
    }


def operator_counts(run: Run) -> dict[str, dict[str, int]]:
    """What each operator earned: proposals, accepted as children, scored, new programs, better than the first parent.

    "improved" counts children that are better than their first parent in at least one objective and worse in none.
    """
    individuals = run.individuals
    by_id = {each.id: each for each in individuals}
    table: dict[str, dict[str, int]] = {}
    for individual in individuals:
        if not individual.origin.steps:
            continue
        row = table.setdefault(
            individual.origin.operator, {"proposed": 0, "accepted": 0, "scored": 0, "new": 0, "improved": 0}
        )
        parent = by_id.get(individual.origin.parents[0])
        row["proposed"] += 1
        row["accepted"] += individual.status != "rejected"
        row["scored"] += individual.ok
        row["new"] += individual.ok and individual.twin is None
        row["improved"] += improved(run, individual, parent)
    return table


def prompt_sharing(run: Run) -> dict[str, float | None]:
    """How much of what was read had been read before, as shares from 0 to 1; None where nothing is known.

    "shared" is the share of the prompts' characters that begin some earlier prompt of the same model too: what a cache
    of prefixes can find at the most. "cached" is the share of prompt tokens that providers did find in theirs, over the
    models that ever named any.
    """
    earlier: dict[str, list[str]] = {}
    begun = length = 0
    for exchange in (each.exchange for each in run.recorded if not each.exchange.taken_from):
        known = earlier.setdefault(exchange.model, [])
        place = bisect_left(known, exchange.prompt)
        neighbours = known[max(0, place - 1) : place + 1]  # the longest common prefix is with a neighbour in the order
        begun += max((_common(exchange.prompt, other) for other in neighbours), default=0)
        length += len(exchange.prompt)
        known.insert(place, exchange.prompt)
    telling = {each.exchange.model for each in run.recorded if each.exchange.tokens_cached is not None}
    counted = [each.exchange for each in run.recorded if each.exchange.model in telling]
    tokens = sum(exchange.tokens_in or 0 for exchange in counted)
    cached = sum(exchange.tokens_cached or 0 for exchange in counted)
    return {"shared": begun / length if length else None, "cached": cached / tokens if tokens else None}


def _common(one: str, other: str) -> int:
    """The length of the longest common prefix; halving, for there may be thousands of long prompts."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[:middle] == other[:middle] else (low, middle - 1)
    return low


def _head(run: Run) -> dict[str, Any]:
    return {
        "run": str(run.folder),
        "problem": run.problem.name,
        "status": run.status,
        "stop_reason": run.stop_reason,
        "created": run.created,
        "run_seconds": run.seconds,
    }
