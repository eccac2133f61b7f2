"""Slurm as this package uses it: sbatch, squeue and scancel, with what they say turned into values and errors.

Nothing here needs Slurm's accounting database. The commands get an environment of their own, built from an
allow-list, because sbatch hands its environment on to the job: a key that it never had can't travel.
"""

from __future__ import annotations

import math
import os
import re
import shlex
import shutil
import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from guided_evolution.errors import RunError, UsageError
from guided_evolution.evaluation import Job
from guided_evolution.evaluation.environment import KEPT_VARIABLES, NETWORK_VARIABLES, without_passwords
from guided_evolution.locations import CACHE_VARIABLE

# What the supervisor and its parent take beside the candidate.
MARGIN_MB = 512
# An interpreter that is imported from a busy file system, and the end of a large process tree.
MARGIN_SECONDS = 120.0
COMMAND_SECONDS = 120.0
# squeue is asked for all jobs at once, no more often than this, and less often while nobody answers.
FRESH_SECONDS = 5.0
SLOWEST_SECONDS = 60.0
AT_ONCE = 4

_NO_ANSWER = re.compile(
    "unable to contact|timed out|connection refused|connect failure|zero bytes|communication|temporarily|"
    "backup mode|bad controller|not responding|unreachable",
    re.IGNORECASE,
)
_VISIBLE = re.compile(".*_VISIBLE_DEVICES")
_GPU_OPTION = re.compile(r"--gres(=|$)|--gpus|-G")
_MEMORY_OPTION = re.compile(r"--mem(-per-cpu|-per-gpu)?(=|$)")


class NoAnswerError(Exception):
    """Raised when Slurm's controller doesn't answer now: asking again later may work."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What squeue says about one job.

    Attributes:
        state: Slurm's name of the state, e.g. "RUNNING", or "GONE" for a job that it no longer lists.
        reason: Why it is in that state, in Slurm's words; "None" where there is nothing to say.
        folder: Its working directory, which is the job's folder.
    """

    state: str
    reason: str = "None"
    folder: str = ""

    @property
    def ended(self) -> bool:
        """True when no process of the job is left, and none will come."""
        return self.state in _ENDED


