"""Python source as lines of coloured pieces, and two versions of it side by side."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from pygments.lexers.python import PythonLexer
from pygments.token import STANDARD_TYPES

from guided_evolution.ui.text import visible

CONTEXT = 3
LONGEST = 20_000  # characters of a file that are coloured; what is longer is shown plain
ALIKE = 0.5  # from this similarity on, the changed words of a line are marked


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of one line.

    Attributes:
        style: Pygments' short name of the token, such as "k" for a keyword; empty for plain text.
        changed: Whether it differs from the other version of the line.
    """

    text: str
    style: str = ""
    changed: bool = False


Line = tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a side-by-side view.

    Attributes:
        kind: "same", "changed", "removed", "added", or "gap", which stands for `hidden` unchanged lines.
        left, right: Line number and pieces of the older and the newer version; None where it has no such line.
    """

    kind: str
    left: tuple[int, Line] | None = None
    right: tuple[int, Line] | None = None
    hidden: int = 0


def coloured(source: str) -> list[Line]:
    """The lines of a Python source, each as pieces with the style of their token."""
    source = visible(source)
    if len(source) > LONGEST:
        return [(Piece(line),) if line else () for line in _lines(source)]
    lines: list[list[Piece]] = [[]]
    for token, text in PythonLexer(stripnl=False, ensurenl=False).get_tokens(source):
        first, *others = text.split("\n")
        for number, part in enumerate((first, *others)):
            if number:
                lines.append([])
            if part:
                lines[-1].append(Piece(part, STANDARD_TYPES.get(token, "") if part.strip() else ""))
    if not lines[-1] and len(lines) > 1:
        lines.pop()
    return [tuple(line) for line in lines]


def side_by_side(old: str, new: str, context: int | None = CONTEXT) -> list[Row]:
    """The rows that show how one source became another.

    Args:
        context: Unchanged lines kept around a change; None keeps all.

    Returns:
        The rows; empty when the lines are the same.
    """
    before, after = _lines(visible(old)), _lines(visible(new))
    if before == after:
        return []
    left, right = coloured(old), coloured(new)
    rows: list[Row] = []
    blocks = difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    for index, (tag, low, high, first, last) in enumerate(blocks):
        if tag == "equal":
            same = [
                Row("same", (low + step + 1, left[low + step]), (first + step + 1, right[first + step]))
                for step in range(high - low)
            ]
            rows += _folded(same, context, opens=index == 0, closes=index == len(blocks) - 1)
        else:
            rows += _changed(left[low:high], right[first:last], low, first)
    return rows


def _folded(rows: Sequence[Row], context: int | None, *, opens: bool, closes: bool) -> list[Row]:
    if context is None:
        return list(rows)
    head = 0 if opens else context
    tail = 0 if closes else context
    hidden = len(rows) - head - tail
    if hidden <= 1:
        return list(rows)
    return [*rows[:head], Row("gap", hidden=hidden), *rows[len(rows) - tail :]]


def _changed(left: Sequence[Line], right: Sequence[Line], low: int, first: int) -> list[Row]:
    rows = []
    for step in range(max(len(left), len(right))):
        older = left[step] if step < len(left) else None
        newer = right[step] if step < len(right) else None
        if older is not None and newer is not None:
            older, newer = _marked(older, newer)
        kind = "changed" if older is not None and newer is not None else "removed" if newer is None else "added"
        rows.append(
            Row(
                kind,
                None if older is None else (low + step + 1, older),
                None if newer is None else (first + step + 1, newer),
            )
        )
    return rows


def _marked(older: Line, newer: Line) -> tuple[Line, Line]:
    """Two versions of a line with the pieces marked that differ; as they are when little is common."""
    matcher = difflib.SequenceMatcher(None, [piece.text for piece in older], [piece.text for piece in newer], False)
    if matcher.ratio() < ALIKE:
        return older, newer
    left, right = list(older), list(newer)
    for tag, low, high, first, last in matcher.get_opcodes():
        if tag != "equal":
            for pieces, start, end in ((left, low, high), (right, first, last)):
                for index in range(start, end):
                    pieces[index] = Piece(pieces[index].text, pieces[index].style, changed=True)
    return tuple(left), tuple(right)


def _lines(text: str) -> list[str]:
    lines = text.split("\n")
    if len(lines) > 1 and not lines[-1]:
        lines.pop()
    return lines
