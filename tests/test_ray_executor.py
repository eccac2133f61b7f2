"""Jobs on Ray: the contract of an executor, nodes that die, GPUs, and a whole run."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from guided_evolution.errors import RunError, UsageError
from guided_evolution.executors import ray as ray_module
from guided_evolution.executors.ray import RayExecutor
from guided_evolution.individual import Outcome, Status
from guided_evolution.testing import SECRET_NAME, ExecutorConformance, write_tiny_problem

ray: Any = pytest.importorskip("ray")
cluster_utils: Any = pytest.importorskip("ray.cluster_utils")

CASES = ExecutorConformance()
# A child whose arguments can be found from outside, then some seconds of work.
WORK = """\
import subprocess, sys, time
def score():
    open({log!r}, "a").write("x")
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)", {mark!r}], start_new_session=True)
    time.sleep({seconds})
    return {number}
"""
GPU = """\
import os, time
def score():
    time.sleep(2)
    seen = os.environ.get("CUDA_VISIBLE_DEVICES", "all")
    return {"quality": 1, "gpu": int(seen) if seen.isdigit() else {"": -1}.get(seen, -2)}
"""
DRIVER = """\
import sys
from pathlib import Path
from guided_evolution.evaluation import Job
from guided_evolution.executors.ray import RayExecutor
files = {"seed.py": Path(sys.argv[2]).read_text()}
executor = RayExecutor(1, Path(sys.argv[1]) / "jobs")
where = Path(sys.argv[1]) / "problem"
future = executor.submit(Job("1-evaluate", "evaluate", files, where, objectives=("quality",), sandbox="off"))
print(future.result(), flush=True)
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A cluster on this machine, with more CPUs and GPUs than there are, and a secret in its processes."""
    os.environ[SECRET_NAME] = "not-a-real-key"
    made = cluster_utils.Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 4,
            "num_gpus": 2,
            "include_dashboard": False,
            # A dead node is found out sooner than by default.
            "_system_config": {"health_check_period_ms": 1000, "health_check_failure_threshold": 3},
        },
    )
    ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
    yield made
    ray.shutdown()
    made.shutdown()
    del os.environ[SECRET_NAME]


@pytest.fixture
def executor(cluster: Any, tmp_path: Path) -> Iterator[RayExecutor]:
    made = RayExecutor(2, tmp_path / "jobs")
    yield made
    made.close()


@pytest.mark.usefixtures("cluster")
class TestRayExecutor(ExecutorConformance):
    @pytest.fixture
    def executor(self, tmp_path: Path) -> Iterator[RayExecutor]:
        made = RayExecutor(2, tmp_path / "jobs")
        yield made
        made.close()


def work(folder: Path, number: int = 1, seconds: float = 300) -> str:
    log = str(folder / f"began-{number}")
    return WORK.format(log=log, mark=f"work-of-{folder}", seconds=seconds, number=number)


def began(folder: Path, number: int) -> int:
    log = folder / f"began-{number}"
    return len(log.read_text()) if log.exists() else 0


def submit(executor: RayExecutor, folder: Path, number: int, source: str, **fields: Any) -> Future[Outcome]:
    return executor.submit(CASES.job(folder, f"{number}-evaluate", source, sandbox="off", **fields))


def test_jobs_of_a_node_that_dies_run_again_elsewhere(cluster: Any, tmp_path: Path) -> None:
    node = cluster.add_node(num_cpus=2)
    cluster.wait_for_nodes()
    executor = RayExecutor(None, tmp_path / "jobs")
    assert executor.slots == 6
    try:
        futures = [submit(executor, tmp_path, number, work(tmp_path, number, 4)) for number in range(6)]
        CASES.until(lambda: CASES.alive(f"work-of-{tmp_path}") == 6, "both nodes are full")
        cluster.remove_node(node, allow_graceful=False)
        outcomes = [future.result(timeout=60) for future in futures]
    finally:
        executor.close()
    assert [(outcome.status, outcome.reason, outcome.scores) for outcome in outcomes] == [
        (Status.OK, "", {"quality": float(number)}) for number in range(6)
    ]
    assert sorted(began(tmp_path, number) for number in range(6)) == [1, 1, 1, 1, 2, 2]
    CASES.until(lambda: CASES.alive(f"work-of-{tmp_path}") == 0, "the dead node's processes are gone")


def actor_of(mark: str) -> int:
    """The process of Ray's above the one with this mark."""
    (pid,) = [int(each.parent.name) for each in Path("/proc").glob("[0-9]*/cmdline") if mark.encode() in text(each)]
    while not text(Path(f"/proc/{pid}/cmdline")).startswith(b"ray::Bench"):
        pid = int(text(Path(f"/proc/{pid}/status")).split(b"PPid:")[1].split()[0])
    return pid


