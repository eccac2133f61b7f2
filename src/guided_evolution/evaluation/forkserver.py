"""Start workers by forking a process that has the heavy imports behind it.

A process of its own, standard library only but for what the problem asks it to import. For each request it forks a
supervisor, which forks the worker; the worker enters the jail that bubblewrap has made for it, and goes on as a fresh
one would. It runs nothing of a candidate's itself, has one thread, and never touches a GPU: a GPU's state does not
survive a fork. It ends when its socket is closed and its last child is gone.
"""

from __future__ import annotations

import array
import ctypes
import gc
import importlib
import importlib.util
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

HANDLES = 4
PR_SET_PDEATHSIG, PR_CAPBSET_DROP = 1, 24
NEW_NAMESPACES = {"mnt": 0x20000, "cgroup": 0x2000000, "uts": 0x4000000, "ipc": 0x8000000}
NEW_NAMESPACES |= {"user": 0x10000000, "pid": 0x20000000, "net": 0x40000000}


def main(handle: int, preload: list[str]) -> None:
    """Import what was asked for, say so, and serve until the socket is closed.

    Args:
        handle: The descriptor of a connected socket that keeps messages apart.
        preload: Names of modules.
    """
    control = socket.socket(fileno=handle)
    try:
        for name in preload:
            importlib.import_module(name)
    except BaseException as error:  # noqa: BLE001 - whatever a module raises is told to whoever asked for it
        control.send(json.dumps({"error": f"{type(error).__name__}: {error}"}).encode())
        return
    folder = Path(__file__).parent
    supervisor, worker = (_module(folder / f"{name}.py") for name in ("supervisor", "worker"))
    gc.collect()
    gc.freeze()  # forked children shall not copy pages only because the collector counts
    control.send(json.dumps({"ready": True}).encode())
    _serve(control, supervisor, worker)


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"_guided_evolution_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _serve(control: socket.socket, supervisor: ModuleType, worker: ModuleType) -> None:
    wake, woken = os.pipe()
    for end in (wake, woken):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    children: dict[int, int] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(wake, selectors.EVENT_READ)
        selector.register(control, selectors.EVENT_READ)
        is_open = True
        while is_open or children:
            ready = {key.fileobj for key, _ in selector.select()}
            if wake in ready:
                with suppress(BlockingIOError):
                    os.read(wake, 4096)
                _collect(children)
            if control in ready:
                request, handles = _receive(control)
                if request is None:
                    selector.unregister(control)
                    is_open = False
                    continue
                pid = os.fork()
                if pid == 0:
                    for other in children.values():
                        os.close(other)
                    for end in (wake, woken, control.fileno()):
                        os.close(end)
                    _become_supervisor(request, handles, supervisor, worker)
                for used in handles[:3]:
                    os.close(used)
                children[pid] = handles[3]
                with suppress(OSError):
                    os.write(handles[3], f"pid {pid}\n".encode())


