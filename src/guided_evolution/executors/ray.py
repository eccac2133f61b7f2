"""Jobs on a Ray cluster: for each job an actor on some node, which runs it as it would run at home.

The same version of this package has to be installed on every node. A job and its outcome travel as plain values;
the problem and the data are read at the same paths everywhere.
"""

from __future__ import annotations

import importlib
import json
import os
import queue
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from guided_evolution.errors import RunError, UsageError
from guided_evolution.evaluation import Job, pipe
from guided_evolution.evaluation.launch import Once, Partial
from guided_evolution.executors.local import SHORT
from guided_evolution.individual import Outcome, Status
from guided_evolution.locations import CACHE_VARIABLE, cache_folder

POLL = 0.25
# A cluster that answers at all is joined within a few seconds; Ray itself would go on trying for minutes.
JOIN_SECONDS = 30.0
# Clusters that grow on demand take minutes to bring up a node of a kind that they don't have yet.
GROW_SECONDS = 600.0
# How long a job waits for an actor to survive its own start while the cluster finds out which nodes are gone.
SETTLE_SECONDS = 120.0
# How long a node may take to kill what a stopped job runs, before its actor is killed instead.
HALT_SECONDS = 25.0

_QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
_KNOCK = "import sys, ray; ray.init(address=sys.argv[1], log_to_driver=False, logging_level='ERROR')"


class Bench:
    """One job after another in a process of Ray's: the actor.

    Ray kills the direct children of a process that it ends, hence the one more between it and the supervisor.
    """

    def __init__(self, surroundings: dict[str, str]) -> None:
        """Take over what the nodes' own environment doesn't know of the run."""
        os.environ.update(surroundings)
        self.ready()

    def ready(self) -> None:
        """Forget the last job."""
        self._halted = False
        self._process: subprocess.Popen[str] | None = None
        self._partial: queue.SimpleQueue[dict[str, float] | None] = queue.SimpleQueue()

    def perform(self, document: dict[str, Any]) -> dict[str, Any]:
        """Run a job: {"outcome": what `Outcome.to_json` gives}, or {"error": text} when it couldn't be run."""
        found: dict[str, Any] = {}
        try:
            command = [sys.executable, "-P", "-m", pipe.__name__]
            with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
                assert process.stdin is not None and process.stdout is not None
                process.stdin.write(json.dumps(document) + "\n")
                process.stdin.flush()
                self._process = process
                if self._halted:
                    self.halt()
                for line in process.stdout:
                    found = json.loads(line)
                    if "partial" in found:
                        self._partial.put(found["partial"])
        except OSError as error:
            return {"error": f"can't start {sys.executable} on the node: {error.strerror}"}
        finally:
            self._partial.put(None)
        ended = f"its process on the node ended with exit code {process.returncode}"
        return found if "outcome" in found or "error" in found else {"error": ended}

    def take(self) -> list[dict[str, float]] | None:
        """Wait for partial results and give all that are there; None when the job has ended."""
        batch = [self._partial.get()]
        while not self._partial.empty():
            batch.append(self._partial.get())
        if None in batch and len(batch) > 1:
            self._partial.put(None)
        found = [scores for scores in batch if scores is not None]
        return found or None

    def halt(self) -> None:
        """Stop the job."""
        self._halted = True
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()


