"""Hostile candidates inside a whole run: each costs itself, and nothing is left behind."""

from __future__ import annotations

import itertools
import re
import time
from pathlib import Path

from guided_evolution import session
from guided_evolution.individual import Status
from guided_evolution.llm.scripted import FunctionLLM
from guided_evolution.problem import Problem
from guided_evolution.settings import Settings
from guided_evolution.testing import write_tiny_problem

HOSTILE = {
    "ignores SIGTERM": (
        "import signal, time\n    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n    time.sleep(600)",
        Status.TIMED_OUT,
    ),
    "forks a daemon": (
        "import os, time\n    if os.fork() == 0:\n        os.setsid()\n        if os.fork() == 0:\n"
        "            time.sleep(600)\n        os._exit(0)\n    os._exit(0)",
        Status.CRASHED,
    ),
    "allocates without end": (
        "hoard = []\n    while True:\n        hoard.append(bytearray(16 << 20))",
        Status.OUT_OF_MEMORY,
    ),
    "prints without end": (
        "import sys\n    for _ in range(3000):\n        sys.stdout.write('x' * 65536)\n    return 1",
        Status.OK,
    ),
    "gives NaN": ("return float('nan')", Status.CRASHED),
    "gives nothing": ("return None", Status.CRASHED),
    "leaves without a result": ("import os\n    os._exit(0)", Status.CRASHED),
    "deletes its folder": (
        "import os, shutil\n    shutil.rmtree(os.getcwd(), ignore_errors=True)\n    return 1",
        None,
    ),
}


def processes_in(folder: Path) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if str(folder) in str((entry / "cwd").readlink()):
                found.append((entry / "cmdline").read_text())
        except OSError:
            continue
    return found


def test_hostile_candidates_cost_only_themselves(tmp_path: Path) -> None:
    folder = write_tiny_problem(tmp_path / "hostile")
    evaluate = (folder / "evaluate.py").read_text()
    (folder / "evaluate.py").write_text(re.sub(r"def check\(program\):\n    .*\n", "", evaluate))
    toml = (folder / "problem.toml").read_text()
    (folder / "problem.toml").write_text(toml.replace("seconds = 20", "seconds = 4").replace("512", "300"))
    bodies = itertools.cycle(body for body, _ in HOSTILE.values())

    def reply(prompt: str) -> str:
        name = re.search(r"`def (\w+)\(\)`", prompt)
        assert name is not None
        return f"```python\ndef {name[1]}():\n    {next(bodies)}\n```"

    settings = Settings(population=len(HOSTILE), generations=0, workers=2)
    run = session.start(Problem.load(folder), settings, tmp_path / "run", (), FunctionLLM(reply, "hostile"))
    assert run.status == "done"
    assert run.seed.ok
    statuses = {}
    for each in run.individuals[1:]:
        text = each.genome.text("seed.py")
        name = next(name for name, (body, _) in HOSTILE.items() if body in text)
        statuses[name] = each.status
    assert len(statuses) == len(HOSTILE)
    expected = {name: status for name, (_, status) in HOSTILE.items() if status is not None}
    assert {name: statuses[name] for name in expected} == expected
    deadline = time.monotonic() + 5
    while processes_in(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert processes_in(tmp_path) == []
    assert not (tmp_path / "run" / "jobs").exists()
