"""How seed files are cut into blocks: text in, parts out, and the parts joined are the text again.

One file is read in one style, decided by the markers it holds:

* `# ge: block NAME` … `# ge: end`: the marked regions are blocks;
* `# EVOLVE-BLOCK-START [NAME]` … `# EVOLVE-BLOCK-END`: likewise;
* `# --OPTION--`: what lies between two separators is a block;
* no marker: every top-level class and function is a block, together with its decorators and the comment
  lines directly above it. `# ge: frozen` among those lines keeps it out.

A marker is a comment alone on its line; the same text inside a string means nothing. Blank lines at the
edges of a region belong to the fixed text, so a block starts and ends with something written.
"""

from __future__ import annotations

import ast
import re
import tokenize
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from guided_evolution.errors import GenomeError
from guided_evolution.source import BOM, parse_module, split_lines, tokens, unix

Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef

_MARKER = re.compile(r"#\s*(?:ge:\s*(?P<ge>\S*)|EVOLVE-BLOCK-(?P<evolve>START|END)\b:?|--OPTION--)\s*(?P<rest>.*)")
_NAME = re.compile(r"[\w.\-]+")
_HEADER = re.compile(r"#!|#.*coding[:=]")
_VERBS = {"block": "start", "end": "end", "frozen": "frozen", "START": "start", "END": "end"}
_SHOWN = {"ge": "# ge: block", "evolve": "# EVOLVE-BLOCK-START", "option": "# --OPTION--"}
_CLOSING = {"ge": "# ge: end", "evolve": "# EVOLVE-BLOCK-END"}


@dataclass(frozen=True, slots=True)
class Block:
    """A part of the program that evolution may rewrite.

    Attributes:
        name: Unique within the genome.
        source: The exact text, line ends included.
        file: The relative name of its file.
        line: The line of the file at which it starts, counted from 1.
    """

    name: str
    source: str
    file: str
    line: int


@dataclass(frozen=True, slots=True)
class Fixed:
    """Text of a file that no operator may change; the fields are those of `Block`, without a name."""

    source: str
    file: str
    line: int


Part = Block | Fixed


@dataclass(frozen=True, slots=True)
class Marker:
    """A marker comment: its style ("ge", "evolve", "option") and what it does.

    Attributes:
        verb: "start", "end", "split", "frozen", or "" where `# ge:` is followed by an unknown word.
        rest: What follows on the line: a name, or nothing.
        alone: False when code stands before it on its line.
    """

    style: str
    verb: str
    rest: str
    text: str
    line: int
    alone: bool


@dataclass(frozen=True, slots=True)
class _Span:
    """Lines `first` to `last` of a file, both included; an empty region has `last == first - 1`.

    `written` is the line of the marker that gives the name, 0 where the name follows from the code.
    """

    name: str
    first: int
    last: int
    written: int = 0


def find_markers(text: str) -> list[Marker]:
    """List the marker comments of a text in order.

    Raises:
        SyntaxError: When the text may hold a marker but can't be tokenized.
    """
    source = unix(text)
    if not _MARKER.search(source):
        return []
    lines = split_lines(source)
    found = []
    for token in tokens(source):
        match = _MARKER.match(token.string) if token.type == tokenize.COMMENT else None
        if match is None:
            continue
        line, column = token.start
        word = match["ge"] if match["ge"] is not None else match["evolve"]
        style = "option" if word is None else "evolve" if match["evolve"] else "ge"
        verb = "split" if word is None else _VERBS.get(word, "")
        alone = not lines[line - 1][:column].strip()
        found.append(Marker(style, verb, match["rest"].strip(), token.string.strip(), line, alone))
    return found


def cut(files: Mapping[str, str]) -> tuple[Part, ...]:
    """Cut every file into its parts, in order, and give each block a name of its own.

    A written name must be unique. A name taken from a class or function is made so: within a file the
    later ones become `name@2`, `name@3`; one that another file already uses becomes `file:name`.

    Args:
        files: Relative file name to text.

    Raises:
        GenomeError: With file and line, when a file isn't Python or its markers don't fit together.
    """
    spans = {file: _spans(file, text) for file, text in files.items()}
    used: dict[str, str] = {}
    for file, found in spans.items():
        for span in found:
            if span.written and span.name in used:
                where = f"{file}:{span.written}"
                raise GenomeError(f"{where}: block {span.name!r} exists already at {used[span.name]}")
            if span.written:
                used[span.name] = f"{file}:{span.written}"
    parts: list[Part] = []
    for file, text in files.items():
        parts += _assemble(file, text, _named(file, spans[file], used))
    return tuple(parts)


