"""For tests of runs that are cut short: by an interrupt after some individuals, or by a kill at an event."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from guided_evolution.events import Event
from guided_evolution.evolution import Evolution
from guided_evolution.problem import Problem

_KILLED = """
import json, os, sys
from pathlib import Path
from guided_evolution import session
from guided_evolution.llm.scripted import FunctionLLM
from guided_evolution.problem import Problem
from guided_evolution.settings import Settings
from guided_evolution.testing import scripted_reply

class Killer:
    left = int(sys.argv[4])
    def on(self, event):
        self.left -= event.kind == sys.argv[3]
        if not self.left:
            os._exit(9)

settings = Settings(llm="fake", **json.loads(sys.argv[5]))
session.start(Problem.load(sys.argv[1]), settings, Path(sys.argv[2]), [Killer()], FunctionLLM(scripted_reply, "fake"))
"""


class Stopper:
    """A listener that stops the run after some individuals, as Ctrl-C does; later runs it leaves alone."""

    def __init__(self, after: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.after = after
        self.evolution: Evolution | None = None
        stopper, original = self, Evolution.__init__

        def remember(self: Evolution, *arguments: Any, **options: Any) -> None:
            original(self, *arguments, **options)
            stopper.evolution = self

        monkeypatch.setattr(Evolution, "__init__", remember)

    def on(self, event: Event) -> None:
        """Takes one event; see `Listener.on`."""
        self.after -= event.kind == "individual"
        if self.after == 0 and self.evolution is not None:
            self.evolution.stop("interrupted")


def kill_run(problem: Problem, folder: Path, kind: str, count: int, **settings: Any) -> None:
    """Begins a run with the scripted model in a process that ends at once at the given event of a kind."""
    arguments = [str(problem.folder), str(folder), kind, str(count), json.dumps(settings)]
    assert subprocess.run([sys.executable, "-c", _KILLED, *arguments], timeout=120).returncode == 9