_ENDED = frozenset(
    {
        *("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "DEADLINE", "OUT_OF_MEMORY"),
        *("NODE_FAIL", "BOOT_FAIL", "PREEMPTED", "REVOKED", "GONE"),
    }
)
GONE = Seen("GONE")


class Slurm:
    """The three commands, with the user's further options of sbatch."""

    def __init__(self, options: str = "") -> None:
        """Looks for the commands; asks Slurm nothing yet.

        Args:
            options: Options of sbatch as on its command line; they win over those that the job asks for.

        Raises:
            UsageError: When a command is missing, or the options can't be read.
        """
        try:
            self.options = shlex.split(options)
        except ValueError as error:
            raise UsageError(f"--sbatch {options!r}: {error}") from None
        for name in ("sbatch", "squeue", "scancel"):
            if not shutil.which(name):
                raise UsageError(
                    f"--executor slurm: there is no {name} on this machine. Run this on the cluster's login node, "
                    "or take --executor local."
                )
        self._gate = threading.BoundedSemaphore(AT_ONCE)

    def require(self) -> None:
        """Makes sure that Slurm answers.

        Raises:
            RunError: When it doesn't.
        """
        try:
            self.jobs()
        except NoAnswerError as error:
            raise RunError(f"--executor slurm: {error}. `sinfo` shows whether the cluster is up.") from None

    def submit(self, job: Job, script: Path, log: Path) -> int:
        """Hands a job in, with its script's folder as working directory, and gives its number.

        Raises:
            RunError: When Slurm refuses it.
            NoAnswerError: When nobody answers; the job may have been taken all the same.
        """
        command = ["sbatch", "--parsable", *self._wanted(job, script.parent, log), *self.options, str(script)]
        said = self._run(command, f"sbatch refused {job.name}", "Options for it go into --sbatch.")
        try:
            return int(said.split(";")[0])  # the name of a cluster may follow
        except ValueError:
            raise RunError(f"sbatch gave no job number for {job.name} but {said!r}") from None

    def _wanted(self, job: Job, folder: Path, log: Path) -> list[str]:
        pattern = str(log).replace("%", "%%")  # sbatch reads %j and others in it
        minutes = math.ceil((job.seconds + MARGIN_SECONDS) / 60)
        wanted = [
            *(f"--job-name=ge-{job.name}", f"--chdir={folder}", f"--output={pattern}", "--open-mode=append"),
            # A program that takes its node down must not be given another, and another.
            *("--no-requeue", "--nodes=1", "--ntasks=1", f"--cpus-per-task={job.threads}", f"--time={minutes}"),
        ]
        # These have several names, and Slurm refuses two of them at once.
        if not any(_MEMORY_OPTION.match(option) for option in self.options):
            wanted.append(f"--mem={job.memory_mb + MARGIN_MB}M")
        if job.gpus and not any(_GPU_OPTION.match(option) for option in self.options):
            wanted.append(f"--gres=gpu:{math.ceil(job.gpus)}")
        return wanted

    def jobs(self) -> dict[int, Seen]:
        """All jobs of this user that Slurm still lists, those that ended some minutes ago included.

        Raises:
            NoAnswerError: When squeue fails in whatever way.
        """
        command = ["squeue", f"--user={os.getuid()}", "--states=all", "--noheader", "--format=%A|%T|%r|%Z"]
        try:
            listed = self._run(command, "squeue failed")
        except RunError as error:
            raise NoAnswerError(str(error)) from None
        found: dict[int, Seen] = {}
        for line in listed.splitlines():
            number, _, rest = line.strip().partition("|")
            if number.isdigit() and rest.count("|") >= 2:
                found[int(number)] = Seen(*rest.split("|", 2))
        return found

    def cancel(self, number: int) -> None:
        """Ends a job; of one that has ended already, nothing is said.

        Raises:
            NoAnswerError: When scancel fails in whatever way.
        """
        try:
            self._run(["scancel", "--quiet", str(number)], f"scancel {number} failed")
        except RunError as error:
            raise NoAnswerError(str(error)) from None

    def _run(self, command: list[str], failure: str, advice: str = "") -> str:
        try:
            with self._gate:
                ran = subprocess.run(
                    command,
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                    errors="replace",
                    timeout=COMMAND_SECONDS,
                    env=environment(os.environ),
                    check=False,
                )
        except subprocess.TimeoutExpired:
            raise NoAnswerError(f"{failure}: no answer within {COMMAND_SECONDS:g} s") from None
        except OSError as error:
            raise RunError(f"{failure}: {error.strerror}") from error
        if ran.returncode == 0:
            return ran.stdout.strip()
        lines = [re.sub(r"^\w+: (error|fatal): ", "", line) for line in ran.stderr.strip().splitlines()]
        said = lines[-1] if lines else f"exit {ran.returncode}"
        if _NO_ANSWER.search(said):
            raise NoAnswerError(f"{failure}: {said}")
        raise RunError(f"{failure}: {said}. {advice}".rstrip())


class Listing:
    """What squeue said last, shared by all who follow a job: whoever finds it old asks again."""

    def __init__(self, slurm: Slurm) -> None:
        self._slurm = slurm
        self._asking = threading.Lock()
        self._jobs: dict[int, Seen] = {}
        self._taken = -math.inf
        self._asked = -math.inf
        self._back_off = 0.0

    def look(self, number: int, after: float, pause: float = FRESH_SECONDS) -> Seen | None:
        """What is known of a job from a listing made after a moment; None while there is no such listing.

        Args:
            number: The job's.
            after: A moment of the monotonic clock: an older listing may not know the job yet.
            pause: Seconds that have to lie between two questions to Slurm, fewer than usual for whoever waits.
        """
        if self._asking.acquire(blocking=False):
            try:
                now = time.monotonic()
                if now - self._asked >= max(pause, self._back_off):
                    self._ask(now)
            finally:
                self._asking.release()
        return self._jobs.get(number, GONE) if self._taken > after else None

    def _ask(self, now: float) -> None:
        try:
            self._jobs, self._taken, self._back_off = self._slurm.jobs(), now, 0.0
        except NoAnswerError:
            self._back_off = min(max(2 * self._back_off, FRESH_SECONDS), SLOWEST_SECONDS)
        self._asked = time.monotonic()


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """What Slurm's commands, and through them a job, get to see of this process's environment.

    Args:
        given: The environment of the run itself.
    """
    names = {*KEPT_VARIABLES, *NETWORK_VARIABLES, "HOME", "USER", "LOGNAME", "PYTHONPATH", CACHE_VARIABLE}
    kept = {
        name: value
        for name, value in given.items()
        if (name in names or name == "SLURM_CONF" or name.startswith("SBATCH_")) and not _VISIBLE.fullmatch(name)
    }
    return without_passwords(kept)


def version() -> str:
    """Slurm's version, e.g. "22.05.8"; empty when there is no Slurm; where it has no configuration, that."""
    if not shutil.which("sbatch"):
        return ""
    try:
        ran = subprocess.run(["sbatch", "--version"], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return "(without a configuration)"
    return ran.stdout.split()[-1]  # Debian's begins with "slurm-wlm"
