"""Helpers for problems whose programs are plain functions: a candidate's size, and loading exactly what was measured.

Nothing here is imported by the rest of the package: an `evaluate.py` imports what it wants. Standard library only.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

PRIVATE_NAME = "_guided_evolution_candidate"
CHARACTERS_OF_A_NODE = 4
"""A constant counts one node for each four characters, so that code or tables put into a text save nothing."""

REFUSED_NAMES = frozenset(
    [
        *("compile", "eval", "exec", "open", "input", "breakpoint"),
        *("delattr", "dir", "getattr", "globals", "locals", "setattr", "vars"),
    ]
)
REFUSED_ATTRIBUTES = re.compile(
    r"_.*|(?:ag|cr|f|gi|tb)_\w+|builtins|ctypes|ctypeslib|gc|importlib|inspect|io|os|sys|"
    r"fromfile|fromregex|genfromtxt|load|loadtxt|memmap|open_memmap"
)
_Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Program:
    """A candidate of one file, parsed, without its docstrings.

    Attributes:
        path: Where it was read from; tracebacks name it.
        tree: What was measured, and what `load` runs.
    """

    path: Path
    tree: ast.Module

    @property
    def size(self) -> int:
        """The number of nodes of the syntax tree, the module's own and markers of context left out.

        Comments, docstrings and formatting count nothing. A constant counts one for each `CHARACTERS_OF_A_NODE`
        characters that it takes to write it down, an imported name or any other node counts one.
        """
        return sum(_weight(node) for node in ast.walk(self.tree)) - 1

    def load(self) -> ModuleType:
        """Runs the program's text in a new module; loading it again gives a copy that remembers nothing.

        Raises:
            Exception: Whatever the candidate's own code raises.
        """
        module = ModuleType(PRIVATE_NAME)
        module.__file__ = str(self.path)
        sys.modules[PRIVATE_NAME] = module
        exec(compile(self.tree, str(self.path), "exec", dont_inherit=True), vars(module))
        return module


def read(path: str | Path, imports: Collection[str] = ("math",)) -> Program:
    """Parses a candidate, and refuses what a plain function has no need of.

    Refused are imports of anything but `imports`, names such as `exec`, `getattr` and `open`, and attributes that
    lead out of the program: private ones, frames, files, and modules such as `os` and `sys` inside others. That
    closes the plain ways to look at the evaluator or at data still to come; it is no jail (docs/security.md).

    Args:
        path: The candidate's file.
        imports: Modules that it may import; their parts (`numpy.linalg`) come with them.

    Raises:
        SyntaxError: If it isn't Python.
        ValueError: If it uses what is refused; the text names it and its line.
    """
    path = Path(path)
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    for line, what in _refused(tree, imports):
        raise ValueError(f"the program uses {what}, which is not allowed here ({path.name}:{line})")
    for node in ast.walk(tree):
        if isinstance(node, _Documented) and ast.get_docstring(node, clean=False) is not None:
            del node.body[0]
            if not node.body and not isinstance(node, ast.Module):
                node.body = [ast.Pass(lineno=node.lineno, col_offset=node.col_offset)]
    return Program(path, ast.fix_missing_locations(tree))


def require(module: ModuleType, *names: str) -> None:
    """Raises an AttributeError unless the program defines functions of these names."""
    for name in names:
        if not callable(getattr(module, name, None)):
            raise AttributeError(f"the program no longer defines a function {name}")


def _weight(node: ast.AST) -> int:
    if isinstance(node, ast.expr_context | ast.Load | ast.Store | ast.Del):
        return 0
    if isinstance(node, ast.Constant):
        return max(1, -(-len(repr(node.value)) // CHARACTERS_OF_A_NODE))
    return 1


def _refused(tree: ast.Module, imports: Collection[str]) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = ["." * node.level + (node.module or "")]
            # what comes from a module is an attribute of it
            for alias in node.names:
                if REFUSED_ATTRIBUTES.fullmatch(alias.name):
                    yield node.lineno, f"`{alias.name}`"
        else:
            modules = []
        for name in modules:
            if name.partition(".")[0] not in imports or any(map(REFUSED_ATTRIBUTES.fullmatch, name.split(".")[1:])):
                yield getattr(node, "lineno", 0), f"the module {name}"
        if isinstance(node, ast.Name) and (node.id in REFUSED_NAMES or node.id.startswith("__")):
            yield node.lineno, f"`{node.id}`"
        if isinstance(node, ast.Attribute) and REFUSED_ATTRIBUTES.fullmatch(node.attr):
            yield node.lineno, f"`.{node.attr}`"
