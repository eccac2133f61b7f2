"""Text that strangers wrote, made fit to be looked at: nothing in it is invisible or reorders what is around it."""

from __future__ import annotations

import re

# colours and cursor movements of terminals, as programs print them
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
# controls, the marks that turn the direction of text (CVE-2021-42574), and lone halves of surrogate pairs
_HIDDEN = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff"
    r"\ud800-\udfff]"
)


def visible(text: str) -> str:
    """The text with control characters and marks of direction shown by name; line ends become "\\n"."""
    return _HIDDEN.sub(_shown, text.replace("\r\n", "\n").replace("\r", "\n"))


def without_colours(text: str) -> str:
    """A terminal's output without its escape sequences."""
    return _ANSI.sub("", text)


def _shown(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "\u2421"
    return "\ufffd" if 0xD800 <= code <= 0xDFFF else f"\u27e8U+{code:04X}\u27e9"
