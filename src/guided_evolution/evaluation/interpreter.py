"""What a worker's interpreter reads from the file system: its own files, and the packages it can import."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

# Printed by a fresh interpreter, as its paths differ from those of the process that asks.
_QUESTION = """
import importlib.metadata, json, sys
projects = []
for distribution in importlib.metadata.distributions():
    text = distribution.read_text("direct_url.json")
    facts = json.loads(text) if text else {}
    if facts.get("dir_info", {}).get("editable") and facts["url"].startswith("file://"):
        projects.append(facts["url"].removeprefix("file://"))
print(json.dumps({"prefixes": [sys.prefix, sys.base_prefix, sys.exec_prefix], "path": sys.path, "projects": projects}))
"""


@dataclass(frozen=True, slots=True)
class Reachable:
    """Folders that a worker has to read, without those that lie in another.

    Attributes:
        prefixes: The interpreter's and the environment's.
        projects: Folders of packages that are developed in place, or named by PYTHONPATH.
    """

    prefixes: tuple[str, ...]
    projects: tuple[str, ...]


@lru_cache(maxsize=8)
def reachable(python_path: str = "") -> Reachable:
    """Asks the interpreter; a home folder, or one above it, is never among the answers.

    Args:
        python_path: The value of PYTHONPATH; it is part of the question.
    """
    said = subprocess.run(
        [sys.executable, "-P", "-c", _QUESTION],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": python_path},
    ).stdout
    answer = json.loads(said)
    prefixes = _outermost([path for path in answer["prefixes"] if path not in ("/", "/usr")])
    libraries = [path for path in answer["path"] if Path(path).exists() and not _below(path, [*prefixes, "/usr"])]
    in_place = []
    for project in answer["projects"]:
        source = Path(project, "src")
        in_place.append(str(source if source.is_dir() else project))
    return Reachable(prefixes, _outermost([*libraries, *in_place]))


def _outermost(paths: Iterable[str]) -> tuple[str, ...]:
    kept: list[str] = []
    for path in sorted({*paths, *(os.path.realpath(path) for path in paths)}, key=len):
        if not _holds_home(path) and not _below(path, kept):
            kept.append(path)
    return tuple(kept)


def _below(path: str, folders: Iterable[str]) -> bool:
    return any(Path(path).is_relative_to(folder) for folder in folders)


def _holds_home(path: str) -> bool:
    try:
        return Path("~").expanduser().is_relative_to(path)
    except RuntimeError:  # a user without an entry in the system's list, as in some containers
        return False