def _receive(control: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    found = array.array("i")
    size = socket.CMSG_SPACE(HANDLES * found.itemsize)
    try:
        message, extras, _, _ = control.recvmsg(1 << 20, size)
    except ConnectionError:
        return None, []
    if not message:
        return None, []
    for _, kind, data in extras:
        if kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return json.loads(message), list(found)


def _collect(children: dict[int, int]) -> None:
    """Tell each job that ended how it ended."""
    while children:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        handle = children.pop(pid, None)
        if handle is not None:
            with suppress(OSError):
                os.write(handle, f"exit {os.waitstatus_to_exitcode(status)}\n".encode())
            os.close(handle)


def _become_supervisor(
    request: Mapping[str, Any], handles: list[int], supervisor: ModuleType, worker: ModuleType
) -> None:
    """Never returns: go on as the supervisor of one job."""
    code = 1
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        for target, handle in enumerate(handles[:3]):
            os.dup2(handle, target)
        for handle in handles[:3]:
            os.close(handle)  # the last one tells by its end that this process is gone, also without the server
        folder = Path(request["folder"])
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(request["environment"])

        def spawn(job: Mapping[str, Any], scratch: Path, nonce: str) -> tuple[int, int]:
            return _start_worker(job, scratch, nonce, supervisor, worker)

        supervisor.main(folder, spawn)
        code = 0
    except BaseException:  # noqa: BLE001 - the border: a supervisor that fails says why, as a fresh one does
        with suppress(OSError):
            os.write(2, traceback.format_exc().encode("utf-8", "replace"))
    finally:
        os._exit(code)


def _start_worker(
    job: Mapping[str, Any], scratch: Path, nonce: str, supervisor: ModuleType, worker: ModuleType
) -> tuple[int, int]:
    """Fork the worker, inside the job's jail where it has one; its process and the end of its output."""
    secret_out, secret_in = os.pipe()
    output_out, output_in = os.pipe()
    inside = _open_jail(job["jail"], supervisor.jail_command) if job["jail"] else None
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(secret_in)
            os.close(output_out)
            os.dup2(secret_out, 0)
            for target in (1, 2):
                os.dup2(output_in, target)
            if inside is not None:
                code = _in_jail(inside, lambda: _become_worker(job, worker))
            else:
                os.chdir(scratch)
                _become_worker(job, worker)
        except BaseException:  # noqa: BLE001 - the border between our work and the candidate's
            with suppress(OSError):
                os.write(2, traceback.format_exc().encode("utf-8", "replace"))
        finally:
            os._exit(code)
    for handle in (secret_out, output_in, *([inside[0]] if inside else [])):
        os.close(handle)
    with suppress(BrokenPipeError):
        os.write(secret_in, nonce.encode())
    os.close(secret_in)
    return pid, output_out


def _become_worker(job: Mapping[str, Any], worker: ModuleType) -> None:
    """Never returns normally: the worker leaves by itself."""
    os.setsid()
    # the supervisor's handlers would make the program deaf to SIGTERM, and write into whatever it opens next
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    os.closerange(3, 4096)
    # what a fresh worker would have found of itself
    sys.argv = [str(worker.__file__), job["folder"]]
    tempfile = sys.modules.get("tempfile")
    if tempfile is not None:
        tempfile.tempdir = None  # type: ignore[attr-defined] # found when the server was started, for no job
    _use_threads(int(job["threads"]))
    worker.main(Path(job["folder"]))


def _use_threads(threads: int) -> None:
    """Libraries that are loaded already no longer read the environment."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(threads)


def _open_jail(
    arguments: list[str], jail_command: Callable[[list[str]], tuple[list[str], list[int]]]
) -> tuple[int, int, bool]:
    """Let bubblewrap make the jail with a placeholder in it; a handle of its first process, and what is new there.

    Raises:
        OSError: When it can't be made; the text is bubblewrap's.
    """
    facts_out, facts_in = os.pipe()
    command, handles = jail_command(arguments)
    command[1:1] = ["--info-fd", str(facts_in)]
    process = subprocess.Popen(
        [*command, "/usr/bin/cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=[facts_in, *handles],
    )
    for handle in (facts_in, *handles):
        os.close(handle)
    process.returncode = 0  # collected with the rest of the tree
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    with os.fdopen(facts_out, encoding="ascii") as stream:
        said = stream.read()
    with suppress(BrokenPipeError):
        process.stdin.write(b"\n")
        process.stdin.flush()
    # once its echo is heard the jail is finished
    if process.stdout.read(1) != b"\n":
        raise OSError(process.stderr.read().decode("utf-8", "replace").strip() or "bubblewrap failed")
    first = int(json.loads(said)["child-pid"])
    flags = 0
    for name, flag in NEW_NAMESPACES.items():
        with suppress(OSError):
            if Path(f"/proc/{first}/ns/{name}").stat().st_ino != Path(f"/proc/self/ns/{name}").stat().st_ino:
                flags |= flag
    os.dup(process.stdin.fileno())  # the placeholder stays until this process leaves, and its input with it
    return os.pidfd_open(first), flags, bool(flags & NEW_NAMESPACES["user"])


def _in_jail(inside: tuple[int, int, bool], work: Callable[[], None]) -> int:
    """Enter the namespaces, and do the work in a child, as only a child is in the new process namespace."""
    handle, flags, has_user = inside
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(handle, flags) != 0:
        raise OSError(ctypes.get_errno(), f"can't enter the jail: {os.strerror(ctypes.get_errno())}")
    os.close(handle)
    pid = os.fork()
    if pid == 0:
        libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        os.chdir("/job/scratch")
        _drop_capabilities(libc, everything=has_user)
        work()
        os._exit(1)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _drop_capabilities(libc: ctypes.CDLL, *, everything: bool) -> None:
    """Keep nothing in a user namespace; else only what it takes to become the job's own user, as bubblewrap does."""
    kept = 0 if everything else (1 << 6) | (1 << 7)  # CAP_SETGID, CAP_SETUID
    for number in range(64):
        if not kept >> number & 1:
            libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3 of capset(2)
    low, high = kept & 0xFFFFFFFF, kept >> 32
    data = (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0)
    if libc.capset(ctypes.byref(header), ctypes.byref(data)) != 0:
        raise OSError(ctypes.get_errno(), f"can't drop capabilities: {os.strerror(ctypes.get_errno())}")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
