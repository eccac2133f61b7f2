"""Hostile candidates inside a whole run: each costs itself, and nothing is left behind."""

from __future__ import annotations

import itertools
import os
import re
import tempfile
import time
from pathlib import Path

import pytest

from guided_evolution import session
from guided_evolution.evaluation import sandbox
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


RECORD = {"lock", "run.sqlite", "run.sqlite-shm", "run.sqlite-wal"}
# What 200 candidates go through in turn; each costs at most a second.
QUICK = {
    **{name: HOSTILE[name] for name in ("forks a daemon", "gives NaN", "gives nothing", "leaves without a result")},
    "prints a lot": ("print('x' * (1 << 22))\n    return 1", Status.OK),
    "deletes its folder": HOSTILE["deletes its folder"],
    "allocates too much at once": ("return len(bytearray(64 << 30))", Status.OUT_OF_MEMORY),
    "is killed by a signal": ("import os\n    os.kill(os.getpid(), 11)", Status.CRASHED),
    "patches what measures it": ("import builtins\n    builtins.float = lambda value: 7.0\n    return 1", None),
    "writes its own result": (
        "import os\n    open('.worker/result.json', 'w').write('{}')\n    os._exit(0)",
        Status.CRASHED,
    ),
    "leaves sleeping children": (
        "import os, time\n    for _ in range(5):\n        if os.fork() == 0:\n            os.setsid()\n"
        "            time.sleep(600)\n    return 1",
        Status.OK,
    ),
    "nests folders deeply": (
        "import os\n    for _ in range(1500):\n        os.mkdir('d')\n        os.chdir('d')\n    return 1",
        None,
    ),
    "locks its folders": ("import os\n    os.makedirs('a/b/c')\n    os.chmod('a', 0)\n    return 1", None),
    "fills shared memory": (
        "import os\n    open('/dev/shm/ge-hostile', 'wb').write(b'x' * (8 << 20))\n    return 1",
        None,
    ),
    "kills whoever it can": ("import os\n    os.kill(-1, 9)\n    return 1", None),
    "recurses": ("import sys\n    sys.setrecursionlimit(10**9)\n    f = lambda: f()\n    f()", None),
    "exits": ("raise SystemExit(0)", Status.CRASHED),
}


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20


def temporary() -> set[str]:
    """What lies in the temporary folders, but for what pytest and other people's work put there."""
    places = (Path(tempfile.gettempdir()), Path("/dev/shm"), Path("/var/tmp"))
    return {str(path) for place in places for path in place.glob("*") if path.name.startswith(("ge-", "tmp"))}


@pytest.mark.skipif(sandbox.probe().level != "bwrap", reason=sandbox.probe().detail)
def test_two_hundred_leave_nothing_behind(tmp_path: Path) -> None:
    folder = write_tiny_problem(tmp_path / "hostile")
    evaluate = (folder / "evaluate.py").read_text()
    (folder / "evaluate.py").write_text(re.sub(r"def check\(program\):\n    .*\n", "", evaluate))
    toml = (folder / "problem.toml").read_text().replace("seconds = 20", "seconds = 10").replace("512", "300")
    (folder / "problem.toml").write_text(toml)
    names, given = itertools.cycle(QUICK), itertools.count()

    def reply(prompt: str) -> str:
        name = re.search(r"`def (\w+)\(\)`", prompt)
        assert name is not None
        kind = next(names)
        return f"```python\ndef {name[1]}():\n    # {next(given)}: {kind}\n    {QUICK[kind][0]}\n```"

    settings = Settings(population=200, generations=0, workers=3, sandbox="required")
    mounts, before, memory = Path("/proc/self/mounts").read_text(), temporary(), resident()
    run = session.start(Problem.load(folder), settings, tmp_path / "run", (), FunctionLLM(reply, "hostile"))
    grown = resident() - memory
    assert run.status == "done"
    assert run.seed.ok
    assert len(run.individuals) == 201
    for each in run.individuals[1:]:
        found = re.search(r"# \d+: (.*)", each.genome.text("seed.py"))
        assert found is not None
        expected = QUICK[found[1]][1]
        assert expected in (None, each.status), (found[1], each.outcome)
    assert processes_in(tmp_path) == []
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    assert [child for child in children if "forkserver" in Path(f"/proc/{child}/cmdline").read_text()] == []
    assert {path.name for path in (tmp_path / "run").iterdir()} <= RECORD
    assert Path("/proc/self/mounts").read_text() == mounts
    assert temporary() <= before
    assert grown < 30
