"""Random edits of Python source: the baseline without a language model.

A number is scaled, a flag turned, a function or layer swapped for a related one, an operator for another, a
statement or a layer left out. Everything else, comments and layout included, stays as it is.
"""

from __future__ import annotations

import ast
import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from guided_evolution.randomness import choice
from guided_evolution.source import canonical, parse_module, split_lines, tokens
from guided_evolution.swaps import FAMILIES, TRANSPARENT, Family, kept_arguments

MOST_EDITS = 3
_SECOND = 0.3  # how likely an edit is followed by another, so that most children differ in one or two places
_INTEGER_FACTORS = (0.5, 0.75, 1.5, 2)
_FLOAT_FACTORS = (0.1, 0.2, 0.3, 0.5, 0.7, 1.5, 2, 3, 5, 10)
_OPERATORS = {
    "+": ("-", "*"),
    "-": ("+",),
    "*": ("+", "/"),
    "/": ("*",),
    "%": ("//",),
    "**": ("*",),
    "<": ("<=", ">"),
    "<=": ("<", ">="),
    ">": (">=", "<"),
    ">=": (">", "<="),
    "==": ("!=",),
    "!=": ("==",),
    "and": ("or",),
    "or": ("and",),
    "+=": ("-=", "*="),
    "-=": ("+=",),
    "*=": ("/=", "+="),
    "/=": ("*=",),
}
_NO_NUMBER = ast.JoinedStr | ast.List | ast.Tuple | ast.Dict | ast.Set | ast.ListComp
_SKIPPED = frozenset({"annotation", "returns", "type_params"})
_UNPLACED = {"JoinedStr", "TemplateStr"}  # what is inside has no place of its own before Python 3.12


@dataclass(frozen=True, slots=True)
class Edited:
    """A text after random edits.

    Attributes:
        lines: What the edited lines became.
        moves: Each edit in words, e.g. "64 -> 96".
    """

    lines: str
    moves: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Site:
    """Something that can be edited.

    Attributes:
        kind: "number", "flag", "swap", "operator" or "drop".
        group: Sites of one kind that are alike; each group is as likely as the others.
        spans: First and last character of every place that changes.
        old: What stands there.
        options: What may stand there instead.
    """

    kind: str
    group: str
    spans: tuple[tuple[int, int], ...]
    old: str
    options: tuple[str, ...]


def edited(text: str, first: int, last: int, rng: np.random.Generator) -> Edited | None:
    """Makes one to three random edits in some lines of a Python file.

    The kind of an edit is drawn first, then the place, then what comes there, so that numbers, of which there are
    many, don't drown the rest.

    Args:
        text: The whole file, for its imports; its line ends are all newlines, and it has no byte order mark.
        first: The first line that may change, counted from 1; `last` is the last one.

    Returns:
        What the lines became: they parse in their place and say something else. None when there is nothing to edit.

    Raises:
        SyntaxError: When the text is no Python.
    """
    begun, moves, after = canonical(text), list[str](), len(split_lines(text)) - last
    wanted = 1
    while wanted < MOST_EDITS and rng.random() < _SECOND:
        wanted += 1
    while len(moves) < wanted:
        found = _one_edit(text, first, len(split_lines(text)) - after, rng, begun)
        if found is None:
            break
        text, move = found
        moves.append(move)
    if not moves:
        return None
    lines = split_lines(text)
    return Edited("".join(lines[first - 1 : len(lines) - after]), tuple(moves))


def _one_edit(text: str, first: int, last: int, rng: np.random.Generator, begun: str) -> tuple[str, str] | None:
    sites = _Finder(text, first, last).sites()
    while sites:
        kind = choice(rng, sorted({site.kind for site in sites}))
        group = choice(rng, sorted({site.group for site in sites if site.kind == kind}))
        site = choice(rng, [site for site in sites if (site.kind, site.group) == (kind, group)])
        new = choice(rng, site.options)
        changed = text
        for start, end in sorted(site.spans, reverse=True):
            changed = changed[:start] + new + changed[end:]
        # a text that an earlier edit led away from is no way back
        if _is_python(changed) and canonical(changed) not in (begun, canonical(text)):
            return changed, _words(site, new)
        sites = [each for each in sites if each is not site]
    return None


