"""Finds a prompt text, in the problem's folder first, and fills its `$variables`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from string import Template

import numpy as np

from guided_evolution.errors import ProblemError
from guided_evolution.randomness import choice

CATEGORIES = (
    "hyperparameters",
    "uncommon_hyperparameters",
    "complex",
    "reduce_size",
    "uncommon",
    "significant",
)
PLAIN = "plain"
CHARACTERS = (PLAIN, "expert", "magoo", "scientist")
MATINGS = ("mate_accuracy", "mate_efficiency")

_COMMON = {"summary", "name", "block", "rules", "keep"}
VARIABLES: dict[str, set[str]] = {
    "mutate": _COMMON | {"character", "task", "feedback"},
    "mate_accuracy": _COMMON | {"other", "difference"},
    "mate_efficiency": _COMMON | {"other", "difference"},
    "eot": _COMMON | {"before", "after", "effect", "teacher"},
    "eot_distil": {"summary", "teacher", "change", "effect"},
    "eot_apply": _COMMON | {"lesson", "task", "change", "effect", "teacher"},
    "repair": _COMMON | {"error"},
    "rules": set(),
    "rules_module": set(),
    **{category: set() for category in CATEGORIES},
    **{f"character_{character}": set() for character in CHARACTERS},
}
"""Every text of the book, and the variables that it may use."""

_HEADING = re.compile(r"^## Moves for an? (\w+)[ \t]*\n", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Move:
    """One concrete suggestion of a category's bank.

    Attributes:
        kind: "module", "optimizer" or "function": what kind of block it fits.
        text: What the prompt says; groups of the condition's match stand for themselves, as in `re.sub`.
        when: A regular expression that the block's source must match; None fits any.
    """

    kind: str
    text: str
    when: re.Pattern[str] | None = None

    def fits(self, kind: str, source: str) -> bool:
        """Whether the move makes sense for a block of this kind with this source."""
        return kind == self.kind and (self.when is None or self.when.search(source) is not None)

    def says(self, text: str, source: str) -> bool:
        """Whether this is what the move says of a block with this source, for one of the condition's matches."""
        if self.when is None:
            return text == self.text
        return any(match.expand(self.text) == text for match in self.when.finditer(source))

    def grounded(self, source: str, rng: np.random.Generator) -> str:
        """The move's text, filled with what one of the condition's matches in this source found."""
        if self.when is None:
            return self.text
        return choice(rng, list(self.when.finditer(source))).expand(self.text)


@dataclass(frozen=True, slots=True)
class Book:
    """The prompts of one problem: the packaged texts, each replaced by the problem's file of the same name.

    Attributes:
        override: The problem's `prompts` folder; it need not exist.
    """

    override: Path | None = None

    def text(self, name: str) -> str:
        """The raw text of one prompt file.

        Raises:
            ProblemError: When the problem's own file can't be read, or uses an unknown variable.
        """
        path = self.override / f"{name}.md" if self.override else None
        if path is None or not path.is_file():
            return _packaged(name)
        try:
            text = path.read_text(encoding="utf-8").replace("\r\n", "\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ProblemError(f"{path}: can't be read: {error}") from None
        unknown = sorted(set(Template(text).get_identifiers()) - VARIABLES[name])
        if unknown:
            known = ", ".join(f"${variable}" for variable in sorted(VARIABLES[name])) or "none"
            raise ProblemError(f"{path}: unknown variable ${unknown[0]}; this prompt may use: {known}")
        return text

    def check(self) -> None:
        """Reads every file once, so that a wrong one is found before a run and not during it.

        Raises:
            ProblemError: When the problem's folder holds a file of an unknown name, or a wrong one.
        """
        if self.override and self.override.is_dir():
            for path in sorted(self.override.glob("*.md")):
                if path.stem not in VARIABLES:
                    raise ProblemError(f"{path}: no prompt has this name; known: {', '.join(sorted(VARIABLES))}")
        for name in VARIABLES:
            self.text(name)
        for category in CATEGORIES:
            self.moves(category)

    def question(self, category: str) -> str:
        """A category's open question, as the paper puts it."""
        return _HEADING.split(self.text(category))[0].strip()

    def moves(self, category: str) -> tuple[Move, ...]:
        """A category's bank of moves.

        Raises:
            ProblemError: When a line of the bank is no move, or its condition no regular expression.
        """
        return _moves(category, self.text(category))

    def fill(self, name: str, /, **values: str) -> str:
        """A prompt with its variables replaced; the values go in as they are, whatever they contain."""
        text = self.text(name)
        for variable in (variable for variable, value in values.items() if not value.strip()):
            text = re.sub(rf"^\$\{{?{variable}\}}?[ \t]*\n+", "", text, flags=re.MULTILINE)
        return Template(text).safe_substitute({name: value.strip("\n") for name, value in values.items()})


@cache
def _moves(category: str, text: str) -> tuple[Move, ...]:
    _, *rest = _HEADING.split(text)
    moves = []
    for kind, body in zip(rest[::2], rest[1::2], strict=True):
        for line in filter(None, map(str.strip, body.splitlines())):
            moves.append(_move(category, kind, line))
    return tuple(moves)


def _move(category: str, kind: str, line: str) -> Move:
    # a condition may itself hold brackets, so its end is the first "] " after which it compiles
    if not line.startswith("- "):
        raise ProblemError(f"{category}.md: a move starts with '- ': {line!r}")
    body = line[2:]
    if not body.startswith("["):
        return Move(kind, body)
    for match in re.finditer(r"\] ", body):
        try:
            return Move(kind, body[match.end() :], re.compile(body[1 : match.start()], re.MULTILINE))
        except re.error:
            continue
    raise ProblemError(f"{category}.md: the condition of this move is no regular expression: {line!r}")


@cache
def _packaged(name: str) -> str:
    return (Path(__file__).parent / f"{name}.md").read_text(encoding="utf-8")
