"""Jobs below a supervisor at level "process", and what they leave behind."""

from __future__ import annotations

import os
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from guided_evolution.evaluation import Job, launch
from guided_evolution.individual import Outcome

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
EVALUATOR = """
def evaluate(program, context):
    space = {"context": context}
    exec(compile(open(program).read(), program, "exec"), space)
    return space["score"]()
"""

DAEMON = """
import os, sys, time
def daemon():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(300)", os.getcwd()])
            os._exit(0)
        os._exit(0)
    os.wait()
    time.sleep(0.3)
"""

Score = Callable[..., Outcome]


def left_behind(folder: Path) -> list[str]:
    """The processes whose environment, command line or working directory names the folder."""
    mark = str(folder).encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            text = (process / "environ").read_bytes() + (process / "cmdline").read_bytes()
            text += os.fsencode((process / "cwd").readlink())
        except OSError:
            continue
        if mark in text and process.name != str(os.getpid()):
            found.append(f"{process.name}: {(process / 'cmdline').read_bytes()!r}")
    return found


def soon(condition: Callable[[], object], seconds: float = 8.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


def make_job(folder: Path, source: str, **fields: Any) -> Job:
    problem = folder / "problem"
    problem.mkdir(exist_ok=True)
    (problem / "evaluate.py").write_text(EVALUATOR)
    fields = {"stage": "evaluate", "objectives": ("accuracy",), "seconds": 20.0, "sandbox": "off", **fields}
    return Job(name="job", files={"seed.py": textwrap.dedent(source)}, problem=problem, **fields)


def scorer(tmp_path: Path) -> Iterator[Score]:
    """Runs one candidate for real, and asserts that neither a process nor a file of it is left."""

    def run(source: str, on_partial: Any = None, stop: Any = None, **fields: Any) -> Outcome:
        outcome = launch.run(make_job(tmp_path, source, **fields), tmp_path / "job", on_partial, stop)
        assert left_behind(tmp_path) == []
        assert not (tmp_path / "job").exists()
        return outcome

    yield run
    assert left_behind(tmp_path) == []
