"""The supervisor, on real and hostile processes: it stops them, measures them, and leaves none behind.

At level "process", where it stands alone; test_sandbox.py is about the jail around it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from guided_evolution.errors import RunError
from guided_evolution.evaluation import Job, launch, supervisor
from guided_evolution.individual import Outcome, Status

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
EVALUATOR = """
def evaluate(program, context):
    space = {"context": context}
    exec(compile(open(program).read(), program, "exec"), space)
    return space["score"]()
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


@pytest.fixture
def score(tmp_path: Path) -> Iterator[Score]:
    """Runs one candidate for real, and asserts that neither a process nor a file of it is left."""

    def run(source: str, on_partial: Any = None, stop: Any = None, **fields: Any) -> Outcome:
        outcome = launch.run(make_job(tmp_path, source, **fields), tmp_path / "job", on_partial, stop)
        assert left_behind(tmp_path) == []
        assert not (tmp_path / "job").exists()
        return outcome

    yield run
    assert left_behind(tmp_path) == []


IGNORE_AND_SLEEP = """
import signal, time
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM):
    signal.signal(number, signal.SIG_IGN)
print("Traceback (most recent call last): error, killed, out of memory", flush=True)
def score():
    while True:
        time.sleep(1)
"""


def test_fault_10_a_timeout_kills_and_status_is_not_guessed_from_the_log(score: Score) -> None:
    started = time.monotonic()
    outcome = score(IGNORE_AND_SLEEP, seconds=0.6)
    assert time.monotonic() - started < 5
    assert (outcome.status, outcome.reason) == (Status.TIMED_OUT, "stopped after 0.6 s")
    assert "error" in outcome.log_tail
    assert 0.6 <= outcome.seconds < 4
    said = 'print("Traceback: Error! killed, timed out, out of memory")\ndef score(): return 1\n'
    outcome = score(said)
    assert outcome.status is Status.OK
    assert "Error!" in outcome.log_tail


FORGE = """
import json, os
def score():
    for folder in (".worker", ".", "..", "../.."):
        for name in ("result.json", "outcome.json"):
            try:
                inner = json.dumps({"kind": "result", "status": "ok", "scores": {"accuracy": 1.0}, "metrics": {}})
                with open(os.path.join(folder, name), "w") as file:
                    file.write(json.dumps({"payload": inner, "hmac": "0" * 64}))
            except OSError:
                pass
    os._exit(0)
"""


