"""Named sets of options: what the paper ran with, and a first look in minutes.

`paper` holds the published settings of Morris, Jurado and Zutty (GECCO 2024, arXiv 2403.11446). What differs from the
published program on purpose stays different: programs are selected on validation images and not on test images; replies
are read as ours are, and a cheap check comes before training; a population holds no clones, and a program that was
scored is not trained again; the seed is scored; what enters the front is evaluated twice; and Evolution of Thought is
told what the change measurably did. The model (Mixtral 8x7B Instruct there), where evaluations run and the random seed
are no part of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from guided_evolution.errors import UsageError

PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "paper": MappingProxyType(
            {
                "initial": 32,
                "population": 8,
                "generations": 30,
                "p_mate": 0.35,
                "p_mutate": 0.8,
                "p_eot": 0.25,
                "operators": "fixed",
                "eot_elites": 10,
                "temperature": (0.05, 0.4),
                "reply_tokens": (600, 1400),
                # a temperature that is set leaves the nucleus to the model, unless it is set as well
                "top_p": 0.1,
                "moves": "off",
                "tries": 1,
                "retry": "draw",
                "shortcuts": "off",
                "characters": True,
                "search": "evolution",
                "schedule": "generational",
                "prune": False,
                "drafts": 1,
            }
        ),
        "quick": MappingProxyType({"population": 4, "initial": 4, "generations": 2}),
    }
)


def expanded(values: Mapping[str, Any]) -> dict[str, Any]:
    """The options with those of the preset they name below them; without a preset, the options themselves.

    Options that are None count as not given, so a preset's value stays.

    Raises:
        UsageError: When there is no preset of the name.
    """
    given = {key: value for key, value in values.items() if value is not None}
    name = given.get("preset", "")
    if name == "":
        return given
    if not isinstance(name, str) or name not in PRESETS:
        raise UsageError(f"no preset is called {name!r}: there are {', '.join(PRESETS)}")
    return {**PRESETS[name], **given}