class RayExecutor:
    """Runs jobs on the cluster that RAY_ADDRESS names, or on a Ray of its own on this machine.

    An evaluation asks Ray for its CPU threads, GPUs and memory. The stages "check" and "prepare" ask for nothing, so
    they never wait behind evaluations. A job whose node or actor dies is run once more; the partial results
    that it gave already are then not passed on again.

    Attributes:
        slots: The number of workers; without one, the cluster's CPUs when the run began.
    """

    def __init__(self, workers: int | None, folder: Path) -> None:
        """Join a cluster, or start Ray here; where the process uses Ray already, that one is used.

        Args:
            workers: Evaluations at once, 1 or more; None takes one for each CPU of the cluster.
            folder: The run's folder for jobs; not needed, as nodes work on their own disks.

        Raises:
            UsageError: When Ray isn't installed, or `workers` is less than 1.
            RunError: When the cluster can't be reached, or Ray can't be started.
        """
        if workers is not None and workers < 1:
            raise UsageError(f"--workers is {workers}, and has to be 1 or more")
        self._ray = _import_ray()
        self._ours = not self._ray.is_initialized()
        if self._ours:
            _connect(self._ray)
        self.slots = workers or max(1, int(self._ray.cluster_resources().get("CPU", 1)))
        self._stop = threading.Event()
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._long = ThreadPoolExecutor(self.slots, thread_name_prefix="ray-evaluate")
        self._short = ThreadPoolExecutor(min(self.slots, 32), thread_name_prefix="ray-check")

    def submit(self, job: Job, on_partial: Partial | None = None) -> Future[Outcome]:
        """Queue a job; see `Executor.submit`."""
        pool = self._short if job.stage in SHORT else self._long
        try:
            return pool.submit(self._run, job, on_partial)
        except RuntimeError as error:
            raise RunError(f"can't run {job.name}: the executor is closed") from error

    def close(self) -> None:
        """Stop what runs, give up what waits, return when all of it is gone; then leave the cluster."""
        self._stop.set()
        self._long.shutdown()
        self._short.shutdown()
        while not self._idle.empty():
            self._ray.kill(self._idle.get())
        if self._ours:
            self._ours = False
            self._ray.shutdown()

    def _run(self, job: Job, on_partial: Partial | None) -> Outcome:
        errors = self._ray.exceptions
        once = None if on_partial is None else Once(on_partial)
        for again in (False, True):
            if again and once is not None:
                once.again()
            if self._stop.is_set():
                return Outcome(Status.LOST, "stopped before it began")
            try:
                return self._attempt(job, once, again)
            except errors.RayTaskError as error:
                raise RunError(f"the job {job.name} could not be run on its Ray node: {_last_line(error)}") from error
            except errors.RayError as error:
                lost = _last_line(error)
        if self._stop.is_set():
            return Outcome(Status.LOST, "stopped by the run")
        return Outcome(Status.LOST, f"the Ray node or process that ran it died, twice: {lost}")

    def _attempt(self, job: Job, on_partial: Partial | None, again: bool) -> Outcome:
        bench = self._bench(job, again)
        if bench is None:
            return Outcome(Status.LOST, "stopped before it began")
        whole = False
        try:
            outcome = self._follow(bench, job, on_partial)
            whole = not self._stop.is_set()
        finally:
            # The actor of a check holds nothing, and starting one takes longer than most checks.
            if whole and job.stage in SHORT:
                self._idle.put(bench)
            else:
                self._ray.kill(bench)
        return outcome

    def _bench(self, job: Job, fresh: bool) -> Any | None:
        """An actor that is ready for the job; None when the executor was closed before there was one.

        An actor that dies before the job begins isn't held against the job: a cluster takes some time to see that a
        node is gone, and goes on sending actors there.
        """
        began = time.monotonic()
        while not self._stop.is_set():
            bench = None
            if job.stage in SHORT and not fresh:
                with suppress(queue.Empty):
                    bench = self._idle.get_nowait()
            bench = bench or self._new_bench(job)
            placed = False
            try:
                placed = self._is_placed(bench, job)
            except self._ray.exceptions.RayActorError as error:
                if error.actor_init_failed:
                    need = "every node needs the same version of guided-evolution"
                    raise RunError(f"a Ray node can't run {job.name}: {_last_line(error)}; {need}") from error
                if time.monotonic() - began > SETTLE_SECONDS:
                    raise
                fresh = True
                self._stop.wait(1.0)
            finally:
                if not placed:
                    self._ray.kill(bench)
            if placed:
                return bench
        return None

    def _new_bench(self, job: Job) -> Any:
        needs: dict[str, Any] = {"num_cpus": 0, "num_gpus": 0, "scheduling_strategy": "SPREAD"}
        if job.stage not in SHORT:
            # A limit above what Ray offers of a node's memory must not keep the job from ever running.
            memory = min(job.memory_mb << 20, int(max(self._memories(job), default=1 << 62)))
            needs |= {"num_cpus": job.threads, "num_gpus": job.gpus, "memory": memory}
        surroundings = {CACHE_VARIABLE: str(cache_folder())}
        if not needs["num_gpus"]:
            # Ray leaves all GPUs of the node in sight of who asked for none.
            surroundings |= dict.fromkeys(("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"), "")
        limits = {"max_restarts": 0, "max_task_retries": 0, "max_concurrency": 4}
        return self._ray.remote(Bench).options(**needs, **limits).remote(surroundings)

    def _memories(self, job: Job) -> list[float]:
        """The memory that each living node offers to Ray, in bytes, of those with enough CPUs and GPUs for the job."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        return [
            node.get("memory", 0.0)
            for node in nodes
            if node.get("CPU", 0) >= job.threads and node.get("GPU", 0) >= job.gpus
        ]

    def _is_placed(self, bench: Any, job: Job) -> bool:
        """Wait until the actor runs; False when the executor was closed before.

        Raises:
            RunError: When no node has what the job needs, and none has come for long.
        """
        ready = bench.ready.remote()
        began = time.monotonic()
        while not self._ray.wait([ready], timeout=POLL)[0]:
            if self._stop.is_set():
                return False
            if time.monotonic() - began > GROW_SECONDS and job.stage not in SHORT:
                if not self._memories(job):
                    what = f"{job.threads} CPUs and {job.gpus:g} GPUs"
                    raise RunError(f"{job.name} needs {what} on one node, and no node of the Ray cluster has them")
                began = time.monotonic()
        self._ray.get(ready)
        return True

    def _follow(self, bench: Any, job: Job, on_partial: Partial | None) -> Outcome:
        """Start the job, pass its partial results on, and stop it when it's time."""
        ray = self._ray
        running = bench.perform.remote(job.to_json())
        taking = None if on_partial is None else bench.take.remote()
        pruned = False
        halted: float | None = None
        while True:
            # The last partial results come before the outcome.
            done, _ = ray.wait([taking or running], timeout=POLL)
            if done and taking is None:
                return _outcome(ray.get(running), pruned)
            if done and on_partial is not None:
                batch = ray.get(taking)
                taking = None if batch is None else bench.take.remote()
                for scores in batch or ():
                    pruned = pruned or bool(on_partial(scores))
            if halted is None and (pruned or self._stop.is_set()):
                halted = time.monotonic()
                bench.halt.remote()
            if halted is not None and time.monotonic() - halted > HALT_SECONDS:
                return Outcome(Status.LOST, "its Ray node no longer answered when it was stopped")


