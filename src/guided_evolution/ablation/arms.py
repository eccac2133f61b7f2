"""The arms of an ablation: named changes of the options of a run."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from guided_evolution.errors import UsageError
from guided_evolution.settings import Settings

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_COMMA = re.compile(r",(?![^\[]*\])")  # not those inside a range such as [0.1,0.4]
# the same for all arms, else nothing could be compared
_SHARED = ("seed", "max_evaluations", "preset")


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to search.

    Attributes:
        name: How it is called; also the name of its folder.
        options: The options of a run that differ from the common ones.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


# the paper's three, and what a doubter would try instead
PACKAGED: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "full": {},
        "no-eot": {"p_eot": 0.0},
        "no-eot-no-crp": {"p_eot": 0.0, "characters": False},
        "no-mating": {"p_mate": 0.0},
        "no-shortcuts": {"shortcuts": "off"},
        "adaptive": {"operators": "adaptive"},
        "drafts": {"drafts": 4},
        "best-of-n": {"search": "best-of-n"},
        "sequential": {"search": "sequential", "population": 1},
        "random": {"llm": "random"},
    }
)
USUAL = ("full", "no-eot", "no-eot-no-crp", "best-of-n")


def choose(names: str | None, own: Sequence[str] = ()) -> tuple[Arm, ...]:
    """The arms that a command line asks for; the first is the one that the others are compared with.

    Args:
        names: Packaged arms, separated by commas; None takes the usual ones, or "full" alone beside own arms.
        own: Further arms as NAME:key=value,key=value.

    Raises:
        UsageError: When an arm is unknown, listed twice, or can't be understood; when there are fewer than two.
    """
    listed = [name.strip() for name in names.split(",")] if names is not None else ["full"] if own else list(USUAL)
    unknown = [name for name in listed if name not in PACKAGED]
    if unknown:
        known = ", ".join(PACKAGED)
        raise UsageError(f'--arms: there is no arm "{unknown[0]}"; there are {known}, and your own with --arm')
    arms = [*(Arm(name, dict(PACKAGED[name])) for name in listed), *map(parse, own)]
    seen: set[str] = set()
    for arm in arms:
        if arm.name in seen:
            raise UsageError(f'the arm "{arm.name}" is listed twice')
        seen.add(arm.name)
    if len(arms) < 2:
        raise UsageError(f'one arm, "{arms[0].name}", has nothing to be compared with: name a second one')
    return tuple(arms)


def parse(text: str) -> Arm:
    """An arm of the user's own, from NAME:key=value,key=value.

    Raises:
        UsageError: When the form, the name, a key or a value is wrong.
    """
    name, colon, rest = text.partition(":")
    where = f"--arm {text}"
    if not colon or not rest or not _NAME.fullmatch(name):
        raise UsageError(f"{where}: it must look like NAME:key=value,key=value")
    if name in PACKAGED:
        raise UsageError(f"{where}: {name} is a packaged arm; give yours another name")
    options: dict[str, Any] = {}
    for pair in _COMMA.split(rest):
        key, equals, value = pair.partition("=")
        key = key.strip().replace("-", "_")
        if not equals or key in options:
            raise UsageError(f"{where}: {'no value in' if not equals else 'twice:'} {pair}")
        if key in _SHARED:
            raise UsageError(f"{where}: {key} is the same for all arms")
        options[key] = _value(value.strip())
        if options[key] is None:
            raise UsageError(f"{where}: {key} needs a value")
    Settings().with_changes(options, where)
    return Arm(name, options)


def _value(text: str) -> Any:
    """A number, a truth value or a range as JSON writes it; anything else is a text."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
