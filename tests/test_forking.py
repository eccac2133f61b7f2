"""The fork server: what it starts, what it leaves, and what becomes of a job when it dies."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from guided_evolution.errors import RunError
from guided_evolution.evaluation import Job, forking, launch, sandbox
from guided_evolution.evaluation.forking import ForkServer
from guided_evolution.individual import Status
from guided_evolution.problem import Problem

EVALUATOR = """
import os, sys, time
sys.path.insert(0, os.path.dirname(__file__))

def evaluate(program, context):
    with open(program) as file:
        space = {"context": context}
        exec(file.read(), space)
    result = space["score"]()
    return result if hasattr(result, "__next__") else {"x": result, "feedback": str(space.get("SAW", ""))}
"""
SLEEPS = "import os, time\ndef score():\n    open('began', 'w').close()\n    time.sleep(1.5)\n    return 7\n"

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the fork server is watched through /proc")


@pytest.fixture
def server() -> Iterator[ForkServer]:
    made = ForkServer(("json", "tempfile"))
    yield made
    made.close()


@pytest.fixture(params=["auto", "off"])
def job(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Job]:
    problem = tmp_path / "problem"
    problem.mkdir()
    (problem / "evaluate.py").write_text(EVALUATOR)

    def make(source: str = "def score(): return 7\n", **fields: Any) -> Job:
        fields = {"objectives": ("x",), "seconds": 20.0, "memory_mb": 300, "sandbox": request.param, **fields}
        return Job("1-evaluate", "evaluate", {"seed.py": textwrap.dedent(source)}, problem, **fields)

    return make


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def until(true: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_fifty_jobs_leave_nothing(server: ForkServer, job: Callable[..., Job], tmp_path: Path) -> None:
    assert launch.run(job(), tmp_path / "job", server=server).scores == {"x": 7.0}
    pid = server.pid
    assert pid is not None
    gc.collect()  # what earlier tests left to be closed some time would be taken for ours
    handles, ours = len([*Path(f"/proc/{pid}/fd").iterdir()]), len([*Path("/proc/self/fd").iterdir()])
    for _ in range(50):
        assert launch.run(job(), tmp_path / "job", server=server).ok
    assert server.pid == pid
    assert len([*Path(f"/proc/{pid}/fd").iterdir()]) == handles
    assert len([*Path("/proc/self/fd").iterdir()]) == ours
    assert children(pid) == []
    assert not (tmp_path / "job").exists()


def test_two_jobs_run_at_once(server: ForkServer, job: Callable[..., Job], tmp_path: Path) -> None:
    assert launch.run(job(), tmp_path / "first", server=server).ok
    source = "import time\ndef score():\n    began = time.time()\n    time.sleep(1)\n    return began\n"
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(launch.run, job(source), tmp_path / name, server=server) for name in "ab"]
        first, second = (each.result(30).scores["x"] for each in jobs)
    assert abs(first - second) < 1


@pytest.mark.parametrize(
    ("source", "status", "reason"),
    [
        ("import time\ndef score(): time.sleep(60)\n", Status.TIMED_OUT, "stopped after 2 s"),
        ("def score():\n    hoard = []\n    while True: hoard.append(bytearray(8 << 20))\n", Status.OUT_OF_MEMORY, ""),
        ("import os\ndef score(): os._exit(3)\n", Status.CRASHED, "exited with status 3 without a result"),
        ("import os\ndef score(): os.kill(os.getpid(), 11)\n", Status.CRASHED, "killed by SIGSEGV"),
    ],
)
def test_limits_and_ends_are_those_of_a_fresh_process(
    server: ForkServer, job: Callable[..., Job], tmp_path: Path, source: str, status: Status, reason: str
) -> None:
    seconds = 2.0 if status is Status.TIMED_OUT else 20.0
    outcomes = [launch.run(job(source, seconds=seconds), tmp_path / "job", server=each) for each in (server, None)]
    assert [each.status for each in outcomes] == [status, status]
    if reason:
        assert [each.reason for each in outcomes] == [reason, reason]


def test_partial_results_prune(server: ForkServer, job: Callable[..., Job], tmp_path: Path) -> None:
    source = "import time\ndef score():\n    for x in range(100):\n        yield {'x': x}\n        time.sleep(0.05)\n"
    seen: list[float] = []

    def enough(scores: dict[str, float]) -> bool:
        seen.append(scores["x"])
        return scores["x"] >= 3

    outcome = launch.run(job(source), tmp_path / "job", enough, server=server)
    assert outcome.status is Status.PRUNED
    assert seen == [0, 1, 2, 3]


def test_stopping_ends_a_forked_job(server: ForkServer, job: Callable[..., Job], tmp_path: Path) -> None:
    stop = threading.Event()
    threading.Timer(0.5, stop.set).start()
    outcome = launch.run(job("import time\ndef score(): time.sleep(60)\n"), tmp_path / "job", None, stop, server)
    assert outcome.status is Status.LOST
    assert server.pid is not None
    assert children(server.pid) == []


def test_a_server_killed_in_mid_job_costs_nothing_but_time(
    server: ForkServer, job: Callable[..., Job], tmp_path: Path
) -> None:
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(launch.run, job(SLEEPS), tmp_path / "job", server=server)
        until(lambda: (tmp_path / "job" / "scratch" / "began").exists())
        lost = server.pid
        assert lost is not None
        supervisors = children(lost)
        os.kill(lost, signal.SIGKILL)
        assert future.result(60).scores == {"x": 7.0}
    assert not any(map(alive, supervisors))
    assert not (tmp_path / "job").exists()
    assert launch.run(job(), tmp_path / "job", server=server).ok
    assert server.pid != lost


def test_a_job_that_is_run_again_tells_every_partial_result_once(
    server: ForkServer, job: Callable[..., Job], tmp_path: Path
) -> None:
    source = """
        import time
        def score():
            for x in range(4):
                yield {"x": x}
                time.sleep(0.8)
        """
    seen: list[float] = []
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(
            launch.run, job(source), tmp_path / "job", lambda found: seen.append(found["x"]), None, server
        )
        until(lambda: len(seen) == 2)
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        assert future.result(60).ok
    assert seen == [0, 1, 2, 3]


def test_a_server_killed_between_jobs_is_replaced(server: ForkServer, job: Callable[..., Job], tmp_path: Path) -> None:
    pids = []
    for _ in range(3):
        assert launch.run(job(), tmp_path / "job", server=server).ok
        assert server.pid is not None
        pids.append(server.pid)
        os.kill(server.pid, signal.SIGKILL)
        until(lambda: not alive(pids[-1]))
    assert len(set(pids)) == 3


def test_a_server_that_does_not_answer_is_given_up(
    server: ForkServer, job: Callable[..., Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "GRACE", 0.5)
    assert launch.run(job(), tmp_path / "job", server=server).ok
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)
    try:
        outcome = launch.run(job(seconds=1.0), tmp_path / "job", server=server)
        assert outcome.status is Status.TIMED_OUT
    finally:
        os.kill(server.pid, signal.SIGKILL)


@pytest.mark.parametrize(("name", "value"), [("MAX_JOBS", 1), ("GROWTH", -1000.0)])
def test_a_worn_server_is_replaced_and_its_job_goes_on(
    server: ForkServer, job: Callable[..., Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: int
) -> None:
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(launch.run, job(SLEEPS), tmp_path / "long", server=server)
        until(lambda: (tmp_path / "long" / "scratch" / "began").exists())
        worn = server.pid
        assert worn is not None
        monkeypatch.setattr(forking, name, value)
        assert launch.run(job(), tmp_path / "job", server=server).ok
        assert server.pid != worn
        assert alive(worn)
        assert future.result(30).scores == {"x": 7.0}
    until(lambda: not alive(worn))


def test_an_unknown_module_is_one_line(job: Callable[..., Job], tmp_path: Path) -> None:
    server = ForkServer(("json", "no_such_module"))
    with pytest.raises(RunError) as caught:
        launch.run(job(), tmp_path / "job", server=server)
    assert str(caught.value) == (
        "preload = ['json', 'no_such_module'] in problem.toml: ModuleNotFoundError: No module named 'no_such_module'"
    )
    server.close()


def test_a_temporary_folder_is_the_jobs_own(
    job: Callable[..., Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "eager").mkdir()
    (tmp_path / "eager" / "ge_eager.py").write_text("import tempfile\ntempfile.gettempdir()\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "eager"), prepend=os.pathsep)
    server = ForkServer(("ge_eager",))
    source = """
        import os, tempfile
        def score():
            with tempfile.TemporaryDirectory() as folder:
                return int(folder.startswith(str(context.scratch)))
        """
    try:
        for name in ("a", "b"):
            assert launch.run(job(source), tmp_path / name, server=server).scores == {"x": 1.0}
    finally:
        server.close()


def test_signals_reach_a_forked_program(server: ForkServer, job: Callable[..., Job], tmp_path: Path) -> None:
    source = """
        import os, signal, time
        def score():
            with open("mine", "wb+") as mine:
                pid = os.fork()
                if pid == 0:
                    time.sleep(60)
                os.kill(pid, signal.SIGTERM)
                _, status = os.waitpid(pid, 0)
                return os.waitstatus_to_exitcode(status) + 1000 * os.fstat(mine.fileno()).st_size
        """
    assert launch.run(job(source), tmp_path / "job", server=server).scores == {"x": -float(signal.SIGTERM)}


def test_what_must_be_fresh_is_never_forked(server: ForkServer, job: Callable[..., Job], tmp_path: Path) -> None:
    kept_in = sandbox.sandbox("auto")
    plain = job()
    assert launch._may_fork(plain, kept_in)
    assert launch._may_fork(replace(plain, stage="check"), kept_in)
    for changes in ({"fresh": True}, {"device": "cuda"}, {"seconds": 301.0}, {"stage": "test"}, {"stage": "prepare"}):
        assert not launch._may_fork(replace(plain, **changes), kept_in), changes
    assert launch.run(replace(plain, fresh=True), tmp_path / "job", server=server).ok
    assert server.pid is None


def test_it_dies_with_its_controller(tmp_path: Path) -> None:
    problem = tmp_path / "problem"
    problem.mkdir()
    (problem / "evaluate.py").write_text(EVALUATOR)
    code = f"""
