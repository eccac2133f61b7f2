"""Score one candidate: the program that runs in a process of its own and sees nothing else of the run.

It is started by path with the job folder as its argument and imports only the standard library, so any
interpreter can run it. It reads a secret from its standard input, calls one function of the evaluator, and
leaves `result.json` (and `progress.jsonl` for partial results), each signed with the secret. A candidate
that writes such a file by itself and leaves is therefore not believed.

The candidate runs in this very process. `guard` notices when it replaced what it is measured with; code that is
made to cheat can still look for the secret in this program's frames, jailed or not. Whoever needs more scores
outside of the candidate's process.
"""

from __future__ import annotations

import ctypes
import hashlib
import hmac
import importlib.util
import inspect
import json
import math
import os
import random
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MIB = 1 << 20
RESERVE = 64 * MIB
MODULE = "_guided_evolution_evaluator"
GUARD = "_guided_evolution_guard"
SYSCALLS = "_guided_evolution_syscalls"
MAX_FEEDBACK = 4_000
MAX_REASON = 500
MAX_FRAMES = 20
MAX_FILE = 4 << 30
MAX_OPEN = 4_096
# Processes and threads; counted for a user or a namespace, so only where the job has one of its own.
MAX_PROCESSES = 1_024
PR_SET_PDEATHSIG = 1
PR_SET_NO_NEW_PRIVS = 38
CAPABILITY_VERSION = 0x20080522
FULL = ("out of memory", "can't allocate memory", "cannot allocate memory")


# What signs a result is taken before any program is loaded.
DUMPS, SIGN, SHA256 = json.dumps, hmac.new, hashlib.sha256


class ResultError(Exception):
    """Raised when the evaluator returned something that is not a score; its text is the reason."""


@dataclass(frozen=True, slots=True)
class Context:
    """What an evaluator may know about its job, handed over as its second parameter.

    Attributes:
        seed: For every generator of random numbers that the evaluator uses.
        device: "cpu" or "cuda".
        scratch: A folder that is thrown away afterwards; also the working directory.
        data: The data folder, or None.
        stage: "prepare", "check", "evaluate" or "test".
        threads: CPU threads the candidate may use.
    """

    seed: int
    device: str
    scratch: Path
    data: Path | None
    stage: str
    threads: int


def main(folder: Path) -> None:
    """Run the job that lies in `folder`, write its signed result and leave at once.

    Args:
        folder: The job folder, with `job.json` and the folder `scratch`.
    """
    with open(0, encoding="ascii", closefd=False) as pipe:
        nonce = pipe.read().strip().encode()
    _let_go_of_stdin()
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    _restrict(job)
    scratch = folder / "scratch"
    for payload in _produce(job, scratch):
        text = DUMPS(payload, allow_nan=False)
        mark = SIGN(nonce, text.encode(), SHA256).hexdigest()
        try:
            _write(scratch / ".worker", payload["kind"], DUMPS({"payload": text, "hmac": mark}))
        except OSError as error:
            _say(f"the {payload['kind']} could not be written: {error.strerror}")
            os._exit(1)
    with suppress(OSError, ValueError, AttributeError):
        sys.stdout.flush()
        sys.stderr.flush()
    # Threads and exit handlers of the candidate's must not keep a finished job alive.
    os._exit(0)


def _say(text: str) -> None:
    # Straight to the pipe: the candidate may have replaced or closed sys.stderr.
    with suppress(OSError):
        os.write(2, f"{text}\n".encode("utf-8", "replace"))


def _let_go_of_stdin() -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)


def _restrict(job: Mapping[str, Any]) -> None:
    """Set the limits that the kernel keeps by itself, and become who the job is to run as.

    The supervisor watches the whole tree besides.
    """
    # Address space that is reserved counts too (thread stacks, arenas), so the margin is wide: this only
    # stops a single huge allocation that would hit the machine between two looks of the supervisor.
    data = int(job["memory_mb"] * 1.25 + 1024) * MIB + RESERVE
    seconds = int(job["seconds"] * (job["threads"] + 1)) + 10
    for kind, most in (
        (resource.RLIMIT_DATA, data),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, MAX_FILE),
        (resource.RLIMIT_NOFILE, MAX_OPEN),
        (resource.RLIMIT_CPU, seconds),
        *([(resource.RLIMIT_NPROC, MAX_PROCESSES)] if job["jailed"] else []),
    ):
        _, hard = resource.getrlimit(kind)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        soft = max(0, most - RESERVE) if kind == resource.RLIMIT_DATA else most
        with suppress(OSError, ValueError):
            resource.setrlimit(kind, (soft, most))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        # If the machine runs out of memory, the kernel shall pick the candidate and not the run.
        with suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    if job["uid"] is not None:
        os.setgroups([])
        os.setresgid(job["uid"], job["uid"], job["uid"])
        os.setresuid(job["uid"], job["uid"], job["uid"])
        header, nothing = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0), (ctypes.c_uint32 * 6)()
        ctypes.CDLL(None).capset(ctypes.byref(header), ctypes.byref(nothing))
        # it is cleared by the change of user
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if sys.platform == "linux":
        if job["cores"]:
            with suppress(OSError):  # a core may have gone offline
                os.sched_setaffinity(0, job["cores"])
        ctypes.CDLL(None).prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        if job["jailed"]:
            _load(Path(__file__).with_name("syscalls.py"), SYSCALLS).refuse()


