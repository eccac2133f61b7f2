"""The processes below a supervisor: all are found, ended and counted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from guided_evolution.evaluation import supervisor
from guided_evolution.individual import Status
from supervised import DAEMON, LINUX, Score, left_behind, scorer, soon


@pytest.fixture
def score(tmp_path: Path) -> Iterator[Score]:
    yield from scorer(tmp_path)


@LINUX
@pytest.mark.parametrize(
    ("end", "status"),
    [("return 1", Status.OK), ("time.sleep(60)", Status.TIMED_OUT), ("os.abort()", Status.CRASHED)],
)
def test_a_detached_daemon_does_not_outlive_its_job(score: Score, end: str, status: Status) -> None:
    outcome = score(DAEMON + f"def score():\n    daemon()\n    {end}\n", seconds=1.5)
    assert outcome.status is status


@LINUX
def test_the_daemon_of_these_tests_would_live_on_without_a_supervisor(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", DAEMON + "daemon()"], cwd=tmp_path, check=True)
    found = left_behind(tmp_path)
    for line in found:
        os.kill(int(line.split(":")[0]), signal.SIGKILL)
    assert len(found) == 1
    assert soon(lambda: not left_behind(tmp_path))


@LINUX
def test_children_that_sleep_are_gone(score: Score) -> None:
    source = """
        import os, subprocess, sys, time
        def score():
            for _ in range(5):
                if os.fork() == 0:
                    time.sleep(300)
            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], start_new_session=True)
            return 1
        """
    assert score(source).ok


@LINUX
def test_processes_that_replace_each_other_are_gone(score: Score) -> None:
    source = """
        import os, signal, time
        def comet():
            while True:
                if os.fork():
                    os._exit(0)
                os.setsid()
        def pair():
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
            other = 0
            while True:
                try:
                    os.kill(other, 0) if other else 1 / 0
                except (ProcessLookupError, ZeroDivisionError):
                    other = os.fork() or 0
                    if not other:
                        os.setsid()
                        time.sleep(300)
        def score():
            for start in (comet, pair, pair):
                if os.fork() == 0:
                    start()
            while True:
                time.sleep(1)
        """
    outcome = score(source, seconds=1)
    assert outcome.status is Status.TIMED_OUT
    assert "could not be killed" not in outcome.log_tail


@LINUX
@pytest.mark.parametrize("forks", [0, 3])
def test_the_memory_of_the_whole_tree_is_limited(score: Score, forks: int) -> None:
    # Slow enough to be seen at the limit, and each process alone stays under it when there are four.
    source = f"""
        import os, time
        def score():
            for _ in range({forks}):
                if os.fork() == 0:
                    break
            keep = []
            while len(keep) < {8 if forks else 100}:
                keep.append(os.urandom(10 << 20))
                time.sleep(0.01)
            time.sleep(30)
        """
    outcome = score(source, memory_mb=300)
    assert (outcome.status, outcome.reason) == (Status.OUT_OF_MEMORY, "used more than 300 MiB")
    assert 300 < outcome.peak_mb < 900
    assert outcome.seconds < 15


@LINUX
def test_pages_that_forked_children_share_count_once(score: Score) -> None:
    source = """
        import os, time
        keep = os.urandom(100 << 20)
        def score():
            children = [os.fork() or time.sleep(1.5) or os._exit(0) for _ in range(4)]
            for child in children:
                os.waitpid(child, 0)
            return 1
        """
    outcome = score(source, memory_mb=300)
    assert outcome.status is Status.OK
    assert 100 < outcome.peak_mb < 300


@LINUX
def test_a_process_that_ended_while_it_was_looked_at_holds_nothing() -> None:
    with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE) as process:
        assert 0 < supervisor._proportional(process.pid, 1 << 40) < 1 << 40
        assert process.stdin is not None
        process.stdin.close()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert supervisor._proportional(process.pid, 1 << 40) == 0, "dead, and not yet collected"
        process.wait()
        assert supervisor._proportional(process.pid, 1 << 40) == 0, "gone"


@LINUX
def test_the_two_ways_to_see_the_tree_agree() -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as process:
        assert soon(lambda: len(supervisor.tree(process.pid)) == 1)
        assert soon(lambda: supervisor.tree(process.pid).keys() == supervisor._tree_from_ps(process.pid).keys())
        both = supervisor.tree(process.pid), supervisor._tree_from_ps(process.pid)
        assert process.stdin is not None
        process.stdin.close()
    assert len(both[0]) == 1
    assert process.pid not in both[0]
    (pid,) = both[0]
    assert both[0][pid] == pytest.approx(both[1][pid], rel=0.5)


@pytest.mark.skipif(sys.platform != "linux", reason="shared pages are told apart on Linux")
def test_shared_pages_are_counted_often_only_where_it_matters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, looks = [100.0], [0]

    def proportional(pid: int, resident: int) -> int:
        looks[0] += 1
        return resident // 2

    def spawn(job: object, scratch: Path, nonce: str) -> tuple[int, int]:
        return os.getpid(), os.open(os.devnull, os.O_RDONLY)

    monkeypatch.setattr(supervisor.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(supervisor, "_proportional", proportional)
    monkeypatch.setattr(supervisor.signal, "set_wakeup_fd", lambda *_, **__: -1)
    monkeypatch.setattr(supervisor.signal, "signal", lambda *_: None)
    monkeypatch.setattr(supervisor.os, "set_blocking", lambda *_: None)
    sizes = {1: 100 << 20, 2: 100 << 20}
    monkeypatch.setattr(supervisor, "tree", lambda root: sizes)
    watch = supervisor.Watch({"memory_mb": 250, "disk_mb": 100}, tmp_path, "secret", spawn)

    def look(ticks: int) -> list[str]:
        found = []
        for _ in range(ticks):
            clock[0] += supervisor.TICK
            found.append(watch._measure())
        return found

    assert set(look(100)) == {""}
    assert watch.peak == 100 << 20
    assert looks[0] <= 2 * 16, "each look takes as long as ten without"
    sizes |= {1: 300 << 20, 2: 100 << 20}  # more than the limit, but half of it is shared
    before = looks[0]
    assert set(look(10)) == {""}
    assert looks[0] - before == 2 * 10
    sizes[1] = 500 << 20
    assert look(1) == ["memory"]
