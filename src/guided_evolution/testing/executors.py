"""What every executor has to do, as test cases that the author of an executor runs over it."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

from guided_evolution.errors import RunError
from guided_evolution.evaluation import Job, sandbox
from guided_evolution.executors import Executor
from guided_evolution.individual import Outcome, Status

SECRET_NAME = "GUIDED_EVOLUTION_CONFORMANCE_API_KEY"

_EVALUATOR = """\
import importlib.util


def load(program):
    spec = importlib.util.spec_from_file_location("candidate", program)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check(program):
    load(program)


def evaluate(program):
    return load(program).score()
"""

_HANG = """\
import subprocess, sys, time
def score():
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)", "MARK"], start_new_session=True)
    time.sleep(300)
"""

# Forked twice and in a session of its own: neither a parent nor a process group leads to it.
_DAEMON = """\
import os, subprocess, sys, time
def score():
    if os.fork() == 0:
        os.setsid()
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)", "MARK"])
        os._exit(0)
    time.sleep(0.5)
    return 1
"""

_FORGER = """\
import json, os, pathlib
def score():
    payload = json.dumps({"kind": "result", "status": "ok", "scores": {"quality": 1e9}})
    line = json.dumps({"payload": payload, "hmac": "0" * 64})
    for folder in {pathlib.Path.cwd(), pathlib.Path.cwd() / ".worker", pathlib.Path.cwd().parent}:
        for name in ("result.json", "outcome.json", "progress.jsonl", "partial.jsonl"):
            try:
                (folder / name).write_text(line + "\\n")
            except OSError:
                pass
    os._exit(0)
"""

_TRY_ALL = """
def score():
    done = []
    for name, attempt in TRIES.items():
        try:
            attempt()
        except OSError:
            continue
        done.append(name)
    return {"quality": 1, "feedback": " ".join(done)}
