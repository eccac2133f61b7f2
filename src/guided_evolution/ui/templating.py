"""Values into text: every string that a template shows is made visible and escaped, whoever wrote it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from importlib import metadata
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.responses import HTMLResponse

from guided_evolution.progress import describe, format_seconds, format_value
from guided_evolution.ui.text import visible, without_colours

TONES = {
    "ok": "good",
    "done": "good",
    "running": "live",
    "proposed": "live",
    "rejected": "warn",
    "interrupted": "warn",
    "pruned": "warn",
}
SHORT = 140


def make_environment() -> Environment:
    """The templates with everything that they need."""
    environment = Environment(
        loader=PackageLoader("guided_evolution.ui"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.filters.update(
        ago=ago,
        arrow=lambda goal: "↑" if goal == "max" else "↓",
        count=lambda value: f"{value:,.0f}",
        date=lambda value: time.strftime("%Y-%m-%d %H:%M", time.localtime(value)),
        describe=describe,
        dollars=dollars,
        duration=duration,
        money=money,
        large=large,
        percent=lambda value: f"{value:+.1%}".replace("-", "−"),
        sense=lambda goal: "more is better" if goal == "max" else "less is better",
        shorten=shorten,
        signed=signed,
        tone=lambda status: TONES.get(status, "bad"),
        uncoloured=without_colours,
        urlpart=quoted,
        value=lambda value: "" if value is None else format_value(value),
        words=lambda text: text.removeprefix("mate_").replace("_", " "),
    )
    environment.globals["stamp"] = metadata.version("guided-evolution")
    return environment


class Pages:
    """Renders templates as responses."""

    def __init__(self) -> None:
        self._environment = make_environment()
        for name in self._environment.list_templates():  # compiled now: the first page should not wait for it
            self._environment.get_template(name)

    def __call__(self, name: str, status: int = 200, **values: Any) -> HTMLResponse:
        """The page that a template gives."""
        text = self._environment.get_template(name).render(values)
        return HTMLResponse(text.encode("utf-8", "replace"), status)


def _shown(value: Any) -> Any:
    if isinstance(value, str) and not isinstance(value, Markup):
        return visible(value)
    return value


def quoted(text: str) -> str:
    """A name as one part of a path."""
    return quote(text, safe="", errors="surrogateescape")


def signed(value: float) -> str:
    """A difference with its sign."""
    return f"{'+' if value > 0 else '−' if value < 0 else ''}{format_value(abs(value))}"


def large(value: float) -> str:
    """A volume: whole from a thousand on, where decimals say nothing."""
    return f"{value:,.0f}" if abs(value) >= 1000 else format_value(value)


def duration(seconds: float) -> str:
    """A time span; short ones with a decimal, since many evaluations take less than a second."""
    return f"{seconds:.1f} s" if seconds < 10 else format_seconds(seconds)


def dollars(usd: float) -> str:
    """An amount of money; small ones with as many digits as they need."""
    return f"${usd:,.2f}" if usd >= 1 else f"${usd:.2g}" if usd else "$0"


def money(spending: Mapping[str, float]) -> str:
    """What was paid, and whether that is all that is known: calls of unknown price are said."""
    if spending["unpriced"] and spending["unpriced"] == spending["calls"]:
        return "price unknown"
    text = dollars(spending["usd"]) if spending["usd"] else "free"
    return f"{text} + unpriced" if spending["unpriced"] else text


def ago(then: float) -> str:
    """How long ago a moment was, in one unit."""
    seconds = max(0.0, time.time() - then)
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "just now"


def shorten(text: str) -> str:
    """The first line, cut where it is long."""
    line = text.strip().split("\n")[0]
    return line if len(line) <= SHORT else f"{line[: SHORT - 1].rstrip()}…"
