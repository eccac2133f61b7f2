"""What the dashboard answers about runs; `individual_page` answers about one individual."""

from __future__ import annotations

import heapq
import itertools
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from guided_evolution import view
from guided_evolution.individual import Individual
from guided_evolution.progress import format_twice
from guided_evolution.ui.code import Row, side_by_side
from guided_evolution.ui.figures import FIGURES, figure_json, plotly_script, style_marks
from guided_evolution.ui.library import Library, NoSuchRunError
from guided_evolution.ui.paging import Paging
from guided_evolution.ui.queries import address, chosen, filters, number_in, selected, sorts
from guided_evolution.ui.reading import Reading
from guided_evolution.ui.templating import Pages, quoted
from guided_evolution.verification import agree
from guided_evolution.view.tallies import KEYS
from guided_evolution.view.verdict import comparison

FRONT_ROWS = 40
RECENT = 8
DIFF_ROWS = 120
GENERATION_ROWS = 200
LONGEST = 10


class RunPages:
    """The pages of runs, each a function from a request to a response."""

    def __init__(self, library: Library, pages: Pages) -> None:
        self._library = library
        self._pages = pages
        script = plotly_script()
        self._plotly = script is not None
        self._marks = style_marks(script)

    def index(self, request: Request) -> Response:
        """The list of runs."""
        paging = Paging.of(list(self._library.paths()), number_in(request.query_params.get("page"), 1) or 1, 25)
        return self._pages(
            "runs.html",
            folder=str(self._library.folder),
            rows=self._library.rows(list(paging.items)),
            paging=paging,
            address=lambda page: address("/", {}, page),
        )

    def runs(self, request: Request) -> Response:
        """Leads from /runs to the list."""
        return RedirectResponse("/")

    def run(self, request: Request) -> Response:
        """A run at a glance."""
        with self._reading(request) as reading:
            asked = number_in(request.query_params.get("generation"))
            generation = None if asked is None or asked >= reading.last_generation else max(0, asked)
            front = reading.run.front if generation is None else reading.front_after(generation)
            headline = reading.headline
            featured = _featured(reading)
            rows, rows_cut = _change(reading, featured) if featured else ([], False)
            return self.show(
                "run.html",
                reading,
                "",
                headline=headline,
                featured=featured,
                trade=_against_seed(reading, featured) if featured else [],
                extremes=_extremes(reading) if headline else {},
                change=view.change(reading.run, featured.id) if featured and featured.id else None,
                way=view.trunk(reading.run, featured.id) if featured else [],
                letters=_letters(reading),
                generation=generation,
                shown=reading.last_generation if generation is None else generation,
                front=front[:FRONT_ROWS],
                twice=view.verified_counts(reading.run),
                unsteady=_unsteady(reading),
                front_more=max(0, len(front) - FRONT_ROWS),
                rows=rows,
                rows_cut=rows_cut,
                flights=list(reading.in_flight()),
                curves=_curves(reading),
                over=[("evaluations", "evaluations"), ("tokens", "tokens"), ("usd", "money"), ("seconds", "time")],
                generations=_generations(reading)[-GENERATION_ROWS:],
                recent=reading.run.individuals[: -RECENT - 1 : -1],
            )

    def individuals(self, request: Request) -> Response:
        """The list of individuals, filtered and in pages."""
        with self._reading(request) as reading:
            wanted = chosen(request.query_params)
            paging = Paging.of(selected(reading, wanted), number_in(request.query_params.get("page"), 1) or 1)
            here = f"{base_of(reading)}/individuals"
            return self.show(
                "individuals.html",
                reading,
                "individuals",
                individuals=paging.items,
                paging=paging,
                chosen=wanted,
                filters=filters(reading),
                sorts=sorts(reading),
                address=lambda page: address(here, wanted, page),
            )

    def operators(self, request: Request) -> Response:
        """What each operator, block, category, character and model came to."""
        with self._reading(request) as reading:
            by = request.query_params.get("by", KEYS[0])
            by = by if by in KEYS else KEYS[0]
            rows = reading.breakdown
            groups = view.grouped(rows, by)
            return self.show("operators.html", reading, "operators", by=by, keys=KEYS, groups=groups, rows=rows)

    def failures(self, request: Request) -> Response:
        """What went wrong, by kind."""
        with self._reading(request) as reading:
            return self.show(
                "failures.html",
                reading,
                "failures",
                kinds=reading.once("failures", lambda: view.failures(reading.run)),
                refusals=reading.once("refusals", lambda: view.refusals(reading.run)),
            )

    def lineage(self, request: Request) -> Response:
        """Who comes from whom."""
        with self._reading(request) as reading:
            families = [
                (each, view.trunk(reading.run, each.id))
                for each in reading.run.front[:FRONT_ROWS]
                if each.origin.parents
            ]
            return self.show("lineage.html", reading, "lineage", families=families)

    def time(self, request: Request) -> Response:
        """When the model and the evaluations were busy."""
        with self._reading(request) as reading:
            work = reading.once("lanes", lambda: view.lanes(reading.run))
            return self.show(
                "time.html",
                reading,
                "time",
                use=view.lane_use(reading.run),
                kinds=_by_kind(work),
                longest=heapq.nlargest(LONGEST, work, key=lambda row: row["end"] - row["start"]),
            )

    def figure(self, request: Request) -> Response:
        """A chart as JSON."""
        name = request.path_params["figure"]
        if name not in FIGURES:
            raise NoSuchRunError(f'There is no chart "{name}".')
        with self._reading(request) as reading:
            return Response(figure_json(reading, name, request.query_params), media_type="application/json")

    def state(self, request: Request) -> Response:
        """What a page asks every few seconds: whether anything has changed."""
        with self._reading(request) as reading:
            progress = {key: reading.progress[key] for key in ("done", "total", "unit", "generation")}
            return JSONResponse(
                {"revision": f"{reading.revision}-{reading.status}", "status": reading.status, **progress}
            )

    def show(self, template: str, reading: Reading, tab: str, **values: Any) -> Response:
        """A page of one run."""
        failed = reading.progress["failed"]
        tabs = [
            ("", "Overview", None),
            ("individuals", "Individuals", len(reading.run.individuals)),
            ("operators", "Operators", None),
            ("failures", "Failures", failed or None),
            ("lineage", "Lineage", None),
            ("time", "Time", None),
        ]
        return self._pages(
            template,
            reading=reading,
            base=base_of(reading),
            revision=f"{reading.revision}-{reading.status}",
            tabs=tabs,
            tab=tab,
            plotly=self._plotly,
            marks=self._marks,
            **values,
        )

    def _reading(self, request: Request) -> Any:
        return self._library.reading(request.path_params["run"])