def _is_python(text: str) -> bool:
    try:
        parse_module(text, compiled=True)
    except SyntaxError:
        return False
    return True


def _words(site: _Site, new: str) -> str:
    old, new = (" ".join(text.split()) for text in (site.old, new))
    if site.kind == "drop":
        return f"without {old[:80]}"
    if site.kind == "swap":
        old, new = (text.partition("(")[0] for text in (old, new))
    times = f" ({len(site.spans)} times)" if len(site.spans) > 1 else ""
    return f"{old[:60]} -> {new[:60]}{times}"


class _Finder:
    """Finds what can be edited in some lines of a file."""

    def __init__(self, text: str, first: int, last: int) -> None:
        self._text, self._first, self._last = text, first, last
        self._tree = parse_module(text)
        self._lines = split_lines(text)
        self._starts = [0]
        for line in self._lines:
            self._starts.append(self._starts[-1] + len(line))
        self._words = [
            (self._starts[item.start[0] - 1] + item.start[1], item.string) for item in tokens(text) if item.string
        ]
        self._imported = dict(_imports(self._tree))

    def sites(self) -> list[_Site]:
        """Everything that can be edited, in the order of the text."""
        found: list[_Site] = []
        for node, parent in _walk(self._tree, None):
            line, end = getattr(node, "lineno", 0), getattr(node, "end_lineno", 0)
            if self._first <= line and end <= self._last:
                found += self._constants(node, parent)
                found += self._operators(node)
                found += self._swaps(node, parent)
                found += self._drops(node, parent)
        return [site for site in [*found, *_together(found)] if site.options]

    def _place(self, line: int, column: int) -> int:
        return self._starts[line - 1] + len(self._lines[line - 1].encode()[:column].decode())

    def _span(self, node: ast.expr | ast.stmt | ast.keyword) -> tuple[int, int]:
        end = self._place(node.end_lineno or node.lineno, node.end_col_offset or node.col_offset)
        return self._place(node.lineno, node.col_offset), end

    def _site(self, kind: str, span: tuple[int, int], options: Sequence[str], group: str = "") -> _Site:
        old = self._text[slice(*span)]
        return _Site(kind, group or f"{span[0]:09d}", (span,), old, tuple(each for each in options if each != old))

    # -- numbers and flags --------------------------------------------------------------------------------------

    def _constants(self, node: ast.AST, parent: ast.AST | None) -> Iterator[_Site]:
        if not isinstance(node, ast.Constant):
            return
        # a keyword tells more: "momentum=0.9 -> momentum=0.95"
        named = isinstance(parent, ast.keyword) and parent.arg is not None
        span, name = self._span(parent if named and isinstance(parent, ast.keyword) else node), ""
        if named and isinstance(parent, ast.keyword):
            name = self._text[span[0] : self._span(node)[0]]
        literal = self._text[slice(*self._span(node))]
        if isinstance(node.value, bool):
            yield self._site("flag", span, [f"{name}{not node.value}"])
        elif isinstance(node.value, int):
            yield self._site("number", span, [name + each for each in _integers(node.value, literal)], name + literal)
        elif isinstance(node.value, float) and math.isfinite(node.value):
            yield self._site("number", span, [name + each for each in _floats(node.value)], name + literal)

    # -- operators ----------------------------------------------------------------------------------------------

    def _operators(self, node: ast.AST) -> Iterator[_Site]:
        if isinstance(node, ast.BinOp) and not _is_text(node.left) and not _is_text(node.right):
            yield from self._between(node.left, node.right)
        elif isinstance(node, ast.AugAssign) and not _is_text(node.value):
            yield from self._between(node.target, node.value)
        elif isinstance(node, ast.Compare):
            for left, right in pairwise([node.left, *node.comparators]):
                yield from self._between(left, right)
        elif isinstance(node, ast.BoolOp):
            for left, right in pairwise(node.values):
                yield from self._between(left, right)
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            start = self._span(node)[0]
            yield self._site("operator", (start, start + 1), ["+"])

    def _between(self, left: ast.expr, right: ast.expr) -> Iterator[_Site]:
        """The operator between two expressions, which syntax trees don't place."""
        begin, end = self._span(left)[1], self._span(right)[0]
        for start, word in self._words[bisect_left(self._words, (begin, "")) :]:
            if start >= end:
                return
            if word in _OPERATORS:
                yield self._site("operator", (start, start + len(word)), _OPERATORS[word])
                return

    # -- functions and classes ----------------------------------------------------------------------------------

    def _swaps(self, node: ast.AST, parent: ast.AST | None) -> Iterator[_Site]:
        if isinstance(node, ast.Call):
            yield from self._swap(node.func, node)
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load):
            called = isinstance(parent, ast.Call) and parent.func is node
            # the function itself is handed on, as in `activation=F.relu`
            if not called and not isinstance(parent, ast.Attribute):
                yield from self._swap(node, None)

    def _swap(self, function: ast.expr, call: ast.Call | None) -> Iterator[_Site]:
        module, name = self._resolved(function)
        span = self._span(function)
        if isinstance(function, ast.Attribute):
            span = span[1] - len(function.attr), span[1]
        if call is None and module in ("", "builtins"):
            return
        for family in FAMILIES.get(module, ()):
            for new in family if name in family else ():
                written = new if isinstance(function, ast.Attribute) else self._known_as(module, new)
                if new != name and written:
                    yield from self._replaced(span, family, name, new, written, call)

    def _replaced(
        self, span: tuple[int, int], family: Family, name: str, new: str, written: str, call: ast.Call | None
    ) -> Iterator[_Site]:
        group = f"{span[0]:09d}"
        if call is None:
            yield self._site("swap", span, [written], group)
            return
        named = [keyword.arg for keyword in call.keywords if keyword.arg is not None]
        starred = any(isinstance(each, ast.Starred) for each in call.args) or len(named) < len(call.keywords)
        kept = kept_arguments(family[name], family[new], len(call.args), named)
        if kept is None or (starred and family[name] != family[new]):
            return
        if kept == (len(call.args), tuple(named)):
            yield self._site("swap", span, [written], group)
            return
        staying: list[ast.expr | ast.keyword] = [
            *call.args[: kept[0]],
            *(each for each in call.keywords if each.arg in kept[1]),
        ]
        inside = ", ".join(self._text[slice(*self._span(each))] for each in staying)
        yield self._site("swap", (span[0], self._span(call)[1]), [f"{written}({inside})"], group)

    def _resolved(self, function: ast.expr) -> tuple[str, str]:
        """The module and the name of a function, e.g. "torch.nn" and "ReLU" of `nn.ReLU`."""
        written = _dotted(function)
        if written is None:
            return "", function.attr if isinstance(function, ast.Attribute) else ""
        head, dot, rest = written.partition(".")
        if head in self._imported:
            module, _, name = f"{self._imported[head]}{dot}{rest}".rpartition(".")
            return module, name
        return ("", written.rpartition(".")[2]) if dot else ("builtins", written)

    def _known_as(self, module: str, name: str) -> str:
        if module == "builtins":
            return name
        return next((known for known, full in self._imported.items() if full == f"{module}.{name}"), "")

    # -- leaving out --------------------------------------------------------------------------------------------

    def _drops(self, node: ast.AST, parent: ast.AST | None) -> Iterator[_Site]:
        if isinstance(node, ast.AugAssign) or (isinstance(node, ast.Expr) and _can_go(node.value)):
            # `pass` keeps a body that holds nothing else
            yield self._site("drop", self._span(node), ["pass"])
        elif isinstance(node, ast.Call):
            where = self._resolved(node.func)
            if where == ("torch.nn", "Sequential") and len(node.args) > 1:
                yield from self._elements(node.args)
            elif where[0] == "torch.nn.functional" and where[1] in TRANSPARENT and node.args:
                inner = self._text[slice(*self._span(node.args[0]))]
                bare = isinstance(node.args[0], ast.Name | ast.Call | ast.Attribute)
                yield self._site("drop", self._span(node), [inner if bare else f"({inner})"])

    def _elements(self, elements: Sequence[ast.expr]) -> Iterator[_Site]:
        spans = [self._span(each) for each in elements]
        for index, (start, end) in enumerate(spans):
            whole = (start, spans[index + 1][0]) if index + 1 < len(spans) else (spans[index - 1][1], end)
            site = self._site("drop", whole, [""])
            yield _Site(site.kind, site.group, site.spans, self._text[start:end], site.options)


