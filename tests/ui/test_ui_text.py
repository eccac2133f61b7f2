"""Texts, code and diffs as the pages show them."""

from __future__ import annotations

import pytest

from guided_evolution.ui.code import coloured, side_by_side
from guided_evolution.ui.text import visible, without_colours


def test_hidden_characters_are_shown_by_name() -> None:
    assert visible("a\x00b\x1b\x7f") == "a\u2400b\u241b\u2421"
    assert visible("x\u202ey\u200b") == "x\u27e8U+202E\u27e9y\u27e8U+200B\u27e9"
    assert visible("a\r\nb\rc\td \ud83d") == "a\nb\nc\td \ufffd"
    assert without_colours("\x1b[1;31mred\x1b[0m \x1b]8;;http://x\x07link\x1b]8;;\x07") == "red link"


def test_sides_of_a_diff() -> None:
    rows = side_by_side("a = 1\nb = 2\nc = 3\n", "a = 1\nb = 20\nc = 3\nd = 4\n")
    assert [row.kind for row in rows] == ["same", "changed", "same", "added"]
    assert rows[1].left is not None
    assert [piece.text for piece in rows[1].left[1] if piece.changed] == ["2"]
    assert rows[3].left is None
    assert rows[3].right is not None
    assert rows[3].right[0] == 4
    assert side_by_side("x\n", "x") == []


def test_unchanged_lines_are_folded_unless_all_are_wanted() -> None:
    old = "\n".join(f"x{number} = {number}" for number in range(100))
    new = old.replace("x50 = 50", "x50 = 51")
    rows = side_by_side(old, new)
    assert [row.kind for row in rows] == ["gap", *["same"] * 3, "changed", *["same"] * 3, "gap"]
    assert sum(row.hidden for row in rows) + 7 == 100
    assert len(side_by_side(old, new, context=None)) == 100


@pytest.mark.parametrize(
    "source", ["", "x", "x\n", "\n\n", 'def f():\n    """a\n    b"""\n', "'unclosed\n", "a" * 30_000, "é\u3000\n"]
)
def test_colours_lose_no_character(source: str) -> None:
    lines = coloured(source)
    assert "\n".join("".join(piece.text for piece in line) for line in lines) == source.removesuffix("\n")