def _outcome(document: dict[str, Any], pruned: bool) -> Outcome:
    if "error" in document:
        raise RunError(document["error"])
    outcome = Outcome.from_json(document["outcome"])
    if pruned and outcome.status is Status.LOST:
        return replace(outcome, status=Status.PRUNED, reason="stopped early by the run")
    return outcome


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _import_ray() -> Any:
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise UsageError("--executor ray needs Ray: pip install 'guided-evolution[ray]'") from error


def require() -> None:
    """Looks whether Ray is installed, and whether anything answers where RAY_ADDRESS leads to.

    Raises:
        UsageError: When Ray isn't installed.
        RunError: When nothing answers there.
    """
    ray = _import_ray()
    address = os.environ.get("RAY_ADDRESS", "local")
    if not ray.is_initialized():
        try:
            _ring(address)
        except OSError:
            raise RunError(f"can't join the Ray cluster at RAY_ADDRESS={address}: nothing answers there") from None


def _connect(ray: Any) -> None:
    """Join the cluster of RAY_ADDRESS, or start Ray on this machine, without chatter.

    Raises:
        RunError: When the cluster can't be reached, or Ray can't be started.
    """
    address = os.environ.get("RAY_ADDRESS") or "local"
    what = "can't start Ray here" if address == "local" else f"can't join the Ray cluster at RAY_ADDRESS={address}"
    if address != "local":
        _knock(address, what)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    local = {"include_dashboard": False} if address == "local" else {}
    try:
        ray.init(address=address, **local, **_QUIET)
    except (ConnectionError, RuntimeError, ValueError, OSError, ray.exceptions.RayError) as error:
        raise RunError(f"{what}: {_last_line(error)}") from error


def _knock(address: str, what: str) -> None:
    """Join and leave in another process: where nothing answers, Ray tries for minutes and then ends its process."""
    try:
        _ring(address)
        command = [sys.executable, "-c", _KNOCK, address]
        subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=JOIN_SECONDS, check=True)
    except (OSError, subprocess.TimeoutExpired):
        raise RunError(f"{what}: nothing answers there") from None
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode("utf-8", "replace").strip()
        if "InvalidAuthToken" in said:
            said = "it asks for its token: set RAY_AUTH_MODE=token, with its file ~/.ray/auth_token here too"
        raise RunError(f"{what}: {said.splitlines()[-1] if said else 'no reason given'}") from None


def _ring(address: str) -> None:
    """Opens a connection to an address of the kind host:port and closes it; others can't be tried this way."""
    host, _, port = address.rpartition(":")
    if port.isdigit() and "/" not in host:
        socket.create_connection((host, int(port)), JOIN_SECONDS).close()