def _make_room(chain: list[BaseException]) -> None:
    """Free what the failed frames hold, and open the reserve: the report needs some memory too."""
    for link in chain:
        traceback.clear_frames(link.__traceback__)
    with suppress(OSError, ValueError):
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))


def _write(folder: Path, kind: str, line: str) -> None:
    if kind == "progress":
        with (folder / "progress.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        return
    draft = folder / "result.json.part"
    draft.write_text(line, encoding="utf-8")
    draft.replace(folder / "result.json")


def _produce(job: Mapping[str, Any], scratch: Path) -> Iterator[dict[str, Any]]:
    """Yield the partial results as they come, and last of all the result, whatever the candidate does."""
    folders = (scratch / "program", Path(job["problem"]))
    try:
        answer, guard = _call(job, scratch, folders)
        if isinstance(answer, Iterator):
            last: object = None
            while True:
                try:
                    last = next(answer)
                except StopIteration as end:
                    answer = end.value if isinstance(end.value, Mapping) else last
                    break
                _require_unchanged(guard)
                scores = {name: value for name, value in _table(last, job).items() if _is_finite(value)}
                yield {"kind": "progress", "scores": {name: float(value) for name, value in scores.items()}}
        result = _judge(answer, job)
        _require_unchanged(guard)
    except ResultError as error:
        result = {"status": "crashed", "reason": str(error)}
    except BaseException as error:  # noqa: BLE001 - the border: anything a candidate raises is its result
        result = _failure(error, folders)
    yield {"kind": "result", **result}


def _require_unchanged(guard: Any) -> None:
    if what := guard.changed():
        raise ResultError(f"the program changed {what}, so its score is not believed")


def _call(job: Mapping[str, Any], scratch: Path, folders: tuple[Path, Path]) -> tuple[object, Any]:
    """Import the evaluator and call the stage's function; a missing `check` or `prepare` passes.

    Returns:
        The function's answer, and the guard that was set before it was called.
    """
    stage: str = job["stage"]
    data = None if job["data"] is None else Path(job["data"])
    context = Context(job["seed"], job["device"], scratch, data, stage, job["threads"])
    # The program first: its files import each other, and not the originals beside the evaluator.
    sys.path[:0] = [str(folder) for folder in folders]
    random.seed(context.seed)
    evaluator = _load(folders[1] / job["evaluator"], MODULE)
    guard = _load(Path(__file__).with_name("guard.py"), GUARD).Guard(evaluator, folders[1])
    function = getattr(evaluator, stage, None)
    if function is None:
        if stage in ("check", "prepare"):
            return None, guard
        raise ResultError(f"{job['evaluator']} has no function {stage}")
    given = [] if stage == "prepare" else [str(folders[0] / job["program"])]
    if _places(function) > len(given):
        return function(*given, context), guard
    return function(*given), guard


def _load(path: Path, name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ResultError(f"{path.name} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _places(function: Callable[..., object]) -> int:
    """How many positional arguments a function can take; 2 where it can take any number."""
    count = 0
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            return max(count, 2)
        count += parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    return count


def _judge(answer: object, job: Mapping[str, Any]) -> dict[str, Any]:
    """Turn what the stage's function returned into the fields of a result, or raise ResultError."""
    stage = job["stage"]
    if stage in ("check", "prepare"):
        if answer is False:
            raise ResultError(f"{stage} returned False")
        if stage == "prepare" or not isinstance(answer, Mapping):
            return {"status": "ok", "feedback": _feedback(answer)}
    table = _table(answer, job)
    # a check may know some of the objectives already
    known = [name for name in job["objectives"] if name in table]
    wanted = {"check": known, "test": table.keys()}.get(stage, job["objectives"])
    scores: dict[str, float] = {}
    for name in wanted:
        if stage != "test":
            scores[name] = _objective(name, table, job["ranges"])
        elif _is_finite(table[name]):
            scores[name] = float(table[name])
    if stage == "test" and not scores:
        raise ResultError("test returned no finite number")
    rest = {name: float(value) for name, value in table.items() if name not in scores and _is_finite(value)}
    return {"status": "ok", "scores": scores, "metrics": rest, "feedback": _feedback(answer)}


def _table(answer: object, job: Mapping[str, Any]) -> dict[str, Any]:
    """The named values of a result: a dict, an object with `metrics`, or one bare number."""
    if isinstance(answer, Mapping):
        return {name: value for name, value in answer.items() if isinstance(name, str)}
    metrics = getattr(answer, "metrics", None)
    if isinstance(metrics, Mapping):
        return _table(metrics, job)
    if _number(answer) is not None:
        objectives = job["objectives"]
        return {objectives[0] if len(objectives) == 1 else "combined_score": answer}
    what = "nothing (None)" if answer is None else f"a {type(answer).__name__}"
    raise ResultError(f"{job['stage']} returned {what}, expected a dict")


def _objective(name: str, table: Mapping[str, Any], ranges: Mapping[str, tuple[float, float]]) -> float:
    if name not in table:
        raise ResultError(f'objective "{name}" is missing')
    number = _number(table[name])
    if number is None:
        raise ResultError(f'objective "{name}" is a {type(table[name]).__name__}, expected a number')
    if not math.isfinite(number):
        raise ResultError(f'objective "{name}" is {number}')
    low, high = ranges.get(name, (-math.inf, math.inf))
    if not low <= number <= high:
        raise ResultError(f'objective "{name}" is {number:g}, outside its range from {low:g} to {high:g}')
    return number


def _number(value: Any) -> float | None:
    """A real number as a float, or None; truth values and texts are not numbers, even where float() works."""
    if isinstance(value, str | bytes | bytearray) or type(value).__name__ in ("bool", "bool_"):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf
    except (TypeError, ValueError, RuntimeError):
        return None


def _is_finite(value: Any) -> bool:
    number = _number(value)
    return number is not None and math.isfinite(number)


def _feedback(answer: object) -> str:
    text = answer.get("feedback") if isinstance(answer, Mapping) else None
    return text[:MAX_FEEDBACK] if isinstance(text, str) else ""


def _failure(error: BaseException, folders: tuple[Path, Path]) -> dict[str, Any]:
    """Name what was raised and where, and leave the frames that matter in the log."""
    chain = _chain(error)
    _make_room(chain)
    text = _describe(error)
    frames = [_own_frames(link, folders) for link in chain]
    program = [frame for own in frames for frame in own if frame[0] == 0][-1:]
    evaluator = [frame for own in frames for frame in own][-1:]
    where = "" if isinstance(error, SyntaxError) else "".join(f" ({at})" for _, at, _ in program or evaluator)
    lines = ["Traceback, only the program and the evaluator:"]
    lines += [f"  {at}: {line}" for _, at, line in frames[-1][-MAX_FRAMES:]]
    _say("\n".join([*lines, text[:MAX_FEEDBACK]]))
    full = any(isinstance(link, MemoryError) or _says_full(link) for link in chain)
    line = " ".join(text.split())
    line = line if len(line) <= MAX_REASON else line[: MAX_REASON - 1] + "…"
    return {"status": "out_of_memory" if full else "crashed", "reason": line + where}


def _chain(error: BaseException) -> list[BaseException]:
    """The error and what it was raised from, the first cause first; at most ten."""
    chain = [error]
    while len(chain) < 10:
        last = chain[-1]
        before = last.__cause__ or (None if last.__suppress_context__ else last.__context__)
        if before is None:
            break
        chain.append(before)
    return chain[::-1]


def _describe(error: BaseException) -> str:
    lines = traceback.format_exception_only(error)
    if not isinstance(error, SyntaxError):
        return "".join(lines).strip()
    name = Path(error.filename or "").name
    return lines[-1].strip() + (f" ({name}:{error.lineno})" if name else "")


def _own_frames(error: BaseException, folders: tuple[Path, Path]) -> list[tuple[int, str, str]]:
    """The traceback's frames within `folders`: which folder, "file:line in function", and the line."""
    found = []
    for frame in traceback.extract_tb(error.__traceback__):
        path = Path(frame.filename).absolute()
        for index, folder in enumerate(folders):
            if path.is_relative_to(folder):
                at = f"{path.relative_to(folder)}:{frame.lineno} in {frame.name}"
                found.append((index, at, frame.line or ""))
                break
    return found


def _says_full(error: BaseException) -> bool:
    return isinstance(error, RuntimeError | OSError) and any(word in _describe(error).lower() for word in FULL)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
