"""Run one job from beginning to end: write its folder, start its supervisor, read its outcome.

The chain is executor, `run`, `supervisor.py`, `worker.py`; each is a process or a thread of its own, and
what passes between them are files and one secret. `sandbox` puts the worker into a jail; a fork server, where
there is one, takes the place of the two fresh processes.

A job folder holds `watch.json` for the supervisor, `job.json` for the worker, and `scratch`, the one folder that it
writes: its working directory and home, with the program in `scratch/program` and the signed results in
`scratch/.worker`.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath
from tempfile import TemporaryFile
from typing import IO, Any

from guided_evolution.errors import RunError
from guided_evolution.evaluation import Job, sandbox, supervisor
from guided_evolution.evaluation.environment import environment
from guided_evolution.evaluation.forking import Forked, ForkServer, ServerLostError, can_enter_jails
from guided_evolution.individual import Outcome, Status

Partial = Callable[[dict[str, float]], bool | None]

POLL = 0.2
# How long a supervisor may take beyond the job's own limit, to kill a large tree and write the outcome.
GRACE = 20.0
CHUNK = 1 << 20
MAX_PROGRESS = 64 << 20
FORKED = ("check", "evaluate")
LONG = 300.0


class Once:
    """Passes each partial result of a job on once, also when the job is run again from its beginning."""

    def __init__(self, on_partial: Partial) -> None:
        self._on_partial = on_partial
        self._passed = 0
        self._seen = 0

    def again(self) -> None:
        """Says that the job begins anew, and with it its partial results."""
        self._seen = 0

    def __call__(self, scores: dict[str, float]) -> bool | None:
        """Takes a partial result, and passes it on when it is a new one."""
        self._seen += 1
        if self._seen <= self._passed:
            return None
        self._passed = self._seen
        return self._on_partial(scores)


def run(
    job: Job,
    folder: Path,
    on_partial: Partial | None = None,
    stop: threading.Event | None = None,
    server: ForkServer | None = None,
) -> Outcome:
    """Score one candidate in a process tree of its own, and wait for it.

    Args:
        job: What to run, and its limits.
        folder: A folder that doesn't exist yet; it is removed at the end.
        on_partial: Called in this thread with the finite numbers of each partial result, once for each; when it
            returns True the job is stopped and its outcome is PRUNED.
        stop: When it is set the job is stopped and its outcome is LOST.
        server: Where to fork it from; None, or a job that must be fresh, starts new processes.

    Returns:
        What became of it. A failure of the candidate's is a status with a reason.

    Raises:
        RunError: When the job can't be started or watched, through no fault of the candidate's, or a jail is
            required and none works here.
    """
    kept_in = sandbox.sandbox(job.sandbox)
    folder = folder.absolute()
    try:
        folder.mkdir(parents=True)
        folder = folder.resolve()
    except OSError as error:
        raise RunError(f"can't make the job folder {folder}: {error.strerror}") from error
    try:
        environment = _fill(job, folder, kept_in)
        if server is not None and _may_fork(job, kept_in):
            on_partial = once = None if on_partial is None else Once(on_partial)
            with suppress(ServerLostError):
                return _supervise(job, folder, environment, on_partial, stop, server)
            if once is not None:
                once.again()
            # the server died under the job: it is run again, from the start and by itself
            supervisor.remove_tree(folder)
            folder.mkdir(parents=True)
            environment = _fill(job, folder, kept_in)
        return _supervise(job, folder, environment, on_partial, stop)
    finally:
        supervisor.remove_tree(folder)


def _may_fork(job: Job, kept_in: sandbox.Sandbox) -> bool:
    """A long job gains nothing, a GPU does not survive a fork, and a champion is measured in a fresh process."""
    able = kept_in.level == "process" or can_enter_jails()
    return able and not job.fresh and job.device == "cpu" and job.stage in FORKED and job.seconds <= LONG


def _fill(job: Job, folder: Path, kept_in: sandbox.Sandbox) -> dict[str, str]:
    """Write the program, `job.json` and `watch.json`; the environment of the worker."""
    scratch = folder / "scratch"
    try:
        (scratch / ".worker").mkdir(parents=True)
        (scratch / "tmp").mkdir()
        for name, text in job.files.items():
            if not _is_inside(name):
                raise RunError(f"{job.name}: the file name {name!r} leaves the program's folder")
            path = scratch / "program" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", errors="surrogatepass")
        jail = sandbox.build(kept_in, job, folder)
        for file, document in (("job.json", _for_worker(job, jail)), ("watch.json", _for_supervisor(job, jail))):
            (folder / file).write_text(json.dumps(document), encoding="utf-8")
        sandbox.own(scratch, jail.uid)
    except OSError as error:
        raise RunError(f"can't write the job {job.name}: {error}") from error
    return environment(job, scratch, os.environ) | jail.environment


def _for_worker(job: Job, jail: sandbox.Jail) -> dict[str, Any]:
    """What the worker, and so the candidate, can read: no path of this machine when it is in a jail."""
    return {
        "name": job.name,
        "stage": job.stage,
        "program": next(iter(job.files), ""),
        "problem": jail.problem,
        "evaluator": job.evaluator,
        "objectives": list(job.objectives),
        "ranges": {name: list(range_) for name, range_ in job.ranges.items()},
        "seconds": job.seconds,
        "memory_mb": job.memory_mb,
        "threads": job.threads,
        "cores": list(job.cores),
        "seed": job.seed,
        "device": job.device,
        "data": jail.data,
        "uid": jail.uid,
        "jailed": bool(jail.arguments),
    }


def _for_supervisor(job: Job, jail: sandbox.Jail) -> dict[str, Any]:
    worker = Path(__file__).with_name("worker.py")
    # -P: what lies beside worker.py must not shadow a module that the evaluator imports.
    command = [sys.executable, "-P", "-X", "faulthandler", str(worker), jail.folder]
    return {
        "seconds": job.seconds,
        "memory_mb": job.memory_mb,
        "disk_mb": job.disk_mb,
        "threads": job.threads,
        "folder": jail.folder,
        "jail": list(jail.arguments),
        "jailed": bool(jail.arguments),
        "command": command,
    }


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and "\0" not in name


def _supervise(
    job: Job,
    folder: Path,
    environment: dict[str, str],
    on_partial: Partial | None,
    stop: threading.Event | None,
    server: ForkServer | None = None,
) -> Outcome:
    nonce = secrets.token_hex(32)
    started = time.monotonic()
    scratch = folder / "scratch"
    with TemporaryFile(dir=folder) as answer, TemporaryFile(dir=folder) as errors:
        process = (
            _start(job, folder, environment, answer, errors)
            if server is None
            else server.start(folder, environment, answer, errors)
        )
        try:
            assert process.stdin is not None
            with suppress(BrokenPipeError):
                process.stdin.write(f"{nonce}\n".encode())
                process.stdin.flush()
            early = _follow(process, started + job.seconds + GRACE, _partials(scratch, nonce), on_partial, stop)
        finally:
            _end(process, scratch)
        seconds = time.monotonic() - started
        if early is not None:
            return Outcome(*early, seconds=seconds)
        if isinstance(process, Forked) and process.lost:
            raise ServerLostError
        answer.seek(0)
        found = supervisor.verified(answer.read(2 * supervisor.MAX_RESULT), nonce, "outcome")
        if process.returncode == 0 and found is not None:
            return _outcome(found, scratch)
        errors.seek(0)
        said = errors.read(CHUNK).decode("utf-8", "replace").strip()
        code = process.wait()
    return _without_outcome(code, said, job, seconds)


def _start(
    job: Job, folder: Path, environment: dict[str, str], answer: IO[bytes], errors: IO[bytes]
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", supervisor.__file__, str(folder)],
            stdin=subprocess.PIPE,
            stdout=answer,
            stderr=errors,
            cwd=folder,
            env=environment,
            start_new_session=True,
        )
    except OSError as error:
        raise RunError(f"can't start {sys.executable or 'Python'} for {job.name}: {error.strerror}") from error


def _follow(
    process: subprocess.Popen[bytes] | Forked,
    deadline: float,
    batches: Iterator[list[dict[str, float]] | None],
    on_partial: Partial | None,
    stop: threading.Event | None,
) -> tuple[Status, str] | None:
    """Wait for the supervisor, pass partial results on; the status and reason when it must end early."""
    running = True
    while running:
        with suppress(subprocess.TimeoutExpired):
            process.wait(POLL)
            running = False
        batch = None if on_partial is None else next(batches)
        while on_partial is not None and batch is not None:
            for scores in batch:
                if on_partial(scores) and running:
                    return Status.PRUNED, "stopped early by the run"
            # An ended job's file is read to its end: the last scores came just before.
            batch = None if running else next(batches)
        if running and stop is not None and stop.is_set():
            return Status.LOST, "stopped by the run"
        if running and time.monotonic() > deadline:
            process.kill()
            return Status.TIMED_OUT, "stopped after its supervisor no longer answered"
    return None


def _partials(scratch: Path, nonce: str) -> Iterator[list[dict[str, float]] | None]:
    """Yield the scores of the partial results, some at a time, and None whenever there are no more yet."""
    path = scratch / ".worker" / "progress.jsonl"
    offset = 0
    while True:
        text = supervisor.read_plain(path, CHUNK, offset) if offset < MAX_PROGRESS else b""
        end = text.rfind(b"\n") + 1
        # A line without end, or too short for its signature, is none of the worker's.
        offset += end or (len(text) if len(text) == CHUNK else 0)
        lines = [line for line in text[:end].splitlines() if len(line) > 64]
        found = [supervisor.verified(line, nonce, "progress") for line in lines]
        yield [payload["scores"] for payload in found if payload] if end or len(text) == CHUNK else None


def _end(process: subprocess.Popen[bytes] | Forked, scratch: Path) -> None:
    """Close the lifeline, wait for the supervisor, and do its work where it was itself killed."""
    assert process.stdin is not None
    with suppress(BrokenPipeError):
        process.stdin.close()
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.returncode != 0:
        _sweep(scratch)


def _sweep(scratch: Path) -> None:
    """Kill what a supervisor left that died before its worker: all whose home or place is this job's folder.

    A forked worker still shows the home of the server that it came from, so its place has to do.
    """
    mark = f"HOME={scratch}\0".encode()
    for _ in range(200):
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if mark in (process / "environ").read_bytes() or (process / "cwd").readlink().is_relative_to(scratch):
                    found.append(int(process.name))
        if not found:
            return
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in found:
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, number)
        time.sleep(0.01)


def _outcome(found: Mapping[str, Any], scratch: Path) -> Outcome:
    return Outcome(
        status=Status(found["status"]),
        reason=_text(found.get("reason", ""), scratch),
        scores=found.get("scores", {}),
        metrics=found.get("metrics", {}),
        feedback=_text(found.get("feedback", ""), scratch),
        log_tail=_text(found["log_tail"], scratch),
        seconds=found["seconds"],
        peak_mb=found["peak_mb"],
    )


def _text(text: str, scratch: Path) -> str:
    """Text that can be stored and compared: no lone surrogates, and no path that differs from job to job."""
    text = text.encode("utf-8", "replace").decode("utf-8").replace("\0", "\ufffd")
    for place in (str(scratch), f"{sandbox.JOB}/scratch"):
        text = text.replace(f"{place}/program/", "").replace(f"{place}/", "").replace(place, ".")
    return text


def _without_outcome(code: int, said: str, job: Job, seconds: float) -> Outcome:
    """What a supervisor that left no outcome means: it was stopped, it was killed, or it failed."""
    if code == 0:
        return Outcome(Status.LOST, "stopped from outside", seconds=seconds)
    if code < 0:
        # Nobody of ours kills a supervisor: the candidate did, or the machine ran out of memory.
        name = supervisor.signal_name(-code)
        return Outcome(Status.CRASHED, f"its supervisor was killed by {name}", seconds=seconds)
    raise RunError(f"the job {job.name} could not be run: {said.splitlines()[-1] if said else f'exit {code}'}")
