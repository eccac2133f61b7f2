"""A candidate's file as a Python module."""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

PRIVATE_NAME = "_guided_evolution_candidate"


class _FreshLoader(SourceFileLoader):
    """Compiles the source each time: cached bytecode is matched by whole seconds only."""

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def load_program(path: str | Path) -> ModuleType:
    """Imports a candidate's file under a private name.

    The file's folder goes to the front of `sys.path` and stays there, so that a program of several files can
    import its parts at any time. The candidate loaded before, its parts and its folder are forgotten first: a
    process holds one candidate at a time.

    Raises:
        FileNotFoundError: If there is no such file.
        SyntaxError: If it isn't Python.
        Exception: Whatever the candidate's own code raises while it is imported.
    """
    file = Path(path).resolve()
    _forget()
    loader = _FreshLoader(PRIVATE_NAME, str(file))
    spec = importlib.util.spec_from_file_location(PRIVATE_NAME, file, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[PRIVATE_NAME] = module
    sys.path.insert(0, str(file.parent))
    loader.exec_module(module)
    return module


def _forget() -> None:
    """Removes the candidate loaded before, with the parts that it imported from its own folder."""
    last = sys.modules.pop(PRIVATE_NAME, None)
    if last is None or last.__file__ is None:
        return
    folder = Path(last.__file__).parent
    sys.path[:] = [entry for entry in sys.path if entry != str(folder)]
    for name, module in list(sys.modules.items()):
        origin = getattr(module, "__file__", None)
        if origin is not None and Path(origin).parent == folder:
            del sys.modules[name]


def require(module: ModuleType, name: str) -> Any:
    """Returns what the program calls `name`.

    Raises:
        AttributeError: If the program does not define it.
    """
    if not hasattr(module, name):
        raise AttributeError(f"the program no longer defines {name}")
    return getattr(module, name)
