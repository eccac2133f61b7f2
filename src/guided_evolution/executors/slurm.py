"""Jobs on a Slurm cluster: files in a shared folder, and sbatch, squeue and scancel.

Each job has a folder below the run's `jobs` that every node sees, named by the job and a digest of all that
decides its result. A controller that is killed leaves its jobs running; one that opens the same folder again and
submits the same job takes up what it finds there: the outcome, or the Slurm job on its way to one.

`outcome.json` is the truth. Slurm is asked only what became of a job that left none.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import threading
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from guided_evolution.errors import RunError
from guided_evolution.evaluation import Job
from guided_evolution.evaluation.launch import Once, Partial
from guided_evolution.executors.local import SHORT, LocalExecutor
from guided_evolution.executors.slurm_commands import FRESH_SECONDS, Listing, NoAnswerError, Seen, Slurm
from guided_evolution.executors.slurm_folder import JobFolder
from guided_evolution.individual import Outcome, Status

SLOTS = 16
SHORT_WORKERS = 2
RUNS = 2
# A job's folder is looked at this often, and less often when there are many.
POLL_SECONDS = 0.5
LOOKS_PER_SECOND = 50
# A shared file system may show a file some seconds after it was written.
SHARED_SECONDS = 10.0
# By then the run has recorded an outcome, and a restart needs its folder no more.
KEPT_SECONDS = 60.0
CANCEL_SECONDS = 60.0
HASTE = 1.0

_HERE = "here"
_ENDED = 0
_AGAIN = frozenset({"NODE_FAIL", "BOOT_FAIL", "PREEMPTED", "REVOKED", "GONE"})
_TIME = frozenset({"TIMEOUT", "DEADLINE"})
_NEVER = frozenset({"BadConstraints", "InvalidAccount", "InvalidQOS", "PartitionTimeLimit"})
_MEMORY = re.compile("exceeded memory limit|exceeded job memory limit|oom[-_ ]kill", re.IGNORECASE)


class SlurmExecutor:
    """Keeps up to `workers` jobs in Slurm's queue; a thread for each waits for its outcome.

    The stages "check" and "prepare" run on this machine, two at a time: a check takes a second, and a queue minutes.

    Attributes:
        slots: Jobs in the queue at once.
    """

    def __init__(self, workers: int | None, folder: Path, sbatch: str = "") -> None:
        """Finds Slurm, and what an earlier session left in the folder.

        Args:
            workers: Jobs in the queue at once; None takes 16.
            folder: The run's folder for jobs, on a file system that all nodes see.
            sbatch: Options of sbatch that win over those that a job asks for.

        Raises:
            UsageError: When there is no Slurm on this machine, or `sbatch` can't be read.
            RunError: When Slurm doesn't answer.
        """
        self._slurm = Slurm(sbatch)
        self._listing = Listing(self._slurm)
        self._slurm.require()
        self.slots = workers or SLOTS
        self._folder = folder.absolute()
        self._poll = max(POLL_SECONDS, self.slots / LOOKS_PER_SECOND)
        self._lock = threading.Lock()
        self._left = {path.name for path in folder.glob("*") if path.is_dir() and path.name != _HERE}
        self._claimed: set[str] = set()
        self._done: deque[tuple[float, JobFolder]] = deque()
        self._unanswered: set[str] = set()
        self._stop = threading.Event()
        self._here = LocalExecutor(SHORT_WORKERS, self._folder / _HERE)
        self._pool = ThreadPoolExecutor(self.slots, thread_name_prefix="slurm")

    def submit(self, job: Job, on_partial: Partial | None = None) -> Future[Outcome]:
        """Queue a job; see `Executor.submit`."""
        if job.stage in SHORT:
            return self._here.submit(job, on_partial)
        try:
            return self._pool.submit(self._run, job, on_partial)
        except RuntimeError as error:
            raise RunError(f"can't run {job.name}: the executor is closed") from error

    def close(self) -> None:
        """Cancel every job of this run, and return when none is left in Slurm; their folders go too.

        Where Slurm doesn't answer for a minute the folders stay, so that the jobs are found by the next session.
        """
        self._stop.set()
        self._pool.shutdown()
        self._here.close()
        with self._lock:
            left, self._left = self._left, set()
        for name in left:
            if not self._discard(JobFolder(self._folder / name)):
                break
        self._tidy(0.0)
        with suppress(OSError):
            (self._folder / _HERE).rmdir()

    # -- one job, in a thread of its own ------------------------------------------------------------------------

    def _run(self, job: Job, on_partial: Partial | None) -> Outcome:
        if self._stop.is_set():
            return Outcome(Status.LOST, "stopped before it began")
        place, stale, found = self._claim(job)
        for each in stale:
            self._discard(each)
        outcome: Outcome | None = None
        try:
            number = None
            if found and place.holds(job):
                number = self._taken_up(place)
            else:
                place.make(job)
            outcome = self._see_through(job, place, number, on_partial)
        except OSError as error:
            raise RunError(f"can't write the job folder {place.path}: {error}") from error
        finally:
            numbers = place.numbers()
            if outcome is None and numbers and not place.outcome():
                self._cancel(numbers[-1], place)
            self._release(place, keep=outcome is not None and outcome.status is not Status.LOST)
        return outcome

    def _claim(self, job: Job) -> tuple[JobFolder, list[JobFolder], bool]:
        """A job's folder, the left ones of its name with other content, and whether it was left there itself."""
        content = json.dumps([job.to_json(), self._slurm.options], sort_keys=True)
        base = f"{job.name}-{hashlib.sha256(content.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"
        with self._lock:
            ours = sorted(name for name in self._left if name == base or name.startswith(f"{base}-"))
            name, count = base, 2
            while name in self._claimed:
                name, count = f"{base}-{count}", count + 1
            name = ours[0] if ours else name
            self._claimed.add(name)
            self._left.discard(name)
            rest = [JobFolder(self._folder / other) for other in self._left if other not in ours]
            stale = [place for place in rest if place.task().get("name") == job.name]
            self._left -= {place.path.name for place in stale}
        return JobFolder(self._folder / name), stale, bool(ours)

    def _release(self, place: JobFolder, *, keep: bool) -> None:
        """Removes the folder: at once, or later where a restart may still ask for its outcome."""
        if keep:
            self._done.append((time.monotonic(), place))
        elif place.path.name not in self._unanswered:
            shutil.rmtree(place.path, ignore_errors=True)
        self._tidy(KEPT_SECONDS)

    def _tidy(self, age: float) -> None:
        with self._lock:
            while self._done and time.monotonic() - self._done[0][0] >= age:
                _, place = self._done.popleft()
                shutil.rmtree(place.path, ignore_errors=True)

    def _see_through(self, job: Job, place: JobFolder, number: int | None, on_partial: Partial | None) -> Outcome:
        """Hands the job in where nobody did, and follows it; once more where Slurm lost it."""
        once = None if on_partial is None else Once(on_partial)
        while True:
            if number is None:
                place.begin_again()
                number = self._hand_in(job, place)
            if number is None:
                return Outcome(Status.LOST, "stopped before it began")
            outcome = self._follow(number, place, once)
            if outcome is not None:
                return outcome
            number = None
            if once is not None:
                once.again()

    def _taken_up(self, place: JobFolder) -> int | None:
        """The Slurm job that an earlier session handed in, also when it was killed before it noted the number."""
        numbers = place.numbers()
        if not numbers and place.outcome().get("status", Status.LOST) != Status.LOST:
            return _ENDED  # it has done what it was for, and nobody will ask Slurm for it
        return numbers[-1] if numbers else self._find(place)

    def _find(self, place: JobFolder) -> int | None:
        """The living Slurm job of a folder that noted none; None when there is none, or the run was stopped."""
        while not self._stop.is_set():
            with suppress(NoAnswerError):
                living = self._living(place)
                if living is not None:
                    place.add_number(living)
                return living
            self._stop.wait(FRESH_SECONDS)
        return None

    def _living(self, place: JobFolder) -> int | None:
        jobs, known = self._slurm.jobs(), place.numbers()
        ours = [number for number, seen in jobs.items() if seen.folder == str(place.path) and not seen.ended]
        return max((number for number in ours if number not in known), default=None)

    def _hand_in(self, job: Job, place: JobFolder) -> int | None:
        """The number of a new Slurm job; None when the run was stopped before it had one."""
        while not self._stop.is_set():
            try:
                number = self._slurm.submit(job, place.script, place.log)
            except NoAnswerError:
                self._stop.wait(FRESH_SECONDS)
                # The question may have arrived where the answer got lost.
                taken = self._find(place)
                if taken is not None:
                    return taken
                continue
            place.add_number(number)
            return number
        return None

    def _follow(self, number: int, place: JobFolder, on_partial: Partial | None) -> Outcome | None:
        """Waits for a Slurm job to end; None when it is to be run again."""
        begun, ended, offset = time.monotonic(), None, 0
        while True:
            document = place.outcome()
            scores, offset = place.partials(offset)
            for values in scores:
                if on_partial is not None and on_partial(values) and not document:
                    self._cancel(number, place)
                    seconds = float(place.outcome().get("seconds", 0.0))
                    return Outcome(Status.PRUNED, "stopped early by the run", seconds=seconds)
            if "error" in document:
                raise RunError(document["error"])
            if document and document["status"] != Status.LOST:
                return Outcome.from_json(document)
            if self._stop.is_set():
                self._cancel(number, place)
                return Outcome(Status.LOST, "stopped by the run")
            seen = self._listing.look(number, begun, HASTE if document else FRESH_SECONDS)
            ended = None if seen is None or not seen.ended else ended or time.monotonic()
            if seen is not None and ended is not None:
                if document or time.monotonic() - ended > SHARED_SECONDS:
                    return self._without_outcome(number, seen, place)
            elif seen is not None and seen.state == "PENDING" and seen.reason in _NEVER:
                raise RunError(f"Slurm will never start job {number}: {seen.reason}. Look at --sbatch and the limits.")
            self._stop.wait(self._poll)

    def _without_outcome(self, number: int, seen: Seen, place: JobFolder) -> Outcome | None:
        """What became of a job that left no outcome of its own; None when it is to be run again."""
        log = place.last_lines()
        if seen.state in _TIME:
            return Outcome(Status.TIMED_OUT, f"Slurm job {number} reached its time limit", log_tail=log)
        if seen.state == "OUT_OF_MEMORY" or _MEMORY.search(log):
            return Outcome(Status.OUT_OF_MEMORY, f"Slurm job {number} reached its memory limit", log_tail=log)
        if seen.state in _AGAIN and len(place.numbers()) < RUNS:
            return None
        last = f": {log.splitlines()[-1]}" if log else "" if seen.reason == "None" else f" ({seen.reason})"
        return Outcome(Status.LOST, f"Slurm job {number} ended as {seen.state}{last}", log_tail=log)

    # -- ending jobs --------------------------------------------------------------------------------------------

    def _cancel(self, number: int, place: JobFolder) -> bool:
        """Ends a Slurm job and waits until it is gone; False when Slurm doesn't answer for a minute."""
        begun, told = time.monotonic(), False
        while time.monotonic() - begun < CANCEL_SECONDS:
            if not told:
                with suppress(NoAnswerError):
                    self._slurm.cancel(number)
                    told = True
            seen = self._listing.look(number, begun, HASTE)
            # A node writes its outcome once nothing of the candidate is left.
            if told and (place.outcome() or (seen is not None and seen.ended)):
                return True
            time.sleep(POLL_SECONDS / 5)
        self._unanswered.add(place.path.name)  # its folder is the only way to find it again
        return False

    def _discard(self, place: JobFolder) -> bool:
        """Ends what an earlier session left and nobody asked for; False when Slurm doesn't answer."""
        try:
            number = place.numbers()[-1] if place.numbers() else self._living(place)
        except NoAnswerError:
            return False
        if number is not None and not self._cancel(number, place):
            return False
        shutil.rmtree(place.path, ignore_errors=True)
        return True