def base_of(reading: Reading) -> str:
    """Where a run's pages begin."""
    return f"/runs/{quoted(reading.name)}"


def _featured(reading: Reading) -> Individual | None:
    """The winner, or where nothing beats the seed without a price, the best by the first objective."""
    headline = reading.headline
    if headline is None:
        return None
    first = reading.objectives[0].name
    return reading.by_id[headline["winner"] if headline["beats_seed"] else headline["extremes"].get(first, 0)]


def _against_seed(reading: Reading, one: Individual) -> list[dict[str, Any]]:
    seed = reading.by_id[0]
    return [comparison(each, seed.scores, one.scores) for each in reading.objectives]


def _extremes(reading: Reading) -> dict[str, dict[str, Any]]:
    """The best of each objective against the seed."""
    assert reading.headline is not None
    seed, best = reading.by_id[0], reading.headline["extremes"]
    return {
        each.name: comparison(each, seed.scores, reading.by_id[best.get(each.name, 0)].scores)
        for each in reading.objectives
    }


def _change(reading: Reading, one: Individual) -> tuple[list[tuple[str, list[Row]]], bool]:
    """An individual's change against the seed by file, and whether it was cut."""

    def make() -> tuple[list[tuple[str, list[Row]]], bool]:
        left = DIFF_ROWS
        shown = []
        for name, rows in changes_by_file(reading.by_id[0].genome.files, one.genome.files):
            if left > 0:
                shown.append((name, rows[:left]))
            left -= len(rows)
        return shown, left < 0

    return reading.once("change", make)


def changes_by_file(old: dict[str, str], new: dict[str, str], **how: Any) -> list[tuple[str, list[Row]]]:
    """The files that differ, each with its side-by-side rows."""
    found = ((name, side_by_side(old.get(name, ""), new.get(name, ""), **how)) for name in {**old, **new})
    return [(name, rows) for name, rows in found if rows]


def _unsteady(reading: Reading) -> list[tuple[int, str]]:
    """The first of those whose two evaluations disagreed, with what they gave."""
    run = reading.run
    found = ((number, pair) for number, pair in run.verifications.items() if not agree(run.problem, *pair))
    return [(number, format_twice(run.problem, *pair)) for number, pair in itertools.islice(found, LONGEST)]


def _letters(reading: Reading) -> dict[int, str]:
    letters: dict[int, list[str]] = defaultdict(list)
    for name, number in view.named(reading.run).items():
        letters[number].append(name)
    return {number: " ".join(names) for number, names in letters.items()}


def _curves(reading: Reading) -> list[tuple[str, str]]:
    return [("best", f"Best {reading.objectives[0].name} so far"), ("hypervolume", "Hypervolume")]


def _generations(reading: Reading) -> list[dict[str, Any]]:
    """One row for each generation: what it brought, and where the run stood when the last of it was scored."""
    series = reading.series
    rows: dict[int, dict[str, Any]] = {}
    for each in reading.run.individuals:
        row = rows.setdefault(each.generation, {"generation": each.generation, "individuals": 0, "scored": 0})
        row["individuals"] += 1
        row["scored"] += each.ok
    last = {reading.by_id[number].generation: index for index, number in enumerate(series["id"])}
    known = -1
    for generation in sorted(rows):
        known = max(known, last.get(generation, -1))
        best = {each.name: series["best"][each.name][known] if known >= 0 else None for each in reading.objectives}
        rows[generation] |= {"best": best, "hypervolume": series["hypervolume"][known] if known >= 0 else 0.0}
    return [rows[generation] for generation in sorted(rows)]


def _by_kind(work: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The pieces of work of each lane and kind: how many, how long in all, in the mean and at most."""
    groups: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in work:
        groups[row["lane"], row["kind"]].append(row["end"] - row["start"])
    return [
        {"lane": lane, "kind": kind, "count": len(times), "total": sum(times), "most": max(times)}
        for (lane, kind), times in sorted(groups.items(), key=lambda item: (item[0][0] != "model", -sum(item[1])))
    ]
