"""The Slurm executor, against a Slurm that runs for these tests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import pytest

import slurm_cluster
from guided_evolution.doctor import findings
from guided_evolution.errors import RunError
from guided_evolution.evaluation import Job
from guided_evolution.executors import slurm as slurm_executor
from guided_evolution.executors.slurm import SlurmExecutor
from guided_evolution.individual import Status
from guided_evolution.run import Run
from guided_evolution.testing import ExecutorConformance, write_tiny_problem
from slurm_cluster import Cluster

GE = Path(sys.executable).parent / "ge"
KEY = "sk-ge-test-0123456789"
EVALUATOR = """
def evaluate(program):
    space = {}
    exec(open(program).read(), space)
    return space["score"]()
"""
SLEEP = "import time\ndef score():\n    time.sleep({})\n    return 1\n"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    missing = slurm_cluster.missing()
    if missing:
        reason = f"no Slurm to test with: {', '.join(missing)} missing; .ci/packages lists what to install"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with slurm_cluster.cluster() as made:
        yield made


@pytest.fixture(autouse=True)
def slurm(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leads Slurm's commands to the cluster, and makes sure that a test leaves no job behind."""
    monkeypatch.setenv("SLURM_CONF", str(cluster.configuration))
    yield
    try:
        until(lambda: not cluster.jobs("pending,running"), "no job is left", 20)
    finally:
        cluster.clear()


def make(folder: Path, sbatch: str = "", workers: int = 4) -> SlurmExecutor:
    return SlurmExecutor(workers, folder / "jobs", sbatch)


@pytest.fixture
def executor(tmp_path: Path) -> Iterator[SlurmExecutor]:
    made = make(tmp_path)
    yield made
    made.close()
    assert not (tmp_path / "jobs").exists() or list((tmp_path / "jobs").iterdir()) == []


def job(folder: Path, name: str, source: str, **fields: Any) -> Job:
    problem = folder / "problem"
    problem.mkdir(exist_ok=True)
    (problem / "evaluate.py").write_text(EVALUATOR)
    fields = {"stage": "evaluate", "objectives": ("score",), "seconds": 60.0, "memory_mb": 400, **fields}
    return Job(name=name, files={"seed.py": source}, problem=problem, **fields)


