"""Notice a program that changed what it is measured with.

The program runs in the evaluator's process, so it can reach the evaluator's functions and those of the libraries it
measures with. What they were is remembered before the program is loaded, and compared before each result is believed.
This finds the plain ways to cheat; code that undoes its change in time is not found (docs/security.md).
"""

from __future__ import annotations

import builtins
import importlib.machinery
import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

# Whatever else the evaluator imported may be cached or patched by honest libraries.
LIBRARIES = (
    *("math", "statistics", "random", "json", "time", "os", "io", "pathlib", "importlib", "importlib.util"),
    *("numpy", "numpy.linalg", "numpy.random"),
    *("sklearn.metrics", "torch", "torch.nn", "torch.nn.functional", "torch.utils.data"),
)
CLASSES = {"torch": ("Tensor",), "torch.nn": ("Module",), "pathlib": ("Path",)}
# Taken now, as the program can write to `sys`.
INSTALLED = (f"{sys.prefix}/", f"{sys.base_prefix}/", "/usr/lib/")
Fact = tuple[str, Callable[[], Any], Any]


class Guard:
    """The functions and classes that a score depends on, as they were before the program was loaded."""

    def __init__(self, evaluator: ModuleType, folder: Path) -> None:
        """Remember them.

        Args:
            evaluator: The evaluator's module.
            folder: The problem folder; the modules in it are watched too.
        """
        self._modules = {"builtins": builtins, evaluator.__name__: evaluator}
        for name, module in list(sys.modules.items()):
            place = getattr(module, "__file__", None) or ""
            ours = name.startswith("guided_evolution.") or place.startswith(f"{folder}/")
            if isinstance(module, ModuleType) and (ours or name in LIBRARIES):
                self._modules[name] = module
        self._names = {evaluator.__name__: "evaluator"}
        self._facts = list(self._remember())
        self._finders = list(sys.meta_path)
        self._hooks = list(sys.path_hooks)

    def changed(self) -> str:
        """The name of the first thing that is not what it was; empty when all are."""
        for name, module in self._modules.items():
            if sys.modules.get(name) is not module:
                return f"the module {self._names.get(name, name)}"
        for name, look, before in self._facts:
            now = look()
            if now is not before and not _wraps(now, before):
                return name
        if sys.gettrace() is not None or sys.getprofile() is not None:
            return "the tracing of calls"
        if self._hooks != list(sys.path_hooks) or not all(map(_is_honest, self._added(sys.meta_path))):
            return "how modules are imported"
        return ""

    def _added(self, finders: list[Any]) -> list[Any]:
        return [finder for finder in finders if not any(finder is known for known in self._finders)]

    def _remember(self) -> Iterator[Fact]:
        for name, module in self._modules.items():
            shown = self._names.get(name, name)
            for key, value in list(vars(module).items()):
                # numpy's functions are mostly objects of types of its own
                own = name.startswith("numpy") and callable(value)
                if own or isinstance(value, FunctionType | BuiltinFunctionType | type):
                    yield f"{shown}.{key}", _lookup(vars(module), key), value
                yield from _code(f"{shown}.{key}", value)
                if isinstance(value, type) and (
                    (value.__module__ == name and shown == "evaluator") or key in CLASSES.get(name, ())
                ):
                    yield from _members(f"{shown}.{key}", value)


def _members(name: str, owner: type) -> Iterator[Fact]:
    for key, value in list(vars(owner).items()):
        if callable(value) or isinstance(value, property | staticmethod | classmethod):
            yield f"{name}.{key}", _lookup(vars(owner), key), value
        yield from _code(f"{name}.{key}", value)


def _code(name: str, value: Any) -> Iterator[Fact]:
    if isinstance(value, FunctionType):
        yield name, lambda: value.__code__, value.__code__
        yield name, lambda: value.__defaults__, value.__defaults__


def _lookup(space: Any, key: str) -> Callable[[], Any]:
    return lambda: space.get(key)


def _wraps(now: Any, before: Any) -> bool:
    """Whether a library put a wrapper around what was there, as torch does when its compiler is loaded."""
    if not isinstance(now, FunctionType) or inspect.unwrap(now) is not inspect.unwrap(before):
        return False
    return _is_installed(now.__code__.co_filename)


def _is_installed(place: str) -> bool:
    return place.startswith(INSTALLED)


def _is_honest(finder: Any) -> bool:
    """Whether a finder that was added belongs to an installed library."""
    module = sys.modules.get(getattr(finder, "__module__", "") or type(finder).__module__)
    place = getattr(module, "__file__", None) or ""
    if isinstance(finder, type) and finder.__module__ == importlib.machinery.__name__:
        return True
    return _is_installed(place)