"""

_HOSTILE: dict[str, tuple[str, Status]] = {
    "raises": ("def score():\n    return 1 / 0\n", Status.CRASHED),
    "hangs": ("import time\ndef score():\n    time.sleep(300)\n", Status.TIMED_OUT),
    "hoards": ("def score():\n    hoard = []\n    while True:\n        hoard.append(bytearray(16 << 20))\n",
               Status.OUT_OF_MEMORY),
    "not-a-number": ("def score():\n    return float('nan')\n", Status.CRASHED),
    "leaves": ("import os\ndef score():\n    os._exit(0)\n", Status.CRASHED),
    "prints": ("def score():\n    while True:\n        print('x' * 65536)\n", Status.TIMED_OUT),
    "forges": (_FORGER, Status.CRASHED),
}  # fmt: skip


class ExecutorConformance:
    """The contract of `Executor`, case by case; pytest runs it once a subclass says how to make an executor.

    The subclass is named Test… and has a fixture `executor` that gives a fresh executor for each test, with two
    slots or more, and closes it afterwards:

        class TestMyExecutor(ExecutorConformance):
            @pytest.fixture
            def executor(self, tmp_path):
                made = MyExecutor(workers=2, folder=tmp_path / "jobs")
                yield made
                made.close()

    The jobs have to run on this machine, as the cases look for processes that are left. Where a service that
    lives longer than one test starts the jobs, set an environment variable `SECRET_NAME` before that service
    starts. `pytest.register_assert_rewrite("guided_evolution.testing")` in `conftest.py` makes failures readable.

    Attributes:
        prunes: Whether `on_partial` returning True stops the job.
        patience: Seconds that the executor may take beyond what a job itself takes, e.g. until a queue is looked at.
    """

    prunes = True
    patience = 30.0

    def job(self, folder: Path, name: str, source: str, **fields: Any) -> Job:
        """A job that calls the program's `score()`, or only loads the program where its stage is "check"."""
        problem = folder / "problem"
        problem.mkdir(exist_ok=True)
        (problem / "evaluate.py").write_text(_EVALUATOR, encoding="utf-8")
        fields = {"stage": "evaluate", "objectives": ("quality",), "seconds": 60.0, "memory_mb": 300, **fields}
        return Job(name=name, files={"seed.py": source}, problem=problem, **fields)

    def alive(self, mark: str) -> int:
        """How many processes of this machine have `mark` as an argument."""
        found = 0
        for process in Path("/proc").glob("[0-9]*"):
            try:
                found += mark.encode() in (process / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
        return found

    def outcome(self, future: Future[Outcome], seconds: float = 0.0) -> Outcome:
        """The outcome of a job that takes `seconds`, waited for with patience."""
        return future.result(timeout=seconds + self.patience)

    def until(self, happened: Callable[[], bool], what: str) -> None:
        """Waits until something happened, and fails when it doesn't within `patience`."""
        deadline = time.monotonic() + self.patience
        while not happened():
            assert time.monotonic() < deadline, f"{what}: still not so after {self.patience:g} s"
            time.sleep(0.05)

    def test_it_says_how_many_jobs_run_at_once(self, executor: Executor) -> None:
        assert isinstance(executor.slots, int)
        assert executor.slots >= 1

    def test_each_job_returns_its_own_result(self, executor: Executor, tmp_path: Path) -> None:
        source = "def score():\n    print('I am', {0})\n    return {{'quality': {0}, 'depth': 2, 'feedback': 'f{0}'}}\n"
        names = ["same-name", "same-name", *(f"{number}-evaluate" for number in range(2, 6))]
        futures = [
            executor.submit(self.job(tmp_path, name, source.format(number))) for number, name in enumerate(names)
        ]
        for number, future in enumerate(futures):
            outcome = self.outcome(future)
            assert (outcome.status, outcome.reason) == (Status.OK, "")
            assert outcome.scores == {"quality": float(number)}
            assert outcome.metrics == {"depth": 2.0}
            assert outcome.feedback == f"f{number}"
            assert outcome.log_tail == f"I am {number}\n"
            assert 0 < outcome.seconds < self.patience
            assert 0 < outcome.peak_mb < 300

    def test_a_hostile_program_costs_itself_alone(self, executor: Executor, tmp_path: Path) -> None:
        futures = {
            name: executor.submit(self.job(tmp_path, name, source, seconds=3.0))
            for name, (source, _) in _HOSTILE.items()
        }
        futures["well-behaved"] = executor.submit(self.job(tmp_path, "well-behaved", "def score():\n    return 1\n"))
        found = {name: self.outcome(future, 10.0) for name, future in futures.items()}
        expected = {name: status for name, (_, status) in _HOSTILE.items()} | {"well-behaved": Status.OK}
        assert {name: outcome.status for name, outcome in found.items()} == expected
        assert found["raises"].reason == "ZeroDivisionError: division by zero (seed.py:2 in score)"
        assert found["hangs"].reason == "stopped after 3 s"
        assert 3 <= found["hangs"].seconds < 8
        assert found["not-a-number"].reason == 'objective "quality" is nan'
        assert 0 < len(found["prints"].log_tail) < 1 << 20
        assert all(not outcome.scores for name, outcome in found.items() if name != "well-behaved")

    def test_a_daemon_does_not_outlive_its_job(self, executor: Executor, tmp_path: Path) -> None:
        mark = f"daemon-of-{tmp_path}"
        future = executor.submit(self.job(tmp_path, "1-evaluate", _DAEMON.replace("MARK", mark)))
        self.until(lambda: self.alive(mark) == 1 or future.done(), "the daemon has started")
        assert self.outcome(future).status is Status.OK
        assert self.alive(mark) == 0

    def test_partial_results_arrive_in_order_while_the_job_runs(self, executor: Executor, tmp_path: Path) -> None:
        source = (
            "import time\ndef score():\n    for step in range(4):\n        yield {'quality': step}\n"
            "        time.sleep(1.5 if step == 0 else 0)\n"
        )
        seen: list[tuple[float, bool]] = []
        future: Future[Outcome] | None = None

        def on_partial(scores: dict[str, float]) -> None:
            seen.append((scores["quality"], future is not None and future.done()))

        future = executor.submit(self.job(tmp_path, "1-evaluate", source), on_partial)
        self.until(lambda: bool(seen), "the first partial result has arrived")
        assert seen == [(0.0, False)]
        assert self.outcome(future).scores == {"quality": 3.0}
        assert [score for score, _ in seen] == [0.0, 1.0, 2.0, 3.0]
        assert not any(done for _, done in seen)

    def test_a_partial_result_can_prune_its_job(self, executor: Executor, tmp_path: Path) -> None:
        mark = f"pruned-of-{tmp_path}"
        source = _HANG.replace("MARK", mark).replace("    time.sleep(300)\n", "    yield 0\n    time.sleep(300)\n")
        future = executor.submit(self.job(tmp_path, "1-evaluate", source, seconds=4.0), lambda scores: True)
        outcome = self.outcome(future, 4.0)
        assert outcome.status is (Status.PRUNED if self.prunes else Status.TIMED_OUT)
        assert not outcome.scores
        assert self.alive(mark) == 0

    def test_a_check_does_not_wait_behind_long_evaluations(self, executor: Executor, tmp_path: Path) -> None:
        mark = f"long-of-{tmp_path}"
        source = _HANG.replace("MARK", mark)
        count = executor.slots + 1
        long = [executor.submit(self.job(tmp_path, f"{number}-evaluate", source)) for number in range(count)]
        self.until(lambda: self.alive(mark) >= executor.slots, "every slot is taken")
        check = executor.submit(self.job(tmp_path, "9-check", "", stage="check"))
        assert self.outcome(check).status is Status.OK
        assert not any(future.done() for future in long)
        assert self.alive(mark) == executor.slots

    def test_closing_stops_what_runs_and_gives_up_what_waits(self, executor: Executor, tmp_path: Path) -> None:
        mark = f"closed-of-{tmp_path}"
        source = _HANG.replace("MARK", mark)
        count = executor.slots + 2
        futures = [executor.submit(self.job(tmp_path, f"{number}-evaluate", source)) for number in range(count)]
        self.until(lambda: self.alive(mark) >= executor.slots, "every slot is taken")
        started = time.monotonic()
        executor.close()
        assert time.monotonic() - started < self.patience
        assert self.alive(mark) == 0
        outcomes = [future.result(timeout=0) for future in futures]
        assert {outcome.status for outcome in outcomes} == {Status.LOST}
        assert all(outcome.reason for outcome in outcomes)

    def test_a_closed_executor_takes_nothing(self, executor: Executor, tmp_path: Path) -> None:
        executor.close()
        executor.close()
        try:
            executor.submit(self.job(tmp_path, "1-evaluate", "def score():\n    return 1\n"))
        except RunError as error:
            assert "closed" in str(error)
        else:
            raise AssertionError("a closed executor took a job")

    def test_a_failure_of_our_own_is_the_futures_exception(self, executor: Executor, tmp_path: Path) -> None:
        job = self.job(tmp_path, "1-evaluate", "")
        future = executor.submit(Job("1-evaluate", "evaluate", {"../seed.py": ""}, job.problem))
        wait([future], timeout=self.patience)
        assert isinstance(future.exception(timeout=0), RunError)

    def test_where_a_jail_works_a_program_is_in_it(self, executor: Executor, tmp_path: Path) -> None:
        """No network, nothing of the file system, nowhere to write, no other process, and nobody's rights."""
        if sandbox.probe().level != "bwrap":
            return
        (tmp_path / "secret").write_text("secret", encoding="utf-8")
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            tries = {
                "reads": f"open({str(tmp_path / 'secret')!r}).read()",
                "writes": f"open({str(tmp_path / 'problem' / 'evaluate.py')!r}, 'w')",
                "connects": f"socket.create_connection(('127.0.0.1', {port}), 2)",
                "kills": f"os.kill({os.getpid()}, 0)",
                "rises": "os.setuid(0)",
            }
            cases = "".join(f"    {name!r}: lambda: {code},\n" for name, code in tries.items())
            source = f"import os, socket\nTRIES = {{\n{cases}}}\n{_TRY_ALL}"
            outcome = executor.submit(self.job(tmp_path, "1-evaluate", source)).result(60 + self.patience)
        assert (outcome.status, outcome.scores) == (Status.OK, {"quality": 1.0}), outcome
        assert outcome.feedback == "", f"the jail let it: {outcome.feedback}"

    def test_a_program_sees_no_secret_of_the_run(self, executor: Executor, tmp_path: Path) -> None:
        before = os.environ.get(SECRET_NAME)
        os.environ[SECRET_NAME] = "not-a-real-key"
        try:
            source = (
                "import os\ndef score():\n"
                f"    return {'{'}'quality': 1, 'seen': int({SECRET_NAME!r} in os.environ){'}'}\n"
            )
            outcome = self.outcome(executor.submit(self.job(tmp_path, "1-evaluate", source)))
        finally:
            if before is None:
                del os.environ[SECRET_NAME]
        assert outcome.metrics == {"seen": 0.0}
