"""The dashboard as an ASGI application."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from guided_evolution.errors import GuidedEvolutionError
from guided_evolution.ui.border import DamagedRecordError, border
from guided_evolution.ui.figures import plotly_script
from guided_evolution.ui.guard import Access, Guard
from guided_evolution.ui.individual_page import IndividualPages, NoSuchIndividualError
from guided_evolution.ui.library import Library, NoSuchRunError
from guided_evolution.ui.pages import RunPages
from guided_evolution.ui.templating import Pages

LOG = logging.getLogger(__name__)
Endpoint = Callable[[Request], Response]
CACHED = {"Cache-Control": "private, max-age=86400"}


def make_app(folder: Path, access: Access) -> Starlette:
    """The application that shows the runs below a folder to those whom `access` lets in."""
    library, pages = Library(folder), Pages()
    runs = RunPages(library, pages)
    individuals = IndividualPages(library, runs)

    @contextlib.asynccontextmanager
    async def life(_: Starlette) -> AsyncIterator[None]:
        yield
        library.close()

    async def lost(_: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 404
        text = "There is no such page." if status == 404 else "The dashboard only shows; it takes no such request."
        return pages("error.html", status, heading="Not found" if status == 404 else "Not allowed", message=text)

    one = "/runs/{run}"
    table: dict[str, Endpoint] = {
        "/": runs.index,
        "/runs": runs.runs,
        one: runs.run,
        f"{one}/individuals": runs.individuals,
        f"{one}/individuals/{{number}}": individuals.individual,
        f"{one}/individuals/{{number}}/export": individuals.export,
        f"{one}/best": individuals.best,
        f"{one}/operators": runs.operators,
        f"{one}/failures": runs.failures,
        f"{one}/lineage": runs.lineage,
        f"{one}/time": runs.time,
        f"{one}/figures/{{figure}}": runs.figure,
        f"{one}/state.json": runs.state,
        "/static/plotly.min.js": _plotly,
    }
    static = StaticFiles(packages=[("guided_evolution.ui", "static")])
    return Starlette(
        routes=[
            *(Route(path, _bordered(endpoint, pages), methods=["GET"]) for path, endpoint in table.items()),
            Mount("/static", static),
        ],
        middleware=[Middleware(Guard, access=access)],
        exception_handlers={HTTPException: lost},
        lifespan=life,
    )


def _plotly(_: Request) -> Response:
    path = plotly_script()
    if path is None:
        raise HTTPException(404)
    return FileResponse(path, media_type="text/javascript", headers=CACHED)


def _bordered(endpoint: Endpoint, pages: Pages) -> Endpoint:
    """Makes a page of whatever goes wrong in a request."""

    def answer(request: Request) -> Response:
        try:
            with border():
                return endpoint(request)
        except (NoSuchRunError, NoSuchIndividualError) as error:
            return pages("error.html", 404, heading="Not found", message=str(error))
        except GuidedEvolutionError as error:
            if isinstance(error, DamagedRecordError):
                LOG.error("%s: %s", request.url.path, error)
            return pages("error.html", 500, heading="This can't be shown", message=str(error))

    return answer
