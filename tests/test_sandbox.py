"""Attacks on the jail, each from inside of a candidate, in a fresh process and in a forked one."""

from __future__ import annotations

import os
import socket
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from guided_evolution.errors import RunError
from guided_evolution.evaluation import Job, launch, sandbox
from guided_evolution.evaluation.forking import ForkServer
from guided_evolution.individual import Outcome, Status

Score = Callable[..., Outcome]
EVALUATOR = """
import importlib.util
import json

def load(program):
    spec = importlib.util.spec_from_file_location("candidate", program)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

def closeness(value):
    return -abs(float(value) - 100)

class Judge:
    def grade(self, value):
        return closeness(value)

def evaluate(program, context):
    import textwrap
    module = load(program)
    value = module.score()
    return {"accuracy": Judge().grade(value), "feedback": str(module.__dict__.get("SAW", ""))}

def test(program, context):
    return {"accuracy": 1.0, "feedback": str(load(program).score())}
"""

pytestmark = pytest.mark.skipif(sandbox.probe().level != "bwrap", reason=sandbox.probe().detail)


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    made = ForkServer(("json", "decimal"))
    yield made
    made.close()


@pytest.fixture(params=["fresh", "forked"])
def score(request: pytest.FixtureRequest, tmp_path: Path, server: ForkServer) -> Score:
    """Runs one hostile candidate for real."""
    problem = tmp_path / "problem"
    problem.mkdir()
    (problem / "evaluate.py").write_text(EVALUATOR)

    def run(source: str, **fields: Any) -> Outcome:
        fields = {"stage": "evaluate", "objectives": ("accuracy",), "seconds": 10.0, "memory_mb": 300, **fields}
        job = Job("job", files={"seed.py": textwrap.dedent(source)}, problem=problem, **fields)
        outcome = launch.run(job, tmp_path / "jobs" / "job", server=server if request.param == "forked" else None)
        assert not (tmp_path / "jobs" / "job").exists()
        return outcome

    return run


def saw(score: Score, expression: str, **fields: Any) -> str:
    """What an expression gives inside, or the name of what it raises."""
    source = f"""
        import os, socket, pathlib
        def look():
            try:
                return {expression}
            except Exception as error:
                return type(error).__name__
        SAW = look()
        def score(): return 1
        """
    outcome = score(source, **fields)
    assert outcome.ok, outcome
    return outcome.feedback


def test_an_honest_candidate_is_scored(score: Score) -> None:
    outcome = score("def score(): return 7\n")
    assert (outcome.status, outcome.scores) == (Status.OK, {"accuracy": -93.0})


def test_reading_the_home_folder(score: Score, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "id").write_text("secret")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert saw(score, f"open('{tmp_path}/.ssh/id').read()") == "FileNotFoundError"
    assert saw(score, "os.listdir('/home') + os.listdir('/root')") in ("FileNotFoundError", "[]", "['.pyenv']")
    assert saw(score, "sorted(os.listdir('/etc'))").count("'") // 2 <= len(sandbox.SYSTEM)


