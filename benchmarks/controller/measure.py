"""What the controller itself takes for each candidate, and whether that grows with the history of a run.

    python benchmarks/controller/measure.py [--candidates 100 1000 10000] [--schedules generational steady]
        [--fronts bounded growing] [--json FILE]

A model and an executor in this process answer at once, so what is left is the controller: selection, prompts, reading
replies, the record. Each run has a process of its own. The table is printed as Markdown.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from guided_evolution.evaluation import Job
from guided_evolution.events import Event
from guided_evolution.evolution import Evolution
from guided_evolution.individual import Outcome, Status
from guided_evolution.llm import Reply, Request
from guided_evolution.problem import Objective, Problem
from guided_evolution.settings import Settings
from guided_evolution.store import Store

POPULATION = 16
BLOCKS = 6
# a block of a usual length: what a prompt carries and what is parsed
FILLER = "\n".join(f"    value = value * {number} + {number}" for number in range(2, 22))
SEED = "\n\n".join(
    f'def part_{index}(value):\n    """Returns a changed value."""\n{FILLER}\n    return value + 0'
    for index in range(BLOCKS)
)
OBJECTIVES = (Objective("quality"), Objective("cost", "min"))
_NUMBER = re.compile(r"return value \+ (\d+)")


class Model:
    """Answers every prompt at once with its last block, which returns a new number."""

    name = "answering"
    small = False

    def __init__(self) -> None:
        self._asked = 0

    def price(self, tokens_in: int, tokens_out: int) -> float:
        """A model of one's own costs nothing."""
        return 0.0

    async def ask(self, request: Request, on_text: Callable[[str], None] | None = None) -> Reply:
        """The block with the next number."""
        self._asked += 1
        block = re.findall(r"```python\n(.*?)```", request.prompt, re.DOTALL)[-1]
        text = f"```python\n{_NUMBER.sub(f'return value + {self._asked}', block)}```"
        return Reply(text, self.name, tokens_in=len(request.prompt) // 4, tokens_out=len(text) // 4, usd=0.0)

    async def close(self) -> None:
        """Holds nothing."""


class AnsweringExecutor:
    """Scores a program at once, in this process, by the largest number in it."""

    slots = 8

    def __init__(self, front: str) -> None:
        self._growing = front == "growing"

    def submit(self, job: Job, on_partial: object = None) -> Future[Outcome]:
        """See `Executor.submit`."""
        number = max(int(found) for text in job.files.values() for found in _NUMBER.findall(text))
        future: Future[Outcome] = Future()
        future.set_result(Outcome(Status.OK, scores=self._scores(number) if job.stage == "evaluate" else {}))
        return future

    def _scores(self, number: int) -> dict[str, float]:
        if self._growing:  # nobody is better than anybody else
            return {"quality": float(number), "cost": float(number)}
        return {"quality": float(number % 10), "cost": float(number % 10 + number // 10 % 3)}

    def close(self) -> None:
        """Nothing runs."""


@dataclass
class Meter:
    """A listener that reads the clocks at every candidate."""

    cpu: list[float] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)

    def on(self, event: Event) -> None:
        """Takes one event; see `Listener.on`."""
        if event.kind == "individual":
            self.cpu.append(time.process_time())
            self.resident.append(_resident())


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_bytes().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def measure(candidates: int, schedule: str, front: str) -> dict[str, Any]:
    """One run in this process: milliseconds and kilobytes for each candidate."""
    meter = Meter()
    with tempfile.TemporaryDirectory(prefix="controller-") as name:
        folder = Path(name)
        (folder / "evaluate.py").write_text("def evaluate(program): ...\n", encoding="utf-8")
        problem = Problem(folder, "controller", {"seed.py": SEED}, OBJECTIVES)
        population = min(POPULATION, candidates)
        settings = Settings(
            population=population,
            generations=candidates // population - 1,
            schedule=schedule,
            llm="answering",
            llm_parallel=8,
            workers=8,
            threads=1,
        )
        store = Store.create(folder / "run")
        begin, wall = time.process_time(), time.monotonic()
        asyncio.run(Evolution(problem, settings, store, Model(), AnsweringExecutor(front), [meter]).run())
        wall = time.monotonic() - wall
        front_size = len({(row.scores["quality"], row.scores["cost"]) for row in _front(store, problem)})
        size = sum(path.stat().st_size for path in (folder / "run").iterdir())
        store.close()
    return {
        "candidates": len(meter.cpu) - 1,
        "schedule": schedule,
        "front": front,
        "front_size": front_size,
        "cpu_ms": 1000 * (meter.cpu[-1] - begin) / len(meter.cpu),
        "wall_ms": 1000 * wall / len(meter.cpu),
        "record_kb": size / 1024 / len(meter.cpu),
        **_tenths(meter),
    }


def _front(store: Store, problem: Problem) -> Sequence[Any]:
    from guided_evolution.population import front

    return front(problem, store.individuals())


def _tenths(meter: Meter) -> dict[str, float]:
    """The first and the last tenth; the very first candidates pay for what is loaded once, and are left out."""
    count = len(meter.cpu)
    tenth, skipped = max(2, count // 10), min(20, count // 10)
    first = (meter.cpu[skipped + tenth - 1] - meter.cpu[skipped]) / (tenth - 1)
    last = (meter.cpu[-1] - meter.cpu[-tenth]) / (tenth - 1)
    half = count // 2
    grown = (meter.resident[-1] - meter.resident[half]) / (count - half)
    return {"first_ms": 1000 * first, "last_ms": 1000 * last, "growth": last / first, "memory_kb": grown / 1024}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The figures as Markdown."""
    lines = [
        "| front | schedule | candidates | CPU ms, first tenth | last tenth | growth | memory, kB | record, kB |",
        "|" + "---|" * 8,
    ]
    for row in rows:
        kind = f"{row['front']} ({row['front_size']}) | {row['schedule']} | {row['candidates']:,}"
        times = f"{row['first_ms']:.1f} | {row['last_ms']:.1f} | {row['growth']:.2f}"
        lines.append(f"| {kind} | {times} | {row['memory_kb']:.1f} | {row['record_kb']:.1f} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print the table, and write the figures where asked."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--candidates", nargs="+", type=int, default=[100, 1_000, 10_000])
    parser.add_argument(
        "--schedules", nargs="+", choices=("generational", "steady"), default=["generational", "steady"]
    )
    parser.add_argument("--fronts", nargs="+", choices=("bounded", "growing"), default=["bounded", "growing"])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--here", action="store_true", help="in this process, for a profiler")
    options = parser.parse_args()
    kinds = [(n, s, f) for f in options.fronts for s in options.schedules for n in options.candidates]
    rows = []
    for kind in kinds:
        found = [measure(*kind) if options.here else _apart(*kind) for _ in range(options.rounds)]
        rows.append({**found[0], **{name: statistics.median(row[name] for row in found) for name in _MEDIANS}})
    print(table(rows))
    if options.json:
        machine = {"cores": os.cpu_count(), "system": platform.system(), "python": platform.python_version()}
        document = {"machine": machine, "load": os.getloadavg()[0], "runs": rows}
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


_MEDIANS = ("cpu_ms", "wall_ms", "record_kb", "first_ms", "last_ms", "growth", "memory_kb")


def _apart(candidates: int, schedule: str, front: str) -> dict[str, Any]:
    """One run in a process of its own."""
    code = f"import json, measure; print(json.dumps(measure.measure({candidates}, {schedule!r}, {front!r})))"
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    main()
