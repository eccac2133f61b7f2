"""Python source as text: lines, tokens, indentation, and what of it counts when two sources are compared."""

from __future__ import annotations

import ast
import io
import re
import token
import tokenize
from collections.abc import Iterator
from functools import lru_cache

BOM = "\ufeff"

# Only the line ends that Python's own parser knows: str.splitlines also breaks at form feeds and U+2028.
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
_STRING_OPENS = {getattr(token, name, -1) for name in ("FSTRING_START", "TSTRING_START")}
_STRING_CLOSES = {getattr(token, name, -1) for name in ("FSTRING_END", "TSTRING_END")}
# Fields of the syntax tree that say how something was written, or that follow from the rest.
_UNTOLD = frozenset({"kind", "ctx", "type_comment", "type_ignores"})


def split_lines(text: str) -> list[str]:
    r"""Split at \n, \r\n and \r only, as the parser counts lines, and keep the line ends."""
    return _LINE.findall(text)


def unix(text: str) -> str:
    r"""Give the text with every line end as \n; the number of lines stays the same."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def parse_module(source: str, file: str = "<block>", *, compiled: bool = False) -> ast.Module:
    """Parse Python source, and with `compiled` also run the checks that only the compiler makes.

    Raises:
        SyntaxError: For anything that can't be parsed, deep nesting and null bytes included.
    """
    try:
        tree = ast.parse(source, filename=file)
        if compiled:
            compile(tree, file, "exec", dont_inherit=True)
    except (RecursionError, MemoryError) as error:
        raise SyntaxError("too deeply nested", (file, 1, None, None)) from error
    except ValueError as error:
        raise SyntaxError(str(error), (file, 1, None, None)) from error
    return tree


def tokens(source: str) -> Iterator[tokenize.TokenInfo]:
    r"""Give the tokens of a source whose line ends are all \n.

    Raises:
        SyntaxError: Where the source can't be tokenized.
    """
    try:
        yield from tokenize.generate_tokens(io.StringIO(source, newline="\n").readline)
    except tokenize.TokenError as error:
        message, (line, _) = error.args
        raise SyntaxError(message, ("<block>", line, None, None)) from error


def code_line(source: str) -> str | None:
    """The first line that is neither blank nor a comment: nothing before it can be inside a string."""
    return next((line for line in split_lines(source) if line.strip() and line.strip()[0] != "#"), None)


def leading(line: str) -> str:
    """Give the blanks, tabs and form feeds at the start of a line."""
    return line[: len(line) - len(line.lstrip(" \t\f"))]


def shifted(source: str, indentation: str) -> str:
    """Move the source to another indentation; lines that continue a string stay as they are."""
    lines = source.split("\n")
    base = leading(code_line(source) or next((line for line in lines if line.strip()), ""))
    if base == indentation:
        return source
    within = _string_lines(source)
    for index, line in enumerate(lines):
        if line.strip() and index + 1 not in within:
            rest = line[len(base) :] if line.startswith(base) else line.lstrip(" \t\f")
            lines[index] = indentation + rest
    return "\n".join(lines)


def _string_lines(source: str) -> set[int]:
    within: set[int] = set()
    opened: list[int] = []
    try:
        for item in tokens(source):
            if item.type == tokenize.STRING:
                within.update(range(item.start[0] + 1, item.end[0] + 1))
            elif item.type in _STRING_OPENS:
                opened.append(item.start[0])
            elif item.type in _STRING_CLOSES:
                within.update(range(opened.pop() + 1, item.end[0] + 1))
    except SyntaxError:
        pass  # The parser that reads the result names the error better than the tokenizer.
    return within


def canonical(source: str) -> str:
    """Give a text that is the same for two sources exactly when they differ in form only.

    Comments, layout, quotes, prefixes and the spelling of numbers are form; docstrings are not.
    Indented source is read as if it weren't. What isn't Python by itself is given back stripped.
    """
    source = unix(source.removeprefix(BOM))
    try:
        try:
            return _module(source)
        except IndentationError:
            return _module(shifted(source, ""))
    except SyntaxError:
        return source.strip()


def _module(source: str) -> str:
    """The dump of a module, put together from its statements: of a child's, all but a few are its parent's."""
    tree = parse_module(source)
    if not tree.body:
        return _dump(tree)
    lines = source.split("\n")
    written, last = [], 0
    for index, node in enumerate(tree.body):
        after = tree.body[index + 1] if index + 1 < len(tree.body) else None
        end = node.end_lineno or node.lineno
        # lines that hold one statement and nothing of another say all of it
        alone = last < _first(node) and (after is None or end < _first(after)) and not lines[end - 1].endswith("\\")
        if alone:
            written.append(_statement("\n".join(lines[last:end])))
        else:
            written.append(_dump(node))
        last = end
    return f"Module(body=[{','.join(written)},])"


def _first(node: ast.stmt) -> int:
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(each.lineno for each in decorators)])


@lru_cache(maxsize=1024)
def _statement(text: str) -> str:
    return _dump(parse_module(text).body[0])


def _dump(tree: ast.AST) -> str:
    """Write a syntax tree without positions; without recursion, so that depth can't matter.

    `ast.dump` recurses, writes each Python version's own fields, and can't print very long integers.
    """
    written: list[str] = []
    waiting: list[ast.AST | str] = [tree]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            written.append(item)
        else:
            waiting += reversed(_pieces(item))
    return "".join(written)


def _pieces(node: ast.AST) -> list[ast.AST | str]:
    kind = type(node)
    pieces: list[ast.AST | str] = [f"{kind.__name__}("]
    for name in _told(kind._fields):
        value = getattr(node, name, None)
        if isinstance(value, ast.AST):
            pieces += [f"{name}=", value, ","]
        elif isinstance(value, list):
            if not value:
                continue
            pieces.append(f"{name}=[")
            for element in value:
                pieces += [element if isinstance(element, ast.AST) else _literal(element), ","]
            pieces.append("]")
        elif value is not None:
            pieces.append(f"{name}={_literal(value)},")
    pieces.append(")")
    return pieces


@lru_cache(maxsize=256)
def _told(fields: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in fields if name not in _UNTOLD)


def _literal(value: object) -> str:
    shown = hex(value) if type(value) is int else repr(value)
    return f"{type(value).__name__}:{shown}"
