"""The supervisor, on real and hostile processes: it stops them, measures them, and leaves none behind.

At level "process", where it stands alone; test_sandbox.py is about the jail around it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from guided_evolution.errors import RunError
from guided_evolution.evaluation import Job, launch, supervisor
from guided_evolution.individual import Status
from supervised import DAEMON, LINUX, Score, left_behind, make_job, scorer, soon


@pytest.fixture
def score(tmp_path: Path) -> Iterator[Score]:
    yield from scorer(tmp_path)


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
from guided_evolution.evaluation import launch
from supervised import make_job
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