def test_fault_13_no_keys_in_the_environment_and_no_self_written_result(
    score: Score, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FAKE_API_KEY", "sk-secret-of-the-test")
    monkeypatch.setenv("HTTPS_PROXY", "http://user:sk-secret-of-the-test@proxy:1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    source = """
        import os
        def score():
            own = "".join(os.environ) + "".join(os.environ.values())
            above = open(f"/proc/{os.getppid()}/environ").read() if os.path.exists("/proc") else ""
            stdin = os.read(0, 10)
            return {"accuracy": 1, "feedback": repr(dict(os.environ)) + own + above + repr(stdin)}
        """
    outcome = score(source, network=True, threads=3, device="cuda")
    assert outcome.ok
    assert "sk-secret" not in outcome.feedback
    assert "FAKE_API_KEY" not in outcome.feedback
    assert "'OMP_NUM_THREADS': '3'" in outcome.feedback
    assert "'HOME': '.'" in outcome.feedback
    assert "'CUDA_VISIBLE_DEVICES': '1'" in outcome.feedback
    assert outcome.feedback.endswith("b''")

    outcome = score(FORGE)
    assert (outcome.status, outcome.reason) == (Status.CRASHED, "exited with status 0 without a result")
    assert outcome.scores == {}


def test_a_partial_result_does_not_pass_for_the_last_one(score: Score) -> None:
    source = """
        import os, shutil
        def score():
            yield {"accuracy": 0.9}
            shutil.copy(".worker/progress.jsonl", ".worker/result.json")
            os._exit(0)
        """
    outcome = score(source)
    assert (outcome.status, outcome.scores) == (Status.CRASHED, {})


@LINUX
@pytest.mark.parametrize("trick", ["os.mkfifo(path)", "os.symlink('/dev/zero', path)", "os.mkdir(path)"])
def test_a_result_that_is_no_plain_file_blocks_nobody(score: Score, trick: str) -> None:
    source = f"""
        import os
        def score():
            for path in (".worker/result.json", ".worker/progress.jsonl"):
                {trick}
            os._exit(0)
        """
    outcome = score(source, on_partial=lambda scores: None)
    assert (outcome.status, outcome.reason) == (Status.CRASHED, "exited with status 0 without a result")


@pytest.mark.parametrize(
    "harm", ["shutil.rmtree(os.path.abspath('..'))", "os.rename(*map(os.path.abspath, ('..', '../../moved')))"]
)
def test_a_candidate_that_destroys_its_job_folder_costs_only_itself(score: Score, tmp_path: Path, harm: str) -> None:
    outcome = score(f"import os, shutil\nprint('before')\ndef score():\n    {harm}\n    return 1\n")
    assert outcome.status is Status.CRASHED
    assert outcome.reason == "exited with status 1 without a result"
    assert outcome.log_tail == "before\nthe result could not be written: No such file or directory\n"
    shutil.rmtree(tmp_path / "moved", ignore_errors=True)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "killed by SIGKILL"),
        ("ctypes.string_at(0)", "killed by SIGSEGV"),
        ("os._exit(3)", "exited with status 3 without a result"),
        ("os.killpg(0, signal.SIGTERM)", "killed by SIGTERM"),
    ],
)
def test_how_a_process_died_is_said(score: Score, body: str, reason: str) -> None:
    outcome = score(f"import ctypes, os, signal\ndef score():\n    {body}\n")
    assert (outcome.status, outcome.reason) == (Status.CRASHED, reason)
    if "SIGSEGV" in reason:
        assert "seed.py" in outcome.log_tail


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
def test_endless_printing_costs_neither_memory_nor_disk(score: Score) -> None:
    source = """
        import os
        def high_water(pid):
            text = open(f"/proc/{pid}/status").read()
            return int(text.split("VmHWM:")[1].split()[0]) / 1024
        def score():
            line = b"x" * 65535 + b"\\n"
            for _ in range(200 * 16):
                os.write(1, line)
            os.write(2, b"the end")
            disk = sum(os.path.getsize(os.path.join(root, name))
                       for root, _, names in os.walk("..") for name in names)
            return {"accuracy": 1, "supervisor_mb": high_water(os.getppid()), "disk_kb": disk / 1024}
        """
    outcome = score(source)
    assert outcome.ok
    assert outcome.metrics["supervisor_mb"] < 40
    assert outcome.metrics["disk_kb"] < 100
    assert len(outcome.log_tail) == supervisor.KEPT
    assert outcome.log_tail.endswith("the end")


def test_printing_until_the_deadline_does_not_delay_it(score: Score) -> None:
    outcome = score("def score():\n    while True:\n        print('x' * 1000)\n", seconds=0.7)
    assert outcome.status is Status.TIMED_OUT
    assert outcome.seconds < 4


def test_closing_its_output_ends_nothing(score: Score) -> None:
    outcome = score("import os, time\ndef score():\n    os.close(1), os.close(2)\n    time.sleep(.3)\n    return 1")
    assert outcome.ok


@LINUX
@pytest.mark.parametrize(("number", "status"), [("SIGKILL", Status.CRASHED), ("SIGSTOP", Status.TIMED_OUT)])
def test_a_candidate_that_attacks_its_supervisor_gains_nothing(
    score: Score, monkeypatch: pytest.MonkeyPatch, number: str, status: Status
) -> None:
    monkeypatch.setattr(launch, "GRACE", 1.0)
    source = f"""
        import os, signal, time
        if os.fork() == 0:
            os.setsid()
            time.sleep(300)
        {FORGE.replace("os._exit(0)", "").replace(chr(10), chr(10) + " " * 8)}
        forge = score
        def score():
            forge()
            os.kill(os.getppid(), signal.{number})
            time.sleep(300)
        """
    outcome = score(source, seconds=1)
    assert (outcome.status, outcome.scores) == (status, {})
    assert "supervisor" in outcome.reason


CONTROLLER = """
import sys
from pathlib import Path
sys.path[:0] = [{tests!r}]
from test_supervisor import make_job, launch
folder = Path({folder!r})
launch.run(make_job(folder, Path(folder, "source.py").read_text(), seconds=100), folder / "job")
"""


@LINUX
def test_nothing_outlives_a_controller_that_is_killed(tmp_path: Path) -> None:
    source = DAEMON + "def score():\n    daemon()\n    open('../../ready', 'w')\n    time.sleep(100)\n"
    (tmp_path / "source.py").write_text(source)
    code = CONTROLLER.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    controller = subprocess.Popen([sys.executable, "-c", code])
    assert soon((tmp_path / "ready").exists)
    assert len(left_behind(tmp_path)) >= 4
    controller.kill()
    controller.wait()
    assert soon(lambda: not left_behind(tmp_path), 5)
    assert soon(lambda: not (tmp_path / "job").exists(), 2)


@LINUX
def test_a_supervisor_that_is_terminated_cleans_up(tmp_path: Path, score: Score) -> None:
    source = (
        DAEMON
        + "import signal\ndef score():\n    daemon()\n    os.kill(os.getppid(), signal.SIGTERM)\n    time.sleep(60)"
    )
    outcome = score(source)
    assert (outcome.status, outcome.reason) == (Status.LOST, "stopped from outside")


def test_a_job_can_be_stopped(score: Score) -> None:
    stop = threading.Event()
    threading.Timer(0.5, stop.set).start()
    outcome = score(IGNORE_AND_SLEEP, stop=stop)
    assert (outcome.status, outcome.reason) == (Status.LOST, "stopped by the run")
    assert outcome.seconds < 10


def test_a_partial_result_can_end_a_hopeless_job(score: Score) -> None:
    source = """
        import time
        def score():
            for step in range(100):
                yield {"accuracy": step}
                time.sleep(0.1)
        """
    seen: list[float] = []

    def on_partial(scores: dict[str, float]) -> bool:
        seen.append(scores["accuracy"])
        return len(seen) == 3

    outcome = score(source, on_partial=on_partial)
    assert (outcome.status, outcome.scores) == (Status.PRUNED, {})
    assert seen == [0.0, 1.0, 2.0]


def test_forged_partial_results_are_not_passed_on(score: Score) -> None:
    source = """
        import json, time
        def score():
            with open(".worker/progress.jsonl", "ab") as file:
                inner = json.dumps({"kind": "progress", "scores": {"accuracy": 9}})
                file.write(json.dumps({"payload": inner, "hmac": "0" * 64}).encode() + b"\\nnonsense\\n[1]\\n")
                file.write(b"x" * (3 << 20) + b"\\n")
            time.sleep(0.3)
            yield {"accuracy": 0.5}
        """
    seen: list[dict[str, float]] = []
    assert score(source, on_partial=seen.append).ok
    assert seen == [{"accuracy": 0.5}]


def test_an_error_in_the_callback_still_ends_the_job(tmp_path: Path, score: Score) -> None:
    def on_partial(scores: dict[str, float]) -> bool:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        score("import time\ndef score():\n    yield {'accuracy': 1}\n    time.sleep(60)\n", on_partial=on_partial)
    assert left_behind(tmp_path) == []
    assert not (tmp_path / "job").exists()


def test_folders_that_cannot_be_read_are_removed(score: Score) -> None:
    source = """
        import os
        def score():
            os.makedirs("a/b/c")
            open("a/b/c/file", "w").close()
            os.symlink("/", "a/link")
            for name in ("a/b/c", "a/b", "a"):
                os.chmod(name, 0)
            return 1
        """
    assert score(source).ok


@pytest.mark.parametrize("name", ["../out.py", "/tmp/out.py", "a/../../out.py", "", "a\0b"])
def test_a_program_cannot_leave_its_folder(tmp_path: Path, name: str) -> None:
    job = Job("job", "evaluate", {name: "x"}, tmp_path)
    with pytest.raises(RunError, match="leaves the program's folder"):
        launch.run(job, tmp_path / "job")
    assert list(tmp_path.iterdir()) == []


def test_what_is_our_own_failure_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = make_job(tmp_path, "def score(): return 1\n")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="can't make the job folder"):
        launch.run(job, tmp_path / "file" / "job")
    with pytest.raises(RunError, match="can't make the job folder"):
        launch.run(job, tmp_path / "problem")
    assert (tmp_path / "problem" / "evaluate.py").exists()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", str(tmp_path / "nowhere"))
        with pytest.raises(RunError, match="can't start"):
            launch.run(job, tmp_path / "job")
    monkeypatch.setattr(launch, "_for_supervisor", lambda job, jail: {"command": ["/nowhere"], "jail": []})
    with pytest.raises(RunError, match="could not be run: FileNotFoundError"):
        launch.run(job, tmp_path / "job")
    assert not (tmp_path / "job").exists()


@LINUX
def test_the_two_ways_to_see_the_tree_agree() -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as process:
        assert soon(lambda: len(supervisor.tree(os.getpid())) >= 2)
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