def _named(file: str, spans: Sequence[_Span], used: dict[str, str]) -> list[tuple[str, _Span]]:
    counts: dict[str, int] = {}
    named = []
    for span in spans:
        name = span.name
        if not span.written:
            counts[name] = counts.get(name, 0) + 1
            name += f"@{counts[name]}" if counts[name] > 1 else ""
            name = f"{file}:{name}" if name in used else name
            used[name] = f"{file}:{span.first}"
        named.append((name, span))
    return named


def _assemble(file: str, text: str, named: Sequence[tuple[str, _Span]]) -> list[Part]:
    # The byte order mark stays outside, so that a block on the first line can be replaced.
    pending, body = (BOM, text[len(BOM) :]) if text.startswith(BOM) else ("", text)
    lines = split_lines(body)
    parts: list[Part] = []
    done = 0
    for name, span in named:
        pending += "".join(lines[done : span.first - 1])
        if pending:
            parts.append(Fixed(pending, file, done + 1))
        parts.append(Block(name, "".join(lines[span.first - 1 : span.last]), file, span.first))
        pending, done = "", span.last
    pending += "".join(lines[done:])
    if pending or not parts:
        parts.append(Fixed(pending, file, done + 1))
    return parts


def _spans(file: str, text: str) -> list[_Span]:
    source = unix(text.removeprefix(BOM))
    try:
        tree = parse_module(source, file, compiled=True)
        markers = find_markers(source)
    except SyntaxError as error:
        raise GenomeError(f"{file}:{error.lineno or 1}: this is not valid Python: {error.msg}") from error
    style = _style(file, markers)
    frozen = [marker.line for marker in markers if marker.verb == "frozen"]
    lines = split_lines(source)
    if style == "":
        return _automatic(file, tree, lines, frozen)
    marks = [marker for marker in markers if marker.verb != "frozen"]
    spans = _separated(file, tree, lines, marks) if style == "option" else _regions(file, tree, lines, marks)
    for line in frozen:
        if any(span.first <= line <= span.last for span in spans):
            raise GenomeError(f"{file}:{line}: '# ge: frozen' can't stand inside a block")
    return spans


def _style(file: str, markers: Sequence[Marker]) -> str:
    first: Marker | None = None
    for marker in markers:
        where = f"{file}:{marker.line}"
        if not marker.verb:
            raise GenomeError(f"{where}: unknown marker {marker.text!r}; known are block NAME, end and frozen")
        if not marker.alone:
            raise GenomeError(f"{where}: the marker {marker.text!r} must stand alone on its line")
        if marker.verb == "frozen":
            continue
        first = first or marker
        if marker.style != first.style:
            raise GenomeError(
                f"{where}: {marker.text!r} can't be mixed with {_SHOWN[first.style]!r} (line {first.line})"
            )
    return first.style if first else ""


def _automatic(file: str, tree: ast.Module, lines: Sequence[str], frozen: Sequence[int]) -> list[_Span]:
    spans = []
    free = set(frozen)
    before = 0
    for node in tree.body:
        if isinstance(node, Definition):
            first = _first_line(lines, before)
            span = _Span(node.name, first, node.end_lineno or node.lineno)
            held = {line for line in frozen if first <= line < node.lineno}
            free -= held
            if not held and _separable(lines, span):
                spans.append(span)
        before = node.end_lineno or node.lineno
    if free:
        raise GenomeError(f"{file}:{min(free)}: '# ge: frozen' must stand directly above a top-level class or function")
    return spans