def text(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_a_job_that_is_lost_twice_is_lost(executor: RayExecutor, tmp_path: Path) -> None:
    future = submit(executor, tmp_path, 1, work(tmp_path))
    for times in (1, 2):
        CASES.until(partial(lambda count: began(tmp_path, 1) == count, times), "it runs")
        CASES.until(lambda: CASES.alive(f"work-of-{tmp_path}") == 1, "only this one runs")
        assert not future.done()
        os.kill(actor_of(f"work-of-{tmp_path}"), signal.SIGKILL)
    outcome = future.result(timeout=30)
    assert outcome.status is Status.LOST
    assert "died, twice" in outcome.reason
    assert "\n" not in outcome.reason
    CASES.until(lambda: CASES.alive(f"work-of-{tmp_path}") == 0, "nothing is left")


def test_a_killed_run_leaves_nothing_on_the_cluster(cluster: Any, tmp_path: Path) -> None:
    CASES.job(tmp_path, "1-evaluate", "")
    (tmp_path / "source.py").write_text(work(tmp_path))
    command = [sys.executable, "-c", DRIVER, str(tmp_path), str(tmp_path / "source.py")]
    with subprocess.Popen(command, env=os.environ | {"RAY_ADDRESS": cluster.address}) as driver:
        CASES.until(lambda: CASES.alive(f"work-of-{tmp_path}") == 1, "its job runs")
        driver.kill()
    CASES.until(lambda: CASES.alive(f"work-of-{tmp_path}") == 0, "its job is gone")


@pytest.mark.parametrize(("gpus", "jobs", "expected"), [(1, 2, [0, 1]), (0.5, 4, [0, 0, 1, 1]), (0, 1, [-1])])
def test_each_job_sees_its_own_gpu(cluster: Any, tmp_path: Path, gpus: float, jobs: int, expected: list[int]) -> None:
    executor = RayExecutor(jobs, tmp_path)
    try:
        futures = [submit(executor, tmp_path, number, GPU, gpus=gpus) for number in range(jobs)]
        assert sorted(future.result(timeout=60).metrics["gpu"] for future in futures) == expected
    finally:
        executor.close()


def test_a_job_that_no_node_can_run_is_named(
    executor: RayExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_module, "GROW_SECONDS", 1.0)
    with pytest.raises(RunError, match="needs 1 CPUs and 3 GPUs on one node"):
        submit(executor, tmp_path, 1, GPU, gpus=3).result(timeout=30)


def test_a_memory_limit_above_the_nodes_does_not_keep_a_job_waiting(executor: RayExecutor, tmp_path: Path) -> None:
    outcome = submit(executor, tmp_path, 1, "def score(): return 1\n", memory_mb=1 << 24).result(timeout=60)
    assert outcome.status is Status.OK


def test_it_needs_a_worker(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="1 or more"):
        RayExecutor(0, tmp_path)


def ge(*arguments: str, before: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    code = f"import sys\n{before}\nfrom guided_evolution.cli import main\nmain()"
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | variables
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)


def test_a_run_on_ray_is_the_run_at_home(tmp_path: Path) -> None:
    problem = str(write_tiny_problem(tmp_path / "tiny"))
    shown = {}
    for name in ("ray", "local"):
        run = str(tmp_path / name)
        options = ["--seed", "3", "--workers", "2", "--executor", name, "--run", run]
        done = ge("run", problem, *options)
        assert done.returncode == 0, done.stderr
        assert "raylet" not in done.stderr
        kept = ("id", "generation", "status", "scores", "operator", "parents", "block", "digest")
        individuals = json.loads(ge("show", run, "--json").stdout)["individuals"]
        front = json.loads(ge("front", run, "--json").stdout)["front"]
        shown[name] = [[{key: each[key] for key in kept} for each in rows] for rows in (individuals, front)]
    assert len(shown["local"][0]) > 8
    assert shown["ray"] == shown["local"]


def test_without_ray_it_says_what_to_install(tmp_path: Path) -> None:
    problem = str(write_tiny_problem(tmp_path / "tiny"))
    done = ge("run", problem, "--executor", "ray", "--run", str(tmp_path / "run"), before="sys.modules['ray'] = None")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "Error: --executor ray needs Ray: pip install 'guided-evolution[ray]'"
    assert not (tmp_path / "run").exists(), "a run that can't begin leaves none behind"


def test_an_address_where_nothing_listens(tmp_path: Path) -> None:
    problem = str(write_tiny_problem(tmp_path / "tiny"))
    started = time.monotonic()
    done = ge("run", problem, "--executor", "ray", "--run", str(tmp_path / "run"), RAY_ADDRESS="127.0.0.1:1")
    assert time.monotonic() - started < 20
    assert done.returncode == 1
    text = "Error: can't join the Ray cluster at RAY_ADDRESS=127.0.0.1:1: nothing answers there"
    assert done.stderr.splitlines()[-1] == text
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_an_address_that_takes_calls_and_never_answers(tmp_path: Path) -> None:
    before = "import guided_evolution.executors.ray as it\nit.JOIN_SECONDS = 4.0"
    problem = str(write_tiny_problem(tmp_path / "tiny"))
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        address = f"127.0.0.1:{deaf.getsockname()[1]}"
        options = ["--executor", "ray", "--run", str(tmp_path / "run")]
        started = time.monotonic()
        done = ge("run", problem, *options, before=before, RAY_ADDRESS=address)
    assert time.monotonic() - started < 20
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith(f"RAY_ADDRESS={address}: nothing answers there")