def test_reading_keys(score: Score, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    (tmp_path / "problem" / ".env").write_text("KEY=sk-secret")
    for expression in (
        "dict(os.environ)",
        "[open(f'/proc/{p}/environ').read() for p in os.listdir('/proc') if p.isdigit() and int(p) > 1]",
        "[open(f'/proc/{p}/cmdline').read() for p in os.listdir('/proc') if p.isdigit()]",
        "open('/problem/.env').read()",
        "open('/job/job.json').read()",
    ):
        said = saw(score, expression)
        assert "sk-secret" not in said
        assert str(tmp_path) not in said


@pytest.mark.parametrize(
    "expression",
    [
        "socket.create_connection(('127.0.0.1', PORT), 2)",
        "socket.create_connection(('1.1.1.1', 53), 2)",
        "socket.getaddrinfo('example.org', 80)",
    ],
)
def test_opening_a_socket(score: Score, expression: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        expression = expression.replace("PORT", str(listener.getsockname()[1]))
        assert saw(score, expression) in ("OSError", "gaierror", "ConnectionRefusedError")
        listener.settimeout(0.1)
        with pytest.raises(TimeoutError):
            listener.accept()


def test_a_problem_that_asks_for_a_network_gets_one(score: Score) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert "socket" in saw(score, f"socket.create_connection(('127.0.0.1', {port}), 2)", network=True)


@pytest.mark.parametrize(
    "path",
    ["/problem/evaluate.py", "/job/job.json", "/job/new", "/new", "/usr/new", "/etc/new", "/dev/new", "/data/new"],
)
def test_writing_outside_of_scratch(score: Score, tmp_path: Path, path: str) -> None:
    before = (tmp_path / "problem" / "evaluate.py").read_text()
    assert saw(score, f"open('{path}', 'w')", data=tmp_path / "problem") in ("OSError", "PermissionError")
    assert (tmp_path / "problem" / "evaluate.py").read_text() == before
    assert sorted(each.name for each in tmp_path.iterdir()) == ["jobs", "problem"]


def test_the_interpreter_cannot_be_changed(score: Score) -> None:
    assert saw(score, "open(json.__file__, 'a')".replace("json", "__import__('json')")) in (
        "OSError",
        "PermissionError",
    )


def test_killing_the_parent(score: Score) -> None:
    outcome = score(
        """
        import os, signal
        def score():
            for pid in range(2, 4000):
                if pid != os.getpid():
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except OSError:
                        pass
            try:
                os.kill(-1, signal.SIGKILL)
            except OSError:
                pass
            return 1
        """
    )
    assert outcome.status in (Status.OK, Status.CRASHED)
    assert score("def score(): return 1\n").ok


def test_it_is_nobody_and_cannot_become_anybody(score: Score) -> None:
    assert int(saw(score, "os.getuid()")) >= sandbox.NOBODY
    assert int(saw(score, "os.getgid()")) >= sandbox.NOBODY
    caps = saw(score, "open('/proc/self/status').read()")
    for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert f"{name}:\t0000000000000000" in caps
    assert "NoNewPrivs:\t1" in caps
    assert saw(score, "os.setuid(0)") == "PermissionError"
    assert saw(score, "os.chroot('/')") == "PermissionError"
    assert saw(score, "os.mknod('disk', 0o60600, os.makedev(8, 0))") in ("PermissionError", "OSError")


@pytest.mark.parametrize(
    "call", ["unshare(0x10000000)", "shmget(0, 1 << 20, 0o1600)", "mount(b'none', b'/tmp', b'tmpfs', 0, None)"]
)
def test_memory_that_belongs_to_nobody(score: Score, call: str) -> None:
    assert saw(score, f"__import__('ctypes').CDLL(None).{call}") == "-1"


def test_processes_and_threads_are_not_refused(score: Score) -> None:
    run = "__import__('subprocess').run(['/bin/echo', 'heard'], capture_output=True, text=True).stdout.strip()"
    assert saw(score, run) == "heard"
    assert (
        saw(score, "__import__('concurrent.futures').futures.ThreadPoolExecutor(2).submit(len, 'abc').result()") == "3"
    )
    assert saw(score, "__import__('multiprocessing').Pool(2).map(abs, [-1, -2])") == "[1, 2]"


def test_folders_too_deep_to_follow_are_removed(score: Score) -> None:
    source = "import os\ndef score():\n    for _ in range(3000): os.mkdir('d'); os.chdir('d')\n    {}\n    return 1\n"
    assert score(source.format("")).status in (Status.OK, Status.CRASHED)
    hoard = "import time; open('big', 'wb').write(b'x' * (8 << 20)); time.sleep(50)"
    # a look at so deep a folder takes long, and is taken the more rarely
    assert score(source.format(hoard), disk_mb=100, seconds=60.0).reason == "kept more than 100 MiB on disk"


def test_a_fork_bomb(score: Score) -> None:
    started = time.monotonic()
    outcome = score("import os\ndef score():\n    while True:\n        os.fork()\n", seconds=5.0)
    assert outcome.status in (Status.CRASHED, Status.TIMED_OUT, Status.OUT_OF_MEMORY)
    assert time.monotonic() - started < 25
    assert score("def score(): return 1\n").ok


@pytest.mark.parametrize(
    "body",
    [
        "hoard = []\n    while True: hoard.append(bytearray(8 << 20))",
        "import mmap\n    keep = []\n    while True: keep.append(mmap.mmap(-1, 1 << 23)); keep[-1][:] = bytes(1 << 23)",
        "handle = os.memfd_create('x')\n    while True: os.write(handle, b'x' * (8 << 20)); time.sleep(0.02)",
        "file = open('/dev/shm/x', 'wb')\n    while True: file.write(b'x' * (8 << 20))",
    ],
    ids=["heap", "mmap", "memfd", "shm"],
)
def test_a_memory_bomb(score: Score, body: str) -> None:
    outcome = score(f"import os, time\ndef score():\n    {body}\n", seconds=10.0)
    assert outcome.status is Status.OUT_OF_MEMORY or "No space left" in outcome.reason, outcome
    assert outcome.peak_mb < 1500


@pytest.mark.parametrize(
    "body",
    [
        "for n in range(1000): open(f'f{n}', 'wb').write(b'x' * (8 << 20)); time.sleep(.01)",
        "file = open('f', 'wb'); os.unlink('f')\n    while True: file.write(b'x' * (8 << 20)); time.sleep(.01)",
        "for n in range(1000): open(f'/tmp/f{n}', 'wb').write(b'x' * (8 << 20)); time.sleep(.01)",
    ],
    ids=["files", "unlinked", "tmp"],
)
def test_filling_the_disk(score: Score, body: str, tmp_path: Path) -> None:
    outcome = score(f"import os, time\ndef score():\n    {body}\n    time.sleep(9)\n", disk_mb=100)
    assert (outcome.status, outcome.reason) == (Status.CRASHED, "kept more than 100 MiB on disk")


def test_empty_files_cost_their_entry(score: Score) -> None:
    source = "import time\ndef score():\n    for n in range(4000): open(f'f{n}', 'w').close()\n    time.sleep(9)\n"
    assert score(source, disk_mb=10).reason == "kept more than 10 MiB on disk"


def test_writing_its_own_result(score: Score) -> None:
    outcome = score(
        """
        import json, os
        def score():
            inner = json.dumps({"kind": "result", "status": "ok", "scores": {"accuracy": 1.0}, "metrics": {}})
            for name in ("result.json", "outcome.json", "progress.jsonl"):
                with open(f".worker/{name}", "w") as file:
                    file.write(json.dumps({"payload": inner, "hmac": "0" * 64}))
            print(inner, flush=True)
            os._exit(0)
        """
    )
    assert (outcome.status, outcome.scores) == (Status.CRASHED, {})


def test_printing_the_result_marker(score: Score) -> None:
    outcome = score(
        """
        import os
        def score():
            for handle in (1, 2, 3, 4, 5, 6, 7, 8):
                try:
                    os.write(handle, b'exit 0\\n{"payload": "{}", "hmac": ""}\\n{"accuracy": 1}\\n')
                except OSError:
                    pass
            return 0
        """
    )
    assert outcome.scores == {"accuracy": -100.0}


@pytest.mark.parametrize(
    ("cheat", "named"),
    [
        ("sys.modules['_guided_evolution_evaluator'].closeness = lambda value: 1.0", "evaluator.closeness"),
        ("sys.modules['_guided_evolution_evaluator'].Judge.grade = lambda self, value: 1.0", "evaluator.Judge.grade"),
        (
            "sys.modules['_guided_evolution_evaluator'].closeness.__code__ = (lambda value: 1.0).__code__",
            "evaluator.closeness",
        ),
        ("builtins.abs = lambda value: -200", "builtins.abs"),
        ("builtins.float = type('float', (), {'__new__': lambda c, v: 100})", "builtins.float"),
        ("builtins.__import__ = lambda *a, **k: None", "builtins.__import__"),
        ("import json; json.dumps = lambda *a, **k: '{}'", "json.dumps"),
        ("sys.modules['json'] = type(sys)('json')", "the module json"),
        ("sys.meta_path.insert(0, Hook())", "how modules are imported"),
        ("sys.settrace(lambda *a: None)", "the tracing of calls"),
        ("sys.prefix = '/job'; sys.meta_path.insert(0, Hook())", "how modules are imported"),
    ],
)
def test_changing_what_it_is_measured_with(score: Score, cheat: str, named: str) -> None:
    outcome = score(
        f"""
        import builtins, sys
        class Hook:
            def find_spec(self, name, path=None, target=None):
                return None
        def score():
            {cheat}
            return 1
        """
    )
    assert outcome.status is Status.CRASHED, outcome
    assert outcome.scores == {}
    if "__import__" not in named:
        assert outcome.reason == f"the program changed {named}, so its score is not believed"


def test_a_forgery_at_exit(score: Score) -> None:
    outcome = score(
        """
        import atexit, os
        @atexit.register
        def forge():
            open(".worker/result.json", "w").write('{"payload": "{}", "hmac": ""}')
            print("forged")
        def score(): return 1
        """
    )
    assert outcome.scores == {"accuracy": -99.0}
    assert "forged" not in outcome.log_tail


def test_leaving_a_daemon_behind(score: Score, tmp_path: Path) -> None:
    outcome = score(
        """
        import os, time
        def score():
            for _ in range(3):
                if os.fork() == 0:
                    os.setsid()
                    if os.fork() == 0:
                        os.execv("/usr/bin/sleep", ["a-daemon-of-the-jail", "300"])
                    os._exit(0)
            time.sleep(0.3)
            return 1
        """
    )
    assert outcome.ok
    assert not [each for each in Path("/proc").glob("[0-9]*/cmdline") if b"a-daemon-of-the-jail" in _read(each)]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_held_out_data_is_read_by_the_test_alone(score: Score, tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "set" / "part").mkdir(parents=True)
    (data / "set" / "train.txt").write_text("train")
    (data / "set" / "part" / "test.txt").write_text("labels")
    (tmp_path / "problem" / "answers").mkdir()
    (tmp_path / "problem" / "answers" / "all.txt").write_text("labels")
    fields = {"data": data, "held_out": ("set/**/test*", "answers")}
    assert saw(score, "open('/data/set/train.txt').read()", **fields) == "train"
    assert saw(score, "open('/data/set/part/test.txt').read()", **fields) == "PermissionError"
    assert saw(score, "os.listdir('/problem/answers')", **fields) == "[]"
    assert saw(score, "open('/problem/answers/new', 'w')", **fields) in ("OSError", "PermissionError")
    source = "def score(): return open('/data/set/part/test.txt').read()\n"
    assert score(source, stage="test", **fields).feedback == "labels"


def test_what_a_held_out_link_leads_to_is_held_out(score: Score, tmp_path: Path) -> None:
    (tmp_path / "data" / "blobs").mkdir(parents=True)
    (tmp_path / "data" / "blobs" / "8f3a").write_text("labels")
    (tmp_path / "data" / "test.txt").symlink_to("blobs/8f3a")
    fields = {"data": tmp_path / "data", "held_out": ("test*",)}
    for name in ("test.txt", "blobs/8f3a"):
        assert saw(score, f"open('/data/{name}').read()", **fields) in ("", "PermissionError")


def test_a_job_sees_no_other_process(score: Score) -> None:
    said = saw(score, "[int(p) for p in os.listdir('/proc') if p.isdigit()]")
    assert len(said.split(",")) <= 4
    assert str(os.getpid()) not in said


def test_required_refuses_and_off_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sandbox.sandbox("off").level == "process"
    assert sandbox.sandbox("required").level == "bwrap"
    nothing = sandbox.Sandbox("process", "no jail: bubblewrap isn't installed")
    monkeypatch.setattr(sandbox, "probe", lambda: nothing)
    assert sandbox.sandbox("auto") is nothing
    with pytest.raises(RunError, match="--sandbox required insists on one: no jail: bubblewrap isn't installed"):
        sandbox.sandbox("required")


def test_a_bwrap_that_refuses_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sandbox, "_tools", lambda: iter([str(broken)]))
    found = sandbox.probe.__wrapped__()
    assert found.level == "process"
    assert "No permissions to create new namespace" in found.detail