def _first_line(lines: Sequence[str], before: int) -> int:
    """The line where the statement after line `before` starts, with the comments attached to it.

    The syntax tree doesn't tell: a decorator in parentheses is placed where its expression starts.
    """
    top = before
    while not (line := lines[top].strip()) or line[0] in "#\\":
        top += 1
    while top > before and lines[top - 1].lstrip("\f").startswith("#"):
        if top <= 2 and _HEADER.match(lines[top - 1]):
            break
        top -= 1
    return top + 1


def _separable(lines: Sequence[str], span: _Span) -> bool:
    """True unless a line continuation ties the definition to what stands before or after it."""
    try:
        block = parse_module("".join(lines[span.first - 1 : span.last]))
        if lines[max(span.first - 2, 0)].rstrip().endswith("\\"):
            parse_module("".join(lines[: span.first - 1]))
    except SyntaxError:
        return False
    return len(block.body) == 1


def _regions(file: str, tree: ast.Module, lines: Sequence[str], marks: Sequence[Marker]) -> list[_Span]:
    spans: list[_Span] = []
    start: Marker | None = None
    for mark in marks:
        where = f"{file}:{mark.line}"
        if mark.verb == "start":
            if start is not None:
                raise GenomeError(f"{where}: this block starts inside the one that starts at line {start.line}")
            start = mark
            continue
        if start is None:
            raise GenomeError(f"{where}: {mark.text!r} closes nothing; {_SHOWN[mark.style]!r} is missing above")
        if mark.style == "ge" and mark.rest not in ("", start.rest):
            raise GenomeError(f"{where}: {mark.text!r} closes the block {start.rest!r} of line {start.line}")
        first, last = _trimmed(lines, start.line + 1, mark.line - 1)
        name = _written_name(file, start)
        written = start.line if name else 0
        if not name:
            inside = _definitions(tree, first, last)
            name = inside[0].name if len(inside) == 1 else f"block-{len(spans) + 1}"
        spans.append(_Span(name, first, last, written))
        start = None
    if start is not None:
        raise GenomeError(f"{file}:{start.line}: this block is never closed; {_CLOSING[start.style]!r} is missing")
    return spans


def _written_name(file: str, start: Marker) -> str:
    if _NAME.fullmatch(start.rest):
        return start.rest
    if start.style == "ge":
        raise GenomeError(f"{file}:{start.line}: '# ge: block' needs one name of letters, digits, '_', '-' and '.'")
    return ""


def _separated(file: str, tree: ast.Module, lines: Sequence[str], marks: Sequence[Marker]) -> list[_Span]:
    cuts = [mark.line for mark in marks]
    for node in tree.body:
        top = min([node.lineno, *(item.lineno for item in getattr(node, "decorator_list", []))])
        for line in cuts:
            if top < line <= (node.end_lineno or node.lineno):
                raise GenomeError(f"{file}:{line}: '# --OPTION--' must stand between top-level definitions")
    spans: list[_Span] = []
    for start, end in zip([0, *cuts], [*cuts, len(lines) + 1], strict=True):
        first, last = _trimmed(lines, start + 1, end - 1)
        inside = _definitions(tree, first, last)
        if not inside and (start == 0 or not any(first <= node.lineno <= last for node in tree.body)):
            continue
        classes = [node for node in inside if isinstance(node, ast.ClassDef)]
        main = classes if len(classes) == 1 else inside
        spans.append(_Span(main[-1].name if main else f"block-{len(spans) + 1}", first, last))
    return spans


def _definitions(tree: ast.Module, first: int, last: int) -> list[Definition]:
    """The outermost classes and functions that lie within the lines, in order."""
    found: list[Definition] = []
    waiting: list[ast.AST] = [tree]
    while waiting:
        for node in ast.iter_child_nodes(waiting.pop()):
            if isinstance(node, Definition) and first <= node.lineno and (node.end_lineno or 0) <= last:
                found.append(node)
            elif isinstance(node, ast.stmt | ast.excepthandler | ast.match_case):
                waiting.append(node)
    return sorted(found, key=lambda node: node.lineno)


def _trimmed(lines: Sequence[str], first: int, last: int) -> tuple[int, int]:
    while last >= first and not lines[last - 1].strip():
        if last > first and lines[last - 2].rstrip().endswith("\\"):
            break
        last -= 1
    while first < last and not lines[first - 1].strip():
        first += 1
    return first, last
