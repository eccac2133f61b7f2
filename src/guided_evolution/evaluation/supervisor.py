"""Watch one worker and everything it starts, and leave nothing of it behind.

A process of its own, started by path with the job folder as its argument, standard library only. The
candidate can fork, change its session, ignore signals, fill its memory or print without end: this process
measures time, memory and disk from outside, and at the end kills the whole tree. On Linux it adopts orphans
("child subreaper"), so a daemon that detached itself is still found; elsewhere such a daemon escapes.

Its standard input is a lifeline: the first line is the job's secret, and its end means that whoever
started the job is gone or wants it stopped. Its standard output is a file without a name, so that the
candidate can't remove or replace it: there goes the outcome, signed, as one line of JSON.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import hmac
import json
import os
import selectors
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

# Starts the worker of a job in a scratch folder, hands it the secret, and gives its process id and its output.
Spawn = Callable[[Mapping[str, Any], Path, str], tuple[int, int]]

KEPT = 16 << 10
CHUNK = 64 << 10
MAX_RESULT = 1 << 20
TICK = 0.1
DISK_TICK = 0.5
CLOSE_TICK = 1.0
MAX_PROCESSES = 512
BLOCK = 4096
REMOVE_SECONDS = 120.0
# Looking at the tree may take this part of the time, so that a tree of thousands doesn't slow itself down.
SHARE = 0.05
KILL_SECONDS = 10.0
PR_SET_CHILD_SUBREAPER = 36
PAGE = os.sysconf("SC_PAGE_SIZE")
MIB = 1 << 20


def sign(payload: Mapping[str, Any], nonce: str) -> str:
    """One line of JSON that `verified` accepts under the same secret."""
    text = json.dumps(payload)
    mark = hmac.new(nonce.encode(), text.encode(), hashlib.sha256).hexdigest()
    return json.dumps({"payload": text, "hmac": mark})


def verified(line: bytes, nonce: str, kind: str) -> dict[str, Any] | None:
    """What was signed with `nonce` and says it is of this kind; None for everything else.

    Args:
        line: One line of JSON, from a file that the candidate can write.
        nonce: The job's secret.
        kind: "progress", "result" or "outcome": a partial result must not pass for the last one.
    """
    try:
        envelope = json.loads(line)
        text, mark = envelope["payload"], envelope["hmac"]
        right = hmac.new(nonce.encode(), text.encode(), hashlib.sha256).hexdigest()
        if not hmac.compare_digest(mark, right):
            return None
        payload = json.loads(text)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return payload if isinstance(payload, dict) and payload.get("kind") == kind else None


def read_plain(path: Path, limit: int, offset: int = 0) -> bytes:
    """Up to `limit` bytes of a file that a candidate can replace: of a link, pipe or device, nothing."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return b""
    try:
        return os.pread(handle, limit, offset) if stat.S_ISREG(os.fstat(handle).st_mode) else b""
    finally:
        os.close(handle)


def tree(root: int) -> dict[int, int]:
    """The descendants of process `root`, without itself, each with its resident memory in bytes."""
    found: dict[int, int] = {}
    if not Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").exists():
        return _tree_from_ps(root)
    waiting = [root]
    while waiting:
        for child in _children(waiting.pop()):
            if child not in found:
                found[child] = _resident(child)
                waiting.append(child)
    return found


def _children(pid: int) -> list[int]:
    children: list[int] = []
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                children += map(int, (thread / "children").read_bytes().split())
    return children


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * PAGE
    except (OSError, IndexError):
        return 0


def _proportional(pid: int, resident: int) -> int:
    """Resident memory with shared pages divided among those that share them; `resident` where unknown, 0 once it ended.

    A candidate's workers often end together: what they had shared would else be counted once for each of them.
    """
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_bytes().splitlines():
            if line.startswith(b"Pss:"):
                return int(line.split()[1]) << 10
    except ProcessLookupError:
        return 0
    except OSError:
        if Path("/proc/self").exists() and not Path(f"/proc/{pid}").exists():
            return 0
    return resident


def _tree_from_ps(root: int) -> dict[int, int]:
    try:
        command = ["ps", "-A", "-o", "pid=,ppid=,rss="]
        listing = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return {}
    rows = [tuple(map(int, line.split())) for line in listing.splitlines()]
    found: dict[int, int] = {}
    waiting = [root]
    while waiting:
        parent = waiting.pop()
        for pid, above, kib in rows:
            if above == parent and pid not in found:
                found[pid] = kib << 10
                waiting.append(pid)
    return found


