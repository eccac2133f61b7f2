"""A real Slurm cluster of one node for tests: munged, slurmctld and slurmd, all in one temporary folder.

No service manager, no fixed port and no file outside the folder, so several can run side by side and nothing is left.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol")
CPUS = 8
GPUS = ("/dev/null", "/dev/zero")
MAX_MINUTES = 10

CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={controller_port}
SlurmdPort={node_port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SchedulerType=sched/builtin
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=5
MinJobAge=60
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
SchedulerParameters=defer_batch,sched_min_interval=0,batch_sched_delay=0
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} Gres=gpu:{gpus} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
PartitionName=short Nodes={host} MaxTime={max_minutes} State=UP
"""


def missing() -> list[str]:
    """What a cluster needs and this machine doesn't have."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    return [name for name in NEEDED if not shutil.which(name, path=path)]


@dataclass(frozen=True)
class Cluster:
    """A cluster that runs; `SLURM_CONF` in a process's environment leads its commands here."""

    folder: Path

    @property
    def configuration(self) -> Path:
        return self.folder / "slurm.conf"

    def command(self, *arguments: str) -> str:
        environment = {**os.environ, "SLURM_CONF": str(self.configuration)}
        ran = subprocess.run(arguments, capture_output=True, text=True, timeout=60, env=environment, check=False)
        assert ran.returncode == 0, f"{arguments}: {ran.stderr}"
        return ran.stdout

    def jobs(self, states: str = "all") -> dict[int, str]:
        """Job numbers and states, finished ones included."""
        listed = self.command("squeue", "--noheader", f"--states={states}", "--format=%i %T").splitlines()
        return {int(number): state for number, state in (line.split() for line in listed)}

    def clear(self) -> None:
        """Ends every job, and returns when none of their processes is left."""
        self.command("scancel", f"--user={os.getuid()}")
        deadline = time.monotonic() + 30
        while self.jobs("pending,configuring,running,suspended,completing") and time.monotonic() < deadline:
            time.sleep(0.1)

    def start_controller(self) -> None:
        _start(self.folder, "slurmctld", "-f", str(self.configuration))

    def stop_controller(self) -> None:
        _end(int((self.folder / "slurmctld.pid").read_text()))

    def fail_node(self) -> None:
        """Makes Slurm believe that the node failed and came back: its jobs are lost."""
        node = self.command("sinfo", "--noheader", "--partition=main", "--format=%n").strip()
        self.command("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test")
        self.wait_for_node()

    def wait_for_node(self) -> None:
        """Waits until the node takes jobs; one that was down comes back by itself when it reports again."""
        deadline = time.monotonic() + 60
        while self.command("sinfo", "--noheader", "--partition=main", "--format=%t").strip() not in ("idle", "mix"):
            assert time.monotonic() < deadline, self.logs()
            time.sleep(0.2)

    def logs(self) -> str:
        return "\n".join(f"{path.name}:\n{path.read_text()[-3000:]}" for path in sorted(self.folder.glob("*.log")))


@contextlib.contextmanager
def cluster() -> Iterator[Cluster]:
    """Starts a cluster, waits until its node is idle, and leaves no process of it behind."""
    folder = Path(tempfile.mkdtemp(prefix="ge-slurm-"))  # short: a socket's path has little room
    folder.chmod(0o755)
    made = Cluster(folder)
    try:
        _configure(folder)
        _start(
            *(folder, "munged", "--force", f"--socket={folder}/munge.socket", f"--key-file={folder}/munge.key"),
            *(f"--pid-file={folder}/munged.pid", f"--seed-file={folder}/munge.seed", f"--log-file={folder}/munged.log"),
        )
        made.start_controller()
        _start(folder, "slurmd", "-f", str(made.configuration))
        made.wait_for_node()
        yield made
    finally:
        with contextlib.suppress(AssertionError, subprocess.SubprocessError):
            made.clear()
        daemons = []
        for name in ("slurmd", "slurmctld", "munged"):
            with contextlib.suppress(OSError, ValueError):
                daemons.append(int((folder / f"{name}.pid").read_text()))
        _end(*daemons)
        shutil.rmtree(folder, ignore_errors=True)


def _configure(folder: Path) -> None:
    for name in ("state", "spool"):
        (folder / name).mkdir()
    (folder / "munge.key").write_bytes(secrets.token_bytes(128))
    (folder / "munge.key").chmod(0o600)
    ports = _free_ports(2)
    text = CONFIGURATION.format(
        folder=folder,
        host=socket.gethostname().split(".")[0],
        user=pwd.getpwuid(os.getuid()).pw_name,
        controller_port=ports[0],
        node_port=ports[1],
        cpus=CPUS,
        gpus=len(GPUS),
        memory=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20,
        max_minutes=MAX_MINUTES,
    )
    (folder / "slurm.conf").write_text(text)
    # Slurm counts character devices and hands them out by number; it doesn't open them.
    (folder / "gres.conf").write_text("".join(f"Name=gpu File={device}\n" for device in GPUS))


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


def _start(folder: Path, *command: str) -> None:
    """Starts a daemon, which puts itself into the background once it is ready."""
    environment = {
        "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin",
        "SLURM_CONF": str(folder / "slurm.conf"),
    }
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, f"{' '.join(command)}: {ran.stderr}"


def _end(*daemons: int) -> None:
    """Ends daemons and waits until they are gone, however long one takes to say goodbye."""
    deadline = time.monotonic() + 20
    for pid in daemons:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    while left := [pid for pid in daemons if _runs(pid)]:
        if time.monotonic() > deadline:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    """Whether a process runs; one that is dead may stay listed where nobody collects orphans."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