import sys
from pathlib import Path
from guided_evolution.evaluation import Job, launch
from guided_evolution.evaluation.forking import ForkServer
server = ForkServer(("json",))
problem, folder = Path({str(problem)!r}), Path({str(tmp_path / "job")!r})
for text in ("def score(): return 1", {SLEEPS.replace("1.5", "60")!r}):
    launch.run(Job("1", "evaluate", {{"seed.py": text}}, problem, objectives=("x",)), folder, server=server)
    print(server.pid, flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as controller:
        assert controller.stdout is not None
        pid = int(controller.stdout.readline())
        until(lambda: (tmp_path / "job" / "scratch" / "began").exists())
        below = children(pid)
        assert below
        controller.kill()
    until(lambda: not alive(pid))
    assert not any(map(alive, below))
    until(lambda: not (tmp_path / "job").exists())


@pytest.mark.slow
def test_with_torch_it_has_one_thread_no_gpu_and_the_same_outcome(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    problem = Problem.load(Path(__file__).parents[1] / "examples" / "digits")
    server = ForkServer(problem.sandbox.preload)
    job = Job("1-check", "check", problem.files, problem.folder, seconds=120, memory_mb=4096)
    try:
        forked = launch.run(job, tmp_path / "job", server=server)
        assert server.pid is not None
        status = Path(f"/proc/{server.pid}/status").read_text()
        assert "\nThreads:\t1\n" in status
        assert b"\0CUDA_VISIBLE_DEVICES=\0" in b"\0" + Path(f"/proc/{server.pid}/environ").read_bytes()
        open_files = [str(each.readlink()) for each in Path(f"/proc/{server.pid}/fd").iterdir()]
        assert not [name for name in open_files if "nvidia" in name]
    finally:
        server.close()
    fresh = launch.run(job, tmp_path / "job")
    assert forked.ok, forked
    assert (forked.status, forked.reason, forked.scores, forked.metrics, forked.feedback) == (
        *(fresh.status, fresh.reason, fresh.scores, fresh.metrics, fresh.feedback),
    )