def remove_tree(folder: Path) -> None:
    """Remove a folder that a candidate wrote to: nested deeper than Python can follow, or made unreadable."""
    with suppress(RecursionError):
        shutil.rmtree(folder, ignore_errors=True)
    if folder.is_symlink() or not folder.is_dir():
        return
    # both walk without recursion, and by handles, so that neither depth nor the length of a path stops them
    for command in (["chmod", "-R", "u+rwX"], ["rm", "-rf"]):
        with suppress(OSError, subprocess.SubprocessError):
            subprocess.run(
                [*command, "--", str(folder)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=REMOVE_SECONDS,
                check=False,
            )


def disk_use(folder: Path, pids: Iterable[int]) -> tuple[int, int]:
    """Bytes on disk below `folder`, and bytes that processes hold in files without a name elsewhere (in memory).

    Files that were removed while they are open count too: their space is free only when they are closed. An empty
    file counts as a block, as it costs an entry; what can't be looked into (too deep, or locked) counts as more than
    any limit.
    """
    disk, memory, seen = 0, 0, set[tuple[int, int]]()
    device = -1
    with suppress(OSError):
        device = folder.stat().st_dev
    waiting = [str(folder)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    with suppress(FileNotFoundError):
                        facts = entry.stat(follow_symlinks=False)
                        disk += max(BLOCK, facts.st_blocks * 512)
                        if entry.is_dir(follow_symlinks=False):
                            waiting.append(entry.path)
        except OSError as error:
            if error.errno in (errno.ENAMETOOLONG, errno.EACCES):
                disk += 1 << 62
    for pid in pids:
        with suppress(OSError), os.scandir(f"/proc/{pid}/fd") as handles:
            for handle in handles:
                with suppress(OSError):
                    facts = Path(handle.path).stat()
                    place = (facts.st_dev, facts.st_ino)
                    if stat.S_ISREG(facts.st_mode) and facts.st_nlink == 0 and place not in seen:
                        seen.add(place)
                        if facts.st_dev == device:
                            disk += facts.st_blocks * 512
                        else:
                            memory += facts.st_blocks * 512
    return disk, memory


def jail_command(arguments: list[str]) -> tuple[list[str], list[int]]:
    """The command that enters a jail, and the descriptors it needs; the options would be seen from inside otherwise.

    Args:
        arguments: bwrap and its options; empty for no jail.
    """
    if not arguments:
        return [], []
    handle = os.memfd_create("jail")
    os.write(handle, "\0".join(arguments[1:]).encode() + b"\0")
    os.lseek(handle, 0, os.SEEK_SET)
    return [arguments[0], "--args", str(handle), "--"], [handle]


def start_process(job: Mapping[str, Any], scratch: Path, nonce: str) -> tuple[int, int]:
    """Start the worker as a fresh process; see `Spawn`.

    Raises:
        OSError: When it can't be started.
    """
    jail, handles = jail_command(job["jail"])
    try:
        process = subprocess.Popen(
            [*jail, *job["command"]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=scratch,
            start_new_session=True,
            pass_fds=handles,
        )
    finally:
        for handle in handles:
            os.close(handle)
    # the watch collects the dead itself
    process.returncode = 0
    assert process.stdin is not None and process.stdout is not None
    with suppress(BrokenPipeError), process.stdin as pipe:
        pipe.write(nonce.encode())
    output = os.dup(process.stdout.fileno())
    process.stdout.close()
    return process.pid, output


class Watch:
    """One worker under watch: why it ended, what it used, the end of what it printed."""

    def __init__(self, job: Mapping[str, Any], folder: Path, nonce: str, spawn: Spawn = start_process) -> None:
        """Start the worker of the job in `folder`.

        Raises:
            OSError: When the worker can't be started.
        """
        self.job, self.scratch, self.nonce = job, folder / "scratch", nonce
        self.tail = bytearray()
        self.peak = self._close = 0
        self.code: int | None = None
        self.seconds = 0.0
        self._parent = os.getppid()
        self._terminated = False
        self._wake, self._woken = os.pipe()
        for end in (self._wake, self._woken):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(self._woken, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._terminate)
        self.started = time.monotonic()
        self._worker, self._output = spawn(job, self.scratch, nonce)
        self._look_at_disk = self._look_closer = self.started
        os.set_blocking(self._output, False)

    def _terminate(self, *_: object) -> None:
        self._terminated = True

    def wait(self) -> str:
        """Return why it ended, at the latest at the deadline: "exit", "time", a used-up resource or "stop"."""
        deadline = self.started + self.job["seconds"]
        look = self.started
        with selectors.DefaultSelector() as selector:
            for source in (0, self._wake, self._output):
                selector.register(source, selectors.EVENT_READ)
            while True:
                pause = max(0.0, min(look, deadline) - time.monotonic())
                ready = {key.fd for key, _ in selector.select(pause)}
                if self._wake in ready:
                    os.read(self._wake, CHUNK)
                if self._output in ready and not self._read():
                    selector.unregister(self._output)
                if self._terminated or os.getppid() != self._parent or (0 in ready and not os.read(0, CHUNK)):
                    return "stop"
                self._reap()
                if self.code is not None:
                    return "exit"
                now = time.monotonic()
                if now >= deadline:
                    return "time"
                if now >= look:
                    if used_up := self._measure():
                        return used_up
                    spent = time.monotonic() - now
                    look = now + max(TICK, spent / SHARE)

    def _read(self) -> bool:
        """Take what was printed, keep its end; False when nobody can print any more."""
        try:
            chunk = os.read(self._output, CHUNK)
        except BlockingIOError:
            return True
        self.tail += chunk
        del self.tail[:-KEPT]
        return bool(chunk)

    def _measure(self) -> str:
        """Look at the tree; which resource it used up: "memory", "disk", "processes" or none."""
        processes = tree(os.getpid())
        total = sum(processes.values())
        now = time.monotonic()
        if total > self.peak and len(processes) > 1:
            # Forked children share most of their pages: look closer before anything is held against them. That takes
            # more time than all the rest, so below the limit it is done often only at first.
            if total > self.job["memory_mb"] * MIB or now >= self._look_closer:
                total = self._close = sum(_proportional(pid, resident) for pid, resident in processes.items())
                self._look_closer = now + min(CLOSE_TICK, max(TICK, now - self.started))
            else:
                total = self._close
        if now >= self._look_at_disk:
            disk, memory = disk_use(self.scratch, processes)
            total += memory
            self._look_at_disk = now + max(DISK_TICK, (time.monotonic() - now) / SHARE)
            if disk > self.job["disk_mb"] * MIB:
                return "disk"
        self.peak = max(self.peak, total)
        if total > self.job["memory_mb"] * MIB:
            return "memory"
        return "processes" if len(processes) > MAX_PROCESSES else ""

    def _reap(self) -> bool:
        """Collect the dead; False when no child, and so no descendant, is left."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            self.peak = max(self.peak, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024))
            if pid == self._worker:
                code = os.waitstatus_to_exitcode(status)
                # a jail passes a signal on as shells do
                self.code = 128 - code if self.job["jailed"] and code > 128 else code
                self.seconds = time.monotonic() - self.started

    def end(self) -> bool:
        """Kill the whole tree; False when something is left that the kernel won't let go of."""
        give_up = time.monotonic() + KILL_SECONDS
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._worker, signal.SIGKILL)
        # a jail's keeper among them: with it goes all that is inside, at once
        for pid in _children(os.getpid()):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        while self._reap():
            if time.monotonic() > give_up:
                return False
            # All are stopped before the first is killed, so that none can replace another.
            for number in (signal.SIGSTOP, signal.SIGKILL):
                for pid in tree(os.getpid()):
                    with suppress(ProcessLookupError, PermissionError):
                        os.kill(pid, number)
            time.sleep(0.001)
        self.seconds = self.seconds or time.monotonic() - self.started
        for _ in range(MAX_RESULT // CHUNK):
            if not self._read():
                break
        return True

    def outcome(self, why: str) -> dict[str, Any]:
        """The fields of an Outcome, from what was measured here and the worker's signed result."""
        found: dict[str, Any] = {"status": "crashed"}
        if why == "time":
            found = {"status": "timed_out", "reason": f"stopped after {self.job['seconds']:g} s"}
        elif why == "memory":
            found = {"status": "out_of_memory", "reason": f"used more than {self.job['memory_mb']} MiB"}
        elif why == "disk":
            found["reason"] = f"kept more than {self.job['disk_mb']} MiB on disk"
        elif why == "processes":
            found["reason"] = f"started more than {MAX_PROCESSES} processes"
        elif self.code is not None and self.code < 0:
            found["reason"] = f"killed by {signal_name(-self.code)}"
        else:
            line = read_plain(self.scratch / ".worker" / "result.json", MAX_RESULT)
            found = verified(line, self.nonce, "result") or {**found, "reason": self._nothing()}
        return {
            **found,
            "kind": "outcome",
            "log_tail": self.tail.decode("utf-8", "replace"),
            "seconds": self.seconds,
            "peak_mb": self.peak / MIB,
        }

    def _nothing(self) -> str:
        """Why there is no result, where the worker left by itself."""
        said = self.tail.decode("utf-8", "replace").strip()
        if self.job["jailed"] and said.startswith("bwrap: "):
            return f"the jail failed: {said.splitlines()[0].removeprefix('bwrap: ')}"
        return f"exited with status {self.code} without a result"


def signal_name(number: int) -> str:
    """The name of a signal, "SIGSEGV" for 11, or "signal 99" for one without."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def main(folder: Path, spawn: Spawn = start_process) -> None:
    """Run the job in `folder` to its end, write its outcome, and leave no process behind.

    A job that was stopped has no outcome: its folder is removed, as whoever started it may be dead.

    Raises:
        OSError: When the worker can't be started, or the outcome can't be written.
    """
    nonce = b""
    while not nonce.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            return
        nonce += byte
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    job = json.loads((folder / "watch.json").read_text(encoding="utf-8"))
    watch = Watch(job, folder, nonce.decode().strip(), spawn)
    why = "stop"
    try:
        why = watch.wait()
    finally:
        gone = watch.end()
    if why == "stop":
        remove_tree(folder)
        return
    outcome = watch.outcome(why)
    if not gone:
        outcome["log_tail"] += "\n[a process of this job could not be killed]"
    _deliver(sign(outcome, watch.nonce).encode(), folder / "scratch")


def _deliver(line: bytes, scratch: Path) -> None:
    with suppress(OSError):
        if os.pwrite(1, line, 0) == len(line):
            return
    # The candidate may have filled the disk.
    remove_tree(scratch)
    if os.pwrite(1, line, 0) < len(line):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
