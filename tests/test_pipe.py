"""A job over two pipes: what comes out, and what ends it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from guided_evolution.evaluation import pipe
from guided_evolution.testing import ExecutorConformance

CASES = ExecutorConformance()
HANG = """\
import subprocess, sys, time
def score():
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)", {mark!r}], start_new_session=True)
    yield 1
    time.sleep(300)
"""


def start(folder: Path, source: str, **fields: Any) -> subprocess.Popen[str]:
    job = CASES.job(folder, "1-evaluate", source, **fields)
    command = [sys.executable, "-P", "-m", pipe.__name__]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    process.stdin.write(json.dumps(job.to_json()) + "\n")
    process.stdin.flush()
    return process


def lines(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    assert process.stdout is not None
    return [json.loads(line) for line in process.stdout]


def test_partial_results_and_last_the_outcome(tmp_path: Path) -> None:
    with start(tmp_path, "def score():\n    yield 1\n    yield 2\n") as process:
        *partial, last = lines(process)
    assert partial == [{"partial": {"quality": 1.0}}, {"partial": {"quality": 2.0}}]
    assert last["outcome"]["status"] == "ok"
    assert last["outcome"]["scores"] == {"quality": 2.0}
    assert process.returncode == 0


def test_the_end_of_its_input_stops_the_job(tmp_path: Path) -> None:
    mark = f"piped-of-{tmp_path}"
    with start(tmp_path, HANG.format(mark=mark)) as process:
        CASES.until(lambda: CASES.alive(mark) == 1, "the job runs")
        assert process.stdin is not None
        process.stdin.close()
        assert lines(process)[-1]["outcome"]["status"] == "lost"
    assert process.returncode == 0
    assert CASES.alive(mark) == 0


def test_nothing_is_left_when_it_is_killed(tmp_path: Path) -> None:
    mark = f"killed-of-{tmp_path}"
    with start(tmp_path, HANG.format(mark=mark)) as process:
        CASES.until(lambda: CASES.alive(mark) == 1, "the job runs")
        process.kill()
    CASES.until(lambda: CASES.alive(mark) == 0, "its processes are gone")


def test_a_failure_of_our_own_is_named(tmp_path: Path) -> None:
    job = CASES.job(tmp_path, "1-evaluate", "").to_json() | {"files": {"../seed.py": ""}}
    done = subprocess.run(
        [sys.executable, "-P", "-m", pipe.__name__], input=json.dumps(job) + "\n", capture_output=True, text=True
    )
    assert "leaves the program's folder" in json.loads(done.stdout)["error"]
