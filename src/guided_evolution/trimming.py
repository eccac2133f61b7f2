"""From a reply's code to what one block needs of it.

A model that is asked for one block often sends more: the imports of the file, the other blocks, a demonstration. And
what the block really needs may stand anywhere around it: a helper below its user, a table that a loop fills. So what is
kept grows from the required names until nothing more is needed.
"""

from __future__ import annotations

import ast
import symtable
from collections.abc import Set
from functools import lru_cache

_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
_Import = ast.Import | ast.ImportFrom


def trimmed(code: str, tree: ast.Module, *, required: Set[str], others: Set[str], available: Set[str], old: str) -> str:
    """The statements of a reply that belong to a block, as they were written.

    Args:
        code: The reply's code, and `tree` its syntax tree.
        required: Names that the block must bind.
        others: Names that other blocks define: their repetitions are left behind.
        available: Import statements that the file has anyway, as `ast.unparse` writes them.
        old: The block's present source: its statements may stay, and its imports come back where they are missing.
    """
    familiar = _statements(old)
    kept: set[int] = set()
    wanted = set(required)
    while True:
        grown = {
            index
            for index, node in enumerate(tree.body)
            if _belongs(node, wanted, others, available, familiar, required)
        }
        if grown <= kept:
            break
        kept |= grown
        wanted = set(required).union(*(free_names(_segment(code, tree.body[index], set())) for index in kept))
    comments = set(old.splitlines())
    bound = set().union(*(binds(tree.body[index]) for index in kept))
    imports = [
        ast.unparse(node)
        for node in _body(old)
        if isinstance(node, _Import) and binds(node) & (wanted - bound) and ast.unparse(node) not in available
    ]
    return "\n".join([*imports, *(_segment(code, tree.body[index], comments) for index in sorted(kept))])


def _belongs(
    node: ast.stmt,
    wanted: Set[str],
    others: Set[str],
    available: Set[str],
    familiar: Set[str],
    required: Set[str],
) -> bool:
    if isinstance(node, ast.ImportFrom) and node.module == "__future__":
        return False
    names = binds(node) | _fills(node)
    if isinstance(node, _Import):
        return bool(names & wanted) and ast.unparse(node) not in available
    if isinstance(node, ast.If) and "__name__" in ast.unparse(node.test):
        return False
    if names and names <= others and not names & required:
        return False
    if isinstance(node, ast.Expr) and not names:
        return ast.unparse(node) in familiar
    return bool(names & wanted)


def binds(node: ast.AST) -> set[str]:
    """The names that a top-level statement binds."""
    if isinstance(node, _Definition):
        return {node.name}
    if isinstance(node, _Import):
        return {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    found: set[str] = set()
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store):
            found.add(child.id)
        elif isinstance(child, ast.stmt | ast.expr | ast.ExceptHandler | ast.withitem):
            found |= binds(child)
    return found


def _fills(node: ast.stmt) -> set[str]:
    """The names whose objects a top-level statement changes: `table[0] = 1`, `table.append(1)`."""
    if isinstance(node, _Definition | _Import):
        return set()
    found = set()
    for child in ast.walk(node):
        target: ast.AST | None = None
        if isinstance(child, ast.Subscript | ast.Attribute) and isinstance(child.ctx, ast.Store | ast.Del):
            target = child.value
        elif isinstance(child, ast.Expr) and isinstance(child.value, ast.Call):
            function = child.value.func
            target = function.value if isinstance(function, ast.Attribute) else None
        while isinstance(target, ast.Subscript | ast.Attribute):
            target = target.value
        if isinstance(target, ast.Name):
            found.add(target.id)
    return found


def free_names(source: str) -> set[str]:
    """The names that a piece of code looks up outside its own functions: globals and builtins."""

    def look(table: symtable.SymbolTable) -> set[str]:
        found = {
            symbol.get_name()
            for symbol in table.get_symbols()
            if symbol.is_referenced() and (table.get_type() == "module" or symbol.is_global())
        }
        return found.union(*(look(child) for child in table.get_children()))

    return look(symtable.symtable(source, "<block>", "exec"))


@lru_cache(maxsize=256)
def _statements(source: str) -> frozenset[str]:
    return frozenset(ast.unparse(node) for node in _body(source))


def _body(source: str) -> list[ast.stmt]:
    try:
        return ast.parse(source).body
    except (SyntaxError, ValueError):
        return []


def _segment(code: str, node: ast.stmt, comments: Set[str]) -> str:
    """A statement as it was written, with its decorators and those comments right above it that are not new.

    The prompt asks for a comment that says what changed, which would be stale after the next change.
    """
    lines = code.split("\n")
    decorators = getattr(node, "decorator_list", [])
    first = min([node.lineno, *(decorator.lineno for decorator in decorators)]) - 1
    last = node.end_lineno or node.lineno
    if node.col_offset or lines[last - 1].encode()[node.end_col_offset :].strip().startswith(b";"):
        return ast.unparse(node)
    while first and lines[first - 1].startswith("#") and lines[first - 1] in comments:
        first -= 1
    return "\n".join(lines[first:last]) + ("\n" if isinstance(node, _Definition) else "")
