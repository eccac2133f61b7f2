"""A run that is killed again and again, at any instant, ends as one that was left alone."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from guided_evolution.run import Run
from guided_evolution.store import FILE, Store
from guided_evolution.testing import TINY_EVALUATE, write_tiny_problem

GE = Path(sys.executable).parent / "ge"
KILLS, PER_RUN = 50, 9
OPTIONS = ("--seed", "3", "--generations", "3", "--p-eot", "0.5", "--llm-parallel", "2", "--sandbox", "off")

# every call is written down, whatever becomes of the process that made it
NOTE = """\
import hashlib, os, time
def note(*words):
    log = os.open(LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(log, (" ".join(words) + "\\n").encode())
    os.close(log)
def sha(text):
    return hashlib.sha256(text.encode()).hexdigest()
"""
MODEL = """\
from guided_evolution.testing import scripted_reply
small = True
def reply(prompt):
    note("ask", "begin", sha(prompt))
    time.sleep(0.12)
    note("ask", "end", sha(prompt))
    return "no" if "Change the order" in prompt else scripted_reply(prompt)
"""
EVALUATE = """\
once = evaluate
def evaluate(program):
    text = open(program).read()
    note("evaluate", "begin", sha(text))
    return once(program)
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kills")
    write_tiny_problem(folder / "tiny")
    head = f"LOG = {str(folder / 'log')!r}\n{NOTE}"
    (folder / "tiny" / "model.py").write_text(head + MODEL)
    (folder / "tiny" / "evaluate.py").write_text(head + TINY_EVALUATE + EVALUATE)
    return folder


def start(home: Path, run: Path) -> subprocess.Popen[bytes]:
    """`ge run`, or `ge resume` once there is a record."""
    verb = ["resume", str(run)] if (run / FILE).exists() else ["run", "tiny", "--run", str(run), *OPTIONS]
    with (run.parent / f"{run.name}.errors").open("ab") as said:
        return subprocess.Popen([str(GE), *verb], cwd=home, stdout=subprocess.DEVNULL, stderr=said)


def errors(run: Path) -> str:
    return (run.parent / f"{run.name}.errors").read_text()[-2000:]


def finish(home: Path, run: Path) -> float:
    begun = time.monotonic()
    process = start(home, run)
    assert process.wait(timeout=120) == 0, errors(run)
    return time.monotonic() - begun


def notes(home: Path) -> list[tuple[str, str, str]]:
    """Every note since the last time, with its kind, "begin" or "end", and what it was about."""
    log = home / "log"
    lines = log.read_text().split("\n")[:-1] if log.exists() else []
    with contextlib.suppress(FileNotFoundError):
        log.unlink()
    return [(kind, edge, sha) for kind, edge, sha in map(str.split, lines)]


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def recorded(run: Path) -> tuple[Counter[str], Counter[str], bool]:
    """The prompts with a reply in the record, the programs with the times they were scored, whether others wait."""
    if not (run / FILE).exists():
        return Counter(), Counter(), False
    store = Store.open(run)
    individuals = store.individuals()
    prompts = [
        sha(exchange.prompt)
        for individual in range(100)
        for exchange in (*store.exchanges(individual), *store.lessons(individual))
    ]
    again = store.outcomes("verify")
    programs = {each.id: sha(each.genome.files["seed.py"]) for each in individuals if each.outcome is not None}
    scored = Counter(set(programs.values())) + Counter({programs[number] for number in again})
    waiting = any(each.outcome is None for each in individuals)
    store.close()
    return Counter(prompts), scored, waiting


def story(folder: Path) -> str:
    """Everything about a run that must not depend on what happened to its process."""
    run = Run(folder)
    told = []
    for each in run.individuals:
        whole = run.individual(each.id)
        told.append(
            {
                "id": each.id,
                "generation": each.generation,
                "files": each.genome.files,
                "digest": each.genome.digest,
                "parents": each.origin.parents,
                "steps": [str(step) for step in each.origin.steps],
                "status": each.status,
                "scores": each.scores,
                "reason": each.outcome.reason if each.outcome else None,
                "twin": each.twin,
                "exchanges": [
                    (exchange.purpose, exchange.prompt, exchange.reply, exchange.verdict, exchange.temperature)
                    for exchange in whole.origin.exchanges
                ],
            }
        )
    front = [each.id for each in run.front]
    return json.dumps([told, front, run.hypervolume(), run.status, run.stop_reason], indent=1, default=str)


@pytest.mark.slow
def test_fifty_kills_give_the_run_that_was_left_alone(home: Path) -> None:
    duration = finish(home, home / "whole")
    whole = story(home / "whole")
    prompts, *_ = recorded(home / "whole")
    asked = Counter(sha for kind, edge, sha in notes(home) if (kind, edge) == ("ask", "begin"))
    assert asked == prompts
    assert len(Run(home / "whole").individuals) == 17
    draw = random.Random(7)
    kinds: Counter[str] = Counter()
    killed, number = 0, 0
    # on a slow machine a question takes little of the time, so it may need some more
    while killed < KILLS or (len(+kinds) < 3 and killed < 3 * KILLS):
        run, lost, calls, done = home / f"run{number}", 0, Counter[str](), False
        for session in range(PER_RUN + 1):
            known, scored, _ = recorded(run)
            process = start(home, run)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=draw.uniform(0.05, 0.3) * duration if session < PER_RUN else 120)
            done = process.poll() is not None
            process.kill()
            assert process.wait() == (0 if done else -signal.SIGKILL), errors(run)
            found = notes(home)
            begun = Counter(sha for kind, edge, sha in found if (kind, edge) == ("ask", "begin"))
            calls += begun
            now, _, waiting = recorded(run)
            lost += (begun - (now - known)).total()
            # what enters the front is scored once more
            fresh = Counter(sha for kind, _, sha in found if kind == "evaluate")
            assert all(fresh[sha] <= 2 - scored[sha] for sha in fresh if scored[sha]), "scored too often"
            assert all(begun[sha] <= prompts[sha] - known[sha] for sha in begun), "asked twice"
            if done:
                break
            killed += 1
            asking = begun - Counter(sha for kind, edge, sha in found if (kind, edge) == ("ask", "end"))
            kinds["asking"] += bool(asking)
            kinds["scoring"] += waiting
            kinds["neither"] += not asking and not waiting
        assert calls.total() == prompts.total() + lost
        assert lost <= 2 * PER_RUN, "at most the calls in flight at each kill"
        assert story(run) == whole
        number += 1
    assert len(+kinds) == 3, f"kills at every kind of step: {kinds}"
    print(duration, kinds)
    leave_nothing_behind(home)


def leave_nothing_behind(home: Path) -> None:
    """No process of a killed session may outlive the run."""
    deadline = time.monotonic() + 10
    while left := [pid for pid in Path("/proc").glob("[0-9]*") if str(home) in arguments(pid)]:
        assert time.monotonic() < deadline, [arguments(pid) for pid in left]
        time.sleep(0.1)


def arguments(pid: Path) -> str:
    with contextlib.suppress(OSError):
        return (pid / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    return ""
