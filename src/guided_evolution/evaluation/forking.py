"""The fork server as its users see it: started when first needed, replaced when it fails or grows."""

from __future__ import annotations

import array
import contextlib
import json
import os
import platform
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from guided_evolution.errors import RunError
from guided_evolution.evaluation import forkserver

START_SECONDS = 120.0
# A server that leaks is replaced before it matters.
MAX_JOBS = 1_000
GROWTH = 1.5
# It outlives the job that it was started for, so that job's folder can't be its home.
HOMES = ("HOME", "TMPDIR", "XDG_CACHE_HOME", "MPLCONFIGDIR", "TORCHINDUCTOR_CACHE_DIR")
NOWHERE = "/nonexistent"


class ServerLostError(Exception):
    """Raised when the server ended before it could say how a job ended."""


class Forked:
    """A supervisor that the server forked, with as much of a `Popen` as a launch needs.

    Attributes:
        stdin: Its lifeline.
        pid: Its process id, 0 until it is known.
        returncode: How it ended; None while it runs.
        lost: Whether the server ended first, so that nobody knows.
    """

    def __init__(self, lifeline: int, status: int) -> None:
        self.stdin: IO[bytes] = os.fdopen(lifeline, "wb")
        self.pid = 0
        self.returncode: int | None = None
        self.lost = False
        self._status = status
        self._said = b""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; see `Popen.wait`.

        Raises:
            subprocess.TimeoutExpired: When it still runs.
        """
        while self.returncode is None:
            poll = select.poll()  # unlike select, with any number of open files
            poll.register(self._status, select.POLLIN)
            if not poll.poll(None if timeout is None else timeout * 1000):
                raise subprocess.TimeoutExpired("forked supervisor", timeout or 0.0)
            said = os.read(self._status, 4096)
            self._said += said
            for line in self._said.decode("ascii").splitlines():
                word, number = line.split()
                if word == "pid":
                    self.pid = int(number)
                else:
                    self.returncode = int(number)
            if not said and self.returncode is None:
                # the supervisor holds the other end too: it saw that its server is gone, and has cleaned up
                self.lost, self.returncode = True, -int(signal.SIGKILL)
        if self._status >= 0:
            os.close(self._status)
            self._status = -1
        return self.returncode

    def kill(self) -> None:
        """Kill it; see `Popen.kill`."""
        if self.returncode is None and self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        elif self.returncode is None:
            # a server that never got to it
            self.lost, self.returncode = True, -int(signal.SIGKILL)


class ForkServer:
    """Starts supervisors in a tenth of a second, whose workers have the heavy imports behind them."""

    def __init__(self, preload: tuple[str, ...]) -> None:
        """Get ready; the server starts with the first job.

        Args:
            preload: Names of the modules that it imports.
        """
        self._preload = preload
        self._lock = threading.Lock()
        self._server: tuple[subprocess.Popen[bytes], socket.socket] | None = None
        self._jobs = 0
        self._first_mb = 0

    @property
    def pid(self) -> int | None:
        """The server's process id; None before the first job."""
        return self._server[0].pid if self._server else None

    def start(self, folder: Path, environment: Mapping[str, str], answer: IO[bytes], errors: IO[bytes]) -> Forked:
        """Fork the supervisor of the job in `folder`.

        Args:
            environment: All of its environment.
            answer: Its standard output.
            errors: Its standard error.

        Raises:
            RunError: When a module can't be imported.
            ServerLostError: When two servers in a row could not take the job.
        """
        with self._lock:
            for attempt in (1, 2):
                control = self._ready(environment)
                lifeline_out, lifeline_in = os.pipe()
                status_out, status_in = os.pipe()
                handles = [lifeline_out, answer.fileno(), errors.fileno(), status_in]
                request = json.dumps({"folder": str(folder), "environment": dict(environment)}).encode()
                try:
                    control.sendmsg([request], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", handles))])
                except OSError:
                    for handle in (lifeline_in, status_out):
                        os.close(handle)
                    self._end()
                    if attempt == 2:
                        raise ServerLostError from None
                else:
                    self._jobs += 1
                    return Forked(lifeline_in, status_out)
                finally:
                    os.close(lifeline_out)
                    os.close(status_in)
        raise AssertionError("unreachable")

    def _ready(self, environment: Mapping[str, str]) -> socket.socket:
        if self._server is not None:
            process, control = self._server
            worn = self._jobs >= MAX_JOBS or _resident_mb(process.pid) > GROWTH * self._first_mb + 64
            if process.poll() is None and not worn:
                return control
            self._end()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-P", "-X", "faulthandler", forkserver.__file__, str(theirs.fileno()), *self._preload],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={**environment, **dict.fromkeys(HOMES, NOWHERE), "CUDA_VISIBLE_DEVICES": ""},
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        ours.settimeout(START_SECONDS)
        try:
            said = json.loads(ours.recv(1 << 16) or b"{}")
        except (OSError, ValueError):
            said = {}
        if "ready" not in said:
            ours.close()
            process.kill()
            process.wait()
            reason = said.get("error", f"the fork server ended with status {process.returncode}")
            raise RunError(f"preload = {list(self._preload)} in problem.toml: {reason}")
        ours.settimeout(None)
        self._server, self._jobs, self._first_mb = (process, ours), 0, _resident_mb(process.pid)
        return ours

    def _end(self) -> None:
        if self._server is not None:
            process, control = self._server
            self._server = None
            control.close()
            # it leaves when its last job has; nobody waits for that here
            threading.Thread(target=process.wait, daemon=True).start()

    def close(self) -> None:
        """Let the server go and wait for it; its jobs have ended by then."""
        with self._lock:
            process = self._server[0] if self._server else None
            self._end()
        if process is not None:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def can_enter_jails() -> bool:
    """Whether a process that runs already can enter namespaces by another's handle: Linux 5.8 and newer."""
    if sys.platform != "linux" or not hasattr(os, "pidfd_open"):
        return False
    numbers = platform.release().split("-")[0].split(".")[:2]
    return tuple(int(number) for number in numbers if number.isdigit()) >= (5, 8)


def _resident_mb(pid: int) -> int:
    with contextlib.suppress(OSError, IndexError):
        pages = int(Path(f"/proc/{pid}/statm").read_bytes().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") >> 20
    return 0
