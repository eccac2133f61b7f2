"""Where data sets, models and other fetched files live."""

from __future__ import annotations

import os
from pathlib import Path

CACHE_VARIABLE = "GUIDED_EVOLUTION_CACHE"
DATA_VARIABLE = "GUIDED_EVOLUTION_DATA"


def cache_folder() -> Path:
    """The folder for what is fetched or derived: `GUIDED_EVOLUTION_CACHE`, else the user's cache."""
    if named := os.environ.get(CACHE_VARIABLE):
        return Path(named).expanduser().absolute()
    from platformdirs import user_cache_path

    return user_cache_path("guided-evolution", appauthor=False)


def data_folder() -> Path | None:
    """The user's folder of data sets, `GUIDED_EVOLUTION_DATA`; None when it isn't set."""
    named = os.environ.get(DATA_VARIABLE)
    return Path(named).expanduser().absolute() if named else None