def until(happened: Callable[[], object], what: str, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, f"{what}: still not so after {seconds:g} s"
        time.sleep(0.1)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asks Slurm every second, and believes it at once that a job left no file."""
    monkeypatch.setattr(slurm_executor, "FRESH_SECONDS", 1.0)
    monkeypatch.setattr(slurm_executor, "SHARED_SECONDS", 1.0)


class TestConformance(ExecutorConformance):
    @pytest.fixture
    def executor(self, tmp_path: Path) -> Iterator[SlurmExecutor]:
        made = make(tmp_path, workers=2)
        yield made
        made.close()
        assert not (tmp_path / "jobs").exists() or list((tmp_path / "jobs").iterdir()) == []


def test_two_gpus_for_two_jobs(executor: SlurmExecutor, tmp_path: Path, cluster: Cluster) -> None:
    source = "import os, time\ndef score():\n    time.sleep(3)\n    return int(os.environ['CUDA_VISIBLE_DEVICES'])\n"
    futures = [executor.submit(job(tmp_path, f"{i}-evaluate", source, gpus=share)) for i, share in ((1, 1), (2, 0.5))]
    none = executor.submit(
        job(
            tmp_path,
            "3-evaluate",
            "import os\ndef score():\n    return len(os.environ.get('CUDA_VISIBLE_DEVICES', ''))\n",
        )
    )
    until(lambda: list(cluster.jobs("running").values()).count("RUNNING") >= 2, "both run at once")
    assert sorted(future.result(30).scores["score"] for future in futures) == [0.0, 1.0]
    assert none.result(30).scores == {"score": 0.0}


def test_the_users_options_win(tmp_path: Path, cluster: Cluster) -> None:
    executor = make(tmp_path, "--gpus=2 --mem-per-cpu=300 -c 2 --time 7 --job-name='my own'")
    future = executor.submit(job(tmp_path, "1-evaluate", SLEEP.format(60), gpus=1))
    until(lambda: cluster.jobs("running"), "it runs")
    (number,) = cluster.jobs("running")
    shown = cluster.command("scontrol", "show", "job", str(number))
    executor.close()
    assert future.result(0).status is Status.LOST
    assert "JobName=my own" in shown
    assert "TimeLimit=00:07:00" in shown
    assert "NumCPUs=2" in shown
    assert "MinMemoryCPU=300M" in shown
    assert "TresPerJob=gres:gpu:2" in shown
    assert "TresPerNode" not in shown


def test_what_a_job_asks_for(executor: SlurmExecutor, tmp_path: Path, cluster: Cluster) -> None:
    future = executor.submit(job(tmp_path, "1-evaluate", SLEEP.format(60), threads=3, gpus=2, seconds=200.0))
    until(lambda: cluster.jobs("running"), "it runs")
    (number,) = cluster.jobs("running")
    shown = cluster.command("scontrol", "show", "job", str(number))
    executor.close()
    assert future.result(0).status is Status.LOST
    for part in ("JobName=ge-1-evaluate", "TimeLimit=00:06:00", "CPUs/Task=3", "MinMemoryNode=912M", "gres:gpu:2"):
        assert part in shown, shown


def test_no_key_travels_to_a_job(
    executor: SlurmExecutor, tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:{KEY}@proxy:1")
    executor.submit(job(tmp_path, "1-evaluate", SLEEP.format(60)))
    mark = str(tmp_path / "jobs").encode()

    def nodes() -> list[Path]:
        return [each.parent for each in Path("/proc").glob("[0-9]*/cmdline") if mark in each.read_bytes()]

    until(nodes, "the node's process runs")
    until(lambda: cluster.jobs("running"), "Slurm says so too")
    (number,) = cluster.jobs("running")
    texts = [
        cluster.command("scontrol", "show", "job", "--details", str(number)),
        cluster.command("scontrol", "write", "batch_script", str(number), "-"),
        *((process / "environ").read_text() for process in nodes()),
        *(path.read_text() for path in tmp_path.rglob("jobs/*/*")),
    ]
    assert any("PATH=" in text for text in texts)
    assert all(KEY not in text for text in texts)


def test_what_slurm_ends_has_the_name_of_what_ended_it(tmp_path: Path, cluster: Cluster) -> None:
    executor = make(tmp_path, "--mem=250")
    time_limit = executor.submit(job(tmp_path, "1-evaluate", SLEEP.format(200), seconds=300.0))
    until(lambda: cluster.jobs("running"), "it runs")
    (number,) = cluster.jobs("running")
    # Limits are whole minutes; the end of a job that runs can be set to the second.
    soon = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() + 1))
    cluster.command("scontrol", "update", f"JobId={number}", f"EndTime={soon}")
    hoard = "import time\ndef score():\n    hoard = b'x' * (350 << 20)\n    time.sleep(60)\n    return len(hoard)\n"
    memory_limit = executor.submit(job(tmp_path, "2-evaluate", hoard))
    outcome = memory_limit.result(60)
    assert (outcome.status, outcome.reason) == (
        Status.OUT_OF_MEMORY,
        f"Slurm job {number + 1} reached its memory limit",
    )
    cancelled = executor.submit(job(tmp_path, "3-evaluate", SLEEP.format(60)))
    until(lambda: number + 2 in cluster.jobs("running"), "it runs")
    cluster.command("scancel", str(number + 2))
    outcome = cancelled.result(60)
    assert outcome.status is Status.LOST
    assert f"Slurm job {number + 2} ended as CANCELLED" in outcome.reason
    outcome = time_limit.result(60)
    assert (outcome.status, outcome.reason) == (Status.TIMED_OUT, f"Slurm job {number} reached its time limit")
    executor.close()


@pytest.mark.usefixtures("hasty")
def test_a_job_whose_node_failed_runs_once_more(executor: SlurmExecutor, tmp_path: Path, cluster: Cluster) -> None:
    mark = tmp_path / "jobs"
    future = executor.submit(job(tmp_path, "1-evaluate", SLEEP.format(3)))
    until(lambda: list(mark.glob("*/partial.jsonl")), "the node works")
    (number,) = cluster.jobs("running")
    cluster.fail_node()
    assert cluster.jobs()[number] == "NODE_FAIL"
    assert future.result(60).scores == {"score": 1.0}
    assert max(cluster.jobs()) == number + 1


@pytest.mark.usefixtures("hasty")
def test_a_controller_of_slurm_that_is_away_is_waited_for(
    executor: SlurmExecutor, tmp_path: Path, cluster: Cluster
) -> None:
    first = executor.submit(job(tmp_path, "1-evaluate", SLEEP.format(1)))
    until(lambda: cluster.jobs("running"), "it runs")
    cluster.stop_controller()
    try:
        second = executor.submit(job(tmp_path, "2-evaluate", SLEEP.format(0)))
        assert first.result(30).ok
        time.sleep(10)  # sbatch asks for about nine seconds before it gives up
        assert not second.done()
    finally:
        cluster.start_controller()
    assert second.result(60).ok


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--partition=nope", "sbatch refused 1-evaluate: .*Invalid partition name specified"),
        ("--gres=gpu:9", "sbatch refused 1-evaluate: .*Requested node configuration is not available"),
        ("--partition=short --time=60", "Slurm will never start job .*PartitionTimeLimit"),
    ],
)
def test_a_refusal_is_our_failure_in_slurms_words(tmp_path: Path, options: str, said: str) -> None:
    executor = make(tmp_path, options)
    future = executor.submit(job(tmp_path, "1-evaluate", SLEEP.format(0)))
    wait([future], timeout=30)
    error = future.exception(0)
    assert isinstance(error, RunError)
    executor.close()
    with pytest.raises(RunError, match=said):
        raise error
    assert list((tmp_path / "jobs").iterdir()) == []


def abandon(executor: SlurmExecutor) -> None:
    """Ends an executor's threads as a kill would: nothing is cancelled and nothing removed."""
    executor._cancel = executor._release = lambda *_, **__: True  # type: ignore[assignment, method-assign]
    executor._stop.set()
    executor._pool.shutdown()


def test_what_a_killed_session_left_is_taken_up_or_ended(tmp_path: Path, cluster: Cluster) -> None:
    jobs = [job(tmp_path, f"{number}-evaluate", SLEEP.format(seconds)) for number, seconds in enumerate((1, 5, 60, 60))]
    first = make(tmp_path)
    for each in jobs:
        first.submit(each)
    until(lambda: len(cluster.jobs("running")) == 4, "all run")
    numbers = set(cluster.jobs("running"))
    abandon(first)
    until(lambda: len(cluster.jobs("running")) == 3, "the first has ended while nobody watched")
    for number in (0, 1, 3):  # killed between Slurm's answer and the note of it
        (next((tmp_path / "jobs").glob(f"{number}-evaluate-*")) / "slurm-ids").unlink()

    second = make(tmp_path)
    futures = [second.submit(jobs[number]) for number in (0, 1)]
    changed = second.submit(job(tmp_path, "2-evaluate", SLEEP.format(0)))
    assert all(future.result(30).scores == {"score": 1.0} for future in (*futures, changed))
    until(lambda: len(cluster.jobs("running")) == 1, "the job of the changed task was ended")
    assert max(cluster.jobs()) == max(numbers) + 1, "only the changed job was handed in anew"
    second.close()
    assert not cluster.jobs("running,pending"), "what nobody asked for was ended"
    assert list((tmp_path / "jobs").iterdir()) == []


def test_other_options_for_sbatch_end_what_was_left(tmp_path: Path, cluster: Cluster) -> None:
    same = job(tmp_path, "1-evaluate", SLEEP.format(60))
    first = make(tmp_path)
    first.submit(same)
    until(lambda: cluster.jobs("running"), "it runs")
    (number,) = cluster.jobs("running")
    abandon(first)
    second = make(tmp_path, "--comment=other")
    second.submit(same)
    until(lambda: number + 1 in cluster.jobs("running"), "it runs anew")
    assert cluster.jobs()[number] == "CANCELLED"
    second.close()
    assert list((tmp_path / "jobs").iterdir()) == []


def test_more_jobs_than_slots(executor: SlurmExecutor, tmp_path: Path, cluster: Cluster) -> None:
    before, started = max(cluster.jobs(), default=0), time.monotonic()
    futures = [executor.submit(job(tmp_path, f"{i}-evaluate", f"def score(): return {i}\n")) for i in range(12)]
    assert time.monotonic() - started < 1
    most = 0
    while not all(future.done() for future in futures):
        most = max(most, len(cluster.jobs("pending,running")))
        time.sleep(0.1)
    assert [future.result().scores["score"] for future in futures] == [float(i) for i in range(12)]
    assert max(cluster.jobs()) == before + 12
    assert most <= executor.slots + 4, "jobs that have just ended may still be listed"


def test_the_same_job_again_in_one_session_runs_again(executor: SlurmExecutor, tmp_path: Path) -> None:
    source = "import time\ndef score():\n    return time.time()\n"
    scores = [executor.submit(job(tmp_path, "1-evaluate", source)).result(30).scores["score"] for _ in range(2)]
    both = [executor.submit(job(tmp_path, "1-evaluate", source)) for _ in range(2)]
    scores += [future.result(30).scores["score"] for future in both]
    assert len(set(scores)) == 4


@pytest.mark.usefixtures("hasty")
def test_a_job_that_cannot_begin_says_why(
    executor: SlurmExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    outcome = executor.submit(job(tmp_path, "1-evaluate", SLEEP.format(0))).result(30)
    assert outcome.status is Status.LOST
    assert "ended as FAILED: " in outcome.reason
    assert "no-python: not found" in outcome.reason


# -- the command line ---------------------------------------------------------------------------------------------


def ge(*arguments: object, **fields: Any) -> subprocess.CompletedProcess[str]:
    result = subprocess.run([str(GE), *map(str, arguments)], capture_output=True, text=True, timeout=120, **fields)
    assert "Traceback" not in result.stderr
    return result


def begin(problem: Path, run: Path, *more: str) -> subprocess.Popen[str]:
    command = [str(GE), "run", str(problem), "--run", str(run), "--executor", "slurm", *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def slow_problem(folder: Path, seconds: float) -> Path:
    problem = write_tiny_problem(folder)
    text = (problem / "evaluate.py").read_text()
    slow = text.replace(
        "    values = numbers(program)\n", f"    import time; time.sleep({seconds})\n    values = numbers(program)\n", 1
    )
    assert slow != text
    (problem / "evaluate.py").write_text(slow)
    return problem


def facts(run: Path) -> list[object]:
    return [(each.id, each.genome.digest, each.status, dict(each.scores), each.twin) for each in Run(run).individuals]


def test_a_run_on_slurm_gives_what_a_run_at_home_gives(tmp_path: Path) -> None:
    problem = write_tiny_problem(tmp_path / "tiny")
    for executor in ("local", "slurm"):
        size = ("--seed", 3, "--generations", 1)
        result = ge("run", problem, "--run", tmp_path / executor, "--executor", executor, *size)
        assert result.returncode == 0, result.stderr
    assert facts(tmp_path / "slurm") == facts(tmp_path / "local")
    fronts = [[each.id for each in Run(tmp_path / executor).front] for executor in ("local", "slurm")]
    assert fronts[0] == fronts[1]
    assert not (tmp_path / "slurm" / "jobs").exists()


def test_a_run_and_its_tests_get_the_gpus_of_the_problem(tmp_path: Path, cluster: Cluster) -> None:
    problem = write_tiny_problem(tmp_path / "tiny")
    toml = (problem / "problem.toml").read_text()
    (problem / "problem.toml").write_text(toml.replace("[limits]\n", "[limits]\ngpus = 2\n"))
    text = (problem / "evaluate.py").read_text()
    count = "import os\n    count = len(os.environ['CUDA_VISIBLE_DEVICES'].split(','))\n    return {'gpus': count, "
    (problem / "evaluate.py").write_text(text.replace("return {", count))
    sizes = ("--population", 1, "--generations", 0)
    result = ge("run", problem, "--run", tmp_path / "run", "--executor", "slurm", *sizes)
    assert result.returncode == 0, result.stderr
    outcome = Run(tmp_path / "run").seed.outcome
    assert outcome is not None
    assert outcome.metrics["gpus"] == 2
    before = max(cluster.jobs())
    result = ge("test", tmp_path / "run", 0, "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["tests"]["0"]["scores"]["gpus"] == 2
    assert max(cluster.jobs()) == before + 1
    assert not (tmp_path / "run" / "test-jobs").exists()


def test_a_run_that_was_killed_finds_its_jobs_again(tmp_path: Path, cluster: Cluster) -> None:
    problem = slow_problem(tmp_path / "tiny", 3)
    before = max(cluster.jobs(), default=0)
    process = begin(
        problem, tmp_path / "run", "--population=3", "--generations=1", "--workers=4", "--seed=5", "--no-verify"
    )
    until(lambda: len(cluster.jobs("running")) >= 2, "children are scored")
    process.kill()
    process.communicate()
    running = set(cluster.jobs("running"))
    assert len(running) >= 2
    result = ge("resume", tmp_path / "run")
    assert result.returncode == 0, result.stderr
    states = {number: state for number, state in cluster.jobs().items() if number > before}
    assert {states[number] for number in running} == {"COMPLETED"}
    evaluated = {each.genome.digest for each in Run(tmp_path / "run").individuals if each.ok}
    assert len(states) == len(evaluated)
    assert set(states.values()) == {"COMPLETED"}


def test_a_second_interrupt_cancels_the_jobs(tmp_path: Path, cluster: Cluster) -> None:
    process = begin(slow_problem(tmp_path / "tiny", 15), tmp_path / "run")
    until(lambda: cluster.jobs("running"), "the seed is scored")
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert not cluster.jobs("running,pending")
    assert not (tmp_path / "run" / "jobs").exists()


def test_a_run_that_sbatch_refused_goes_on_with_other_options(tmp_path: Path) -> None:
    problem = write_tiny_problem(tmp_path / "tiny")
    options = ("--executor", "slurm", "--sbatch", "--partition=nope", "--population", 2)
    result = ge("run", problem, "--run", tmp_path / "run", *options)
    assert result.returncode == 1
    assert "Invalid partition name specified" in result.stderr
    result = ge("resume", tmp_path / "run", "--generations", 1, "--sbatch", "--partition=short --time=5")
    assert result.returncode == 0, result.stderr


def test_the_doctor_names_slurm(cluster: Cluster) -> None:
    version = cluster.command("sbatch", "--version").split()[-1]
    assert f"slurm {version}" in findings()["executors"]