def _walk(node: ast.AST, parent: ast.AST | None) -> Iterator[tuple[ast.AST, ast.AST | None]]:
    """Every node with its parent, in the order of the text; what is said of types is left out."""
    waiting = [(node, parent)]
    while waiting:
        node, parent = waiting.pop()
        yield node, parent
        children: list[tuple[ast.AST, ast.AST | None]] = []
        for name, value in ast.iter_fields(node):
            if name not in _SKIPPED:
                values = value if isinstance(value, list) else [value]
                children += [(each, node) for each in values if isinstance(each, ast.AST)]
        waiting += [] if type(node).__name__ in _UNPLACED else reversed(children)


def _imports(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Each imported name with what it stands for, e.g. "F" and "torch.nn.functional"."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for each in node.names:
                yield each.asname or each.name.partition(".")[0], each.name if each.asname else each.name.split(".")[0]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for each in node.names:
                yield each.asname or each.name, f"{node.module}.{each.name}"


def _dotted(node: ast.expr) -> str | None:
    if isinstance(node, ast.Name):
        return node.id
    inner = _dotted(node.value) if isinstance(node, ast.Attribute) else None
    return f"{inner}.{node.attr}" if inner is not None and isinstance(node, ast.Attribute) else None


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, _NO_NUMBER) or (isinstance(node, ast.Constant) and isinstance(node.value, str | bytes))


