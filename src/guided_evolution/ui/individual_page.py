"""The page of one individual: what it scored, where it comes from, what was asked, and its program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from guided_evolution import view
from guided_evolution.errors import RunError
from guided_evolution.individual import PASSED_OVER, Exchange, Individual, Status
from guided_evolution.progress import format_twice
from guided_evolution.ui.archive import archive_stem, zipped
from guided_evolution.ui.code import CONTEXT, coloured
from guided_evolution.ui.library import Library
from guided_evolution.ui.pages import RunPages, base_of, changes_by_file
from guided_evolution.ui.queries import number_in
from guided_evolution.ui.reading import Reading
from guided_evolution.view.verdict import comparison

MANY = 40


class NoSuchIndividualError(RunError):
    """Raised when a run has no individual of that id."""


class IndividualPages:
    """The pages of individuals, each a function from a request to a response."""

    def __init__(self, library: Library, pages: RunPages) -> None:
        self._library = library
        self._show = pages.show

    def individual(self, request: Request) -> Response:
        """One individual with everything that is known of it."""
        with self._library.reading(request.path_params["run"]) as reading:
            one = _found(reading, request)
            place = reading.run.individuals.index(reading.by_id[one.id])
            children, taught = reading.children.get(one.id, []), reading.pupils.get(one.id, [])
            return self._show(
                "individual.html",
                reading,
                "individuals",
                one=one,
                before=reading.run.individuals[place - 1].id if place else None,
                after=reading.run.individuals[place + 1].id if place + 1 < len(reading.run.individuals) else None,
                bases=_bases(one),
                scores=_scores(reading, one),
                test=reading.tests.get(one.id),
                twice=_twice(reading, one),
                curve=reading.run.curve(one.genome.digest) if one.status is not Status.REJECTED else (),
                way=view.trunk(reading.run, one.id),
                children=children[:MANY],
                children_more=max(0, len(children) - MANY),
                taught=taught[:MANY],
                cost=_cost(one.origin.exchanges),
                exchanges=[
                    {"of": each, "opened": not each.verdict, "spare": each.verdict == PASSED_OVER}
                    for each in one.origin.exchanges
                ],
                lessons=[
                    lesson
                    for step in one.origin.steps
                    if step.teacher is not None
                    for lesson in reading.run.lessons(step.teacher, step.lesson)
                ],
                **_program(reading, one, request.query_params),
            )

    def export(self, request: Request) -> Response:
        """The program with its provenance as a download."""
        with self._library.reading(request.path_params["run"]) as reading:
            one = _found(reading, request)
            name = f"{archive_stem(reading.run, one.id)}.zip"
            headers = {"Content-Disposition": f'attachment; filename="{name}"'}
            return Response(zipped(reading.run, one.id), media_type="application/zip", headers=headers)

    def best(self, request: Request) -> Response:
        """Leads to the winner's page."""
        with self._library.reading(request.path_params["run"]) as reading:
            if reading.headline is None:
                raise NoSuchIndividualError("Nothing is scored in this run yet.")
            return RedirectResponse(f"{base_of(reading)}/individuals/{reading.headline['winner']}")


def _found(reading: Reading, request: Request) -> Individual:
    number = number_in(request.path_params["number"])
    if number is None or number not in reading.by_id:
        raise NoSuchIndividualError(f"The run {reading.name} has no individual {request.path_params['number']}.")
    return reading.run.individual(number)


def _bases(one: Individual) -> list[tuple[str, int]]:
    """What an individual is measured against: its parents and the seed, each program once."""
    named = [("parent" if not place else "partner", number) for place, number in enumerate(one.origin.parents)]
    bases = list({number: name for name, number in reversed(named)}.items())[::-1]
    found = [(name, number) for number, name in bases if number != one.id]
    return found if not one.id or 0 in dict(bases) else [*found, ("seed", 0)]


def _scores(reading: Reading, one: Individual) -> list[dict[str, Any]]:
    if not one.ok:
        return []
    others = {name: reading.by_id.get(number) for name, number in _bases(one)}
    return [
        {
            "name": objective.name,
            "goal": objective.goal,
            "value": one.scores[objective.name],
            "changes": {
                name: comparison(objective, other.scores, one.scores) if other is not None and other.ok else None
                for name, other in others.items()
            },
        }
        for objective in reading.objectives
    ]


def _twice(reading: Reading, one: Individual) -> str:
    """What two evaluations gave, where there were two."""
    pair = reading.run.verifications.get(one.id)
    return f"evaluated twice: {format_twice(reading.run.problem, *pair)}" if pair else ""


def _cost(exchanges: Sequence[Exchange]) -> dict[str, float]:
    """Sums over an individual's own questions, named as `Store.spending` names them."""
    taken = sum(bool(each.taken_from) for each in exchanges)
    exchanges = [each for each in exchanges if not each.taken_from]
    return {
        "calls": len(exchanges),
        "taken": taken,
        "tokens": sum((each.tokens_in or 0) + (each.tokens_out or 0) for each in exchanges),
        "usd": sum(each.usd or 0.0 for each in exchanges),
        "unpriced": sum(each.usd is None for each in exchanges),
        "seconds": sum(each.seconds for each in exchanges),
    }


def _program(reading: Reading, one: Individual, parameters: Mapping[str, str]) -> dict[str, Any]:
    """The program, or its change against the one that the request names: parent, partner, seed or an id."""
    bases = dict(_bases(one))
    if one.id and 0 in bases.values() and "seed" not in bases:
        bases["seed"] = 0
    named = parameters.get("against", "parent" if bases else "program")
    other = bases.get(named, number_in(named))
    whole = "whole" in parameters
    comparisons = [(name, f"{name} #{number}" if number else "the seed") for name, number in bases.items()]
    if len(set(bases.values())) < len(bases):
        comparisons = [item for item in comparisons if item[0] != "seed"]
    common = {"comparisons": [*comparisons, ("program", "whole program")], "whole": whole}
    if other is None or other not in reading.by_id:
        files: Any = [(name, coloured(text)) for name, text in one.genome.files.items()]
        return {"files": files, "against": None, "against_name": "", "chosen": "program", **common}
    return {
        "files": changes_by_file(
            reading.by_id[other].genome.files, one.genome.files, context=None if whole else CONTEXT
        ),
        "against": other,
        "against_name": "the seed" if other == 0 else f"{named} #{other}" if named in bases else f"#{other}",
        "chosen": named,
        **common,
    }
