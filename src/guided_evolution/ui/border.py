"""The border of a web request: what a damaged record makes go wrong is told, and never a traceback."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from starlette.exceptions import HTTPException

from guided_evolution.errors import GuidedEvolutionError, RunError


class DamagedRecordError(RunError):
    """Raised when a record was opened, but what it holds can't be shown."""


@contextlib.contextmanager
def border() -> Iterator[None]:
    """Turns whatever is raised inside into a `DamagedRecordError`; our own errors and HTTP's pass.

    A damaged record can break anywhere between its file and the page.

    Raises:
        DamagedRecordError: For every exception that is neither one of this project's nor an `HTTPException`.
    """
    try:
        yield
    except (GuidedEvolutionError, HTTPException):
        raise
    except Exception as error:
        text = f"The record may be damaged ({type(error).__name__}: {error}). It was left as it is."
        raise DamagedRecordError(text) from error