def _can_go(value: ast.expr) -> bool:
    """Whether a statement that is an expression can be left out: no docstring, and no call of the base class."""
    return not isinstance(value, ast.Constant | ast.Yield | ast.YieldFrom) and "super()" not in ast.unparse(value)


def _together(sites: Sequence[_Site]) -> Iterator[_Site]:
    """Numbers that occur several times, such as a width, changed everywhere at once, as often as one alone."""
    groups: dict[str, list[_Site]] = {}
    for site in sites:
        if site.kind == "number":
            groups.setdefault(site.group, []).append(site)
    for group, alike in groups.items():
        spans = tuple(span for site in alike for span in site.spans)
        for site in alike if len(alike) > 1 else ():
            yield _Site("number", group, spans, site.old, site.options)


def _integers(value: int, literal: str) -> list[str]:
    near = {value + 1, value - 1, *(math.floor(value * factor + 0.5) for factor in _INTEGER_FACTORS)}
    # what was at least one stays so: sizes and counts
    found = sorted(each for each in near if each != value and each >= min(value, 1))
    return [f"{each:_}" if "_" in literal else str(each) for each in found]


def _floats(value: float) -> list[str]:
    if not value:
        return ["0.1", "0.01", "0.001"]
    # what lies between 0 and 1 stays there: probabilities, momenta; they also move towards 1
    scale: list[Callable[[float], float]] = [lambda factor: value * factor]
    if 0.5 <= value < 1:
        scale.append(lambda factor: 1 - (1 - value) * factor)
    found = {float(f"{each(factor):.3g}") for each in scale for factor in _FLOAT_FACTORS}
    return [repr(each) for each in sorted(found - {value}) if not 0 < value < 1 or 0 < each < 1]
