"""What the list of individuals can be asked for: filters and orders, from a request's parameters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from guided_evolution.individual import Individual
from guided_evolution.ui.reading import Reading

Choices = list[tuple[str, str]]
FILTERS = ("status", "operator", "generation", "on")


def number_in(text: str | None, default: int | None = None) -> int | None:
    """A whole number from a request; the default for anything else."""
    try:
        return default if text is None else int(text[:12])
    except ValueError:
        return default


def chosen(parameters: Mapping[str, str]) -> dict[str, str]:
    """The filters and the order that a request names, without the empty ones."""
    return {name: parameters[name] for name in (*FILTERS, "sort") if parameters.get(name)}


def address(base: str, wanted: Mapping[str, str], page: int = 1) -> str:
    """The address of one page of a filtered list."""
    query = {**wanted, **({"page": str(page)} if page > 1 else {})}
    return f"{base}?{urlencode(query)}" if query else base


def selected(reading: Reading, wanted: Mapping[str, str]) -> list[Individual]:
    """The individuals that pass the filters, in the order asked for; newest first unless told otherwise."""
    found = [each for each in reading.run.individuals if _passes(reading, each, wanted)]
    order = wanted.get("sort")
    for objective in reading.objectives:
        if order == f"best:{objective.name}":
            scored = [each for each in found if each.ok]
            scored.sort(key=lambda each: objective.minimised(each.scores[objective.name]))
            return [*scored, *(each for each in found if not each.ok)]
    return found if order == "oldest" else found[::-1]


def _passes(reading: Reading, each: Individual, wanted: Mapping[str, str]) -> bool:
    return (
        wanted.get("status") in (None, each.status.value, "failed" if each.outcome and not each.ok else None)
        and wanted.get("operator") in (None, each.origin.operator)
        and wanted.get("generation") in (None, str(each.generation))
        and (wanted.get("on") != "front" or each.id in reading.front_ids)
    )


def filters(reading: Reading) -> list[tuple[str, str, Choices]]:
    """Name, title and choices of each filter, with how many individuals each choice leaves."""
    individuals = reading.run.individuals
    statuses = Counter(each.status.value for each in individuals)
    operators = Counter(each.origin.operator for each in individuals)
    generations = Counter(each.generation for each in individuals)
    failed = sum(1 for each in individuals if each.outcome is not None and not each.ok)
    status = [("failed", f"failed in any way ({failed:,})")] if failed else []
    return [
        ("status", "status", [*_counted(statuses), *status]),
        ("operator", "operator", _counted(operators)),
        ("generation", "generation", [(str(each), f"{each} ({generations[each]:,})") for each in sorted(generations)]),
        ("on", "front", [("front", f"on the front ({len(reading.front_ids):,})")]),
    ]


def sorts(reading: Reading) -> Choices:
    """The orders that a list can have."""
    best: Choices = [(f"best:{each.name}", f"best {each.name}") for each in reading.objectives]
    return [("", "newest first"), ("oldest", "oldest first"), *best]


def _counted(counts: Counter[Any]) -> Choices:
    return [(name, f"{name.replace('_', ' ')} ({count:,})") for name, count in counts.most_common()]
