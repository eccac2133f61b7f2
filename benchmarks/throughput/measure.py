"""How full the lanes are kept: wall time over the floor that no schedule can go below, for us and for two peers.

    python benchmarks/throughput/measure.py [--peers FOLDER] [--json FILE]
        [--only SYSTEM ...] [--candidates N ...] [--slots N ...] [--durations equal|unequal ...] [--seconds S]
        [--rounds N] [--full]

The model is a server on this machine that answers after a fixed time, the evaluation a wait of a fixed time; see
`lanes.py`. The peers' environments are made by `peers.sh FOLDER`; without them only our own schedules are measured.
The tables are printed as Markdown, each run as JSON on stderr as it ends.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lanes import PROGRAM, Interval, Lanes, Work, busy

from guided_evolution.evaluation import sandbox

HERE = Path(__file__).parent
DOCUMENTED = "-as-documented"
PROBLEM = """\
name = "lanes"
summary = "A number."
seed = ["program.py"]
[[objective]]
name = "quality"
[[objective]]
name = "cost"
goal = "min"
[limits]
seconds = 120
[sandbox]
preload = ["argparse", "json", "re"]
"""
# candidates, slots, unequal
USUAL = [
    (64, 1, False),
    (64, 4, False),
    *((64, slots, unequal) for slots in (8, 16) for unequal in (False, True)),
    *((512, 16, unequal) for unequal in (False, True)),
]
FULL = [(count, slots, unequal) for count in (64, 512) for slots in (1, 4, 8, 16) for unequal in (False, True)]


@dataclass(frozen=True)
class System:
    """One way of running.

    Attributes:
        driver: The script below `drivers`.
        home: The environment below the peers' folder; empty for ours.
        package: What its version is asked of.
    """

    name: str
    driver: str
    home: str
    package: str

    def option(self, slots: int) -> str:
        """The driver's last argument: our schedule, or how many candidates a peer has on the way at once."""
        return self.name if not self.home else str(slots if self.name.endswith(DOCUMENTED) else 2 * slots)

    def python(self, peers: Path | None) -> Path | None:
        """Its interpreter; None where it isn't installed."""
        if not self.home:
            return Path(sys.executable)
        found = peers / self.home / "bin" / "python" if peers else None
        return found if found is not None and found.exists() else None


SYSTEMS = (
    System("steady", "guided", "", "guided-evolution"),
    System("generational", "guided", "", "guided-evolution"),
    System("openevolve", "open_evolve", "openevolve", "openevolve"),
    System("openevolve-as-documented", "open_evolve", "openevolve", "openevolve"),
    System("shinka", "shinka_evolve", "shinka", "shinka-evolve"),
)


def run(system: System, python: Path, work: Work) -> dict[str, Any]:
    """One run of one system, and what both lanes saw of it."""
    with problem_folder(work) as folder, Lanes(work, folder) as lanes:
        command = [str(python), str(HERE / "drivers" / f"{system.driver}.py"), str(folder), lanes.url]
        command += [str(work.candidates), str(work.slots), system.option(work.slots)]
        with (folder / "said").open("w+b") as said, (folder / "complaints").open("w+b") as complaints:
            begin = time.time()
            process = subprocess.Popen(command, stdout=said, stderr=complaints, cwd=folder, start_new_session=True)
            usage, code = _wait(process, begin + 60 + 8 * work.floor)
            end = time.time()
            time.sleep(0.2)  # the last lines of the log
            said.seek(0)
            complaints.seek(0)
            told = said.read().decode("utf-8", "replace").strip().splitlines()
            trouble = complaints.read().decode("utf-8", "replace").strip().splitlines()
        own = json.loads(told[-1]) if not system.home and code == 0 and told else {}
        seen = figures(work, lanes.replies, lanes.evaluations, begin, end)
        cpu = usage.ru_utime + usage.ru_stime
    return {
        "system": system.name,
        "candidates": work.candidates,
        "slots": work.slots,
        "unequal": work.unequal,
        "seconds": work.seconds,
        "floor": work.floor,
        **seen,
        "exit": code,
        "requests": lanes.requests,
        "cpu_ms": 1000 * cpu / work.candidates,
        **{f"{name}_ms": 1000 * value / work.candidates for name, value in own.items()},
        "load": os.getloadavg()[0],
        **({"trouble": trouble[-3:]} if code else {}),
    }


@contextlib.contextmanager
def problem_folder(work: Work) -> Iterator[Path]:
    """A folder that is a problem for every system, open to the user of a jailed evaluation."""
    with tempfile.TemporaryDirectory(prefix="lanes-") as name:
        folder = Path(name) / "problem"
        Path(name).chmod(0o755)
        folder.mkdir(mode=0o755)
        shutil.copy(HERE / "evaluate.py", folder)
        durations = [work.duration("evaluation", number) for number in range(2 * work.candidates + 1)]
        for file, text in {
            "problem.toml": PROBLEM,
            "program.py": PROGRAM,
            "lane.json": json.dumps({"durations": durations}),
        }.items():
            (folder / file).write_text(text, encoding="utf-8")
        yield folder


def figures(
    work: Work, replies: Sequence[Interval], evaluations: Sequence[Interval], begin: float, end: float
) -> dict[str, Any]:
    """What the lanes saw: the span from the seed's evaluation to the last one's end, and its ratio to the floor."""
    children = [each for each in evaluations if each.number]
    distinct = {each.number for each in children}
    found = {"wall": end - begin, "replies": len(replies), "evaluations": len(children), "distinct": len(distinct)}
    if not children:
        return found
    first = min(each.begin for each in (*evaluations, *replies))
    last = max(each.end for each in children)
    span = last - first
    return {
        **found,
        "span": span,
        # what was not evaluated was not waited for: such a run is compared with no floor
        "ratio": span / work.floor if len(distinct) >= work.candidates else None,
        "outside": end - begin - span,
        "model_use": busy(replies) / work.slots / span,
        "evaluation_use": busy(evaluations) / work.slots / span,
    }


def _wait(process: subprocess.Popen[bytes], deadline: float) -> tuple[Any, int]:
    """The process's use of the machine, its children included, and its status; it is killed at the deadline."""
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            return usage, process.returncode
        if time.time() > deadline:
            os.killpg(process.pid, signal.SIGKILL)
        time.sleep(0.01)


def version(system: System, python: Path) -> str:
    """The installed version of a system."""
    code = f"from importlib import metadata; print(metadata.version({system.package!r}))"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def table(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> str:
    """Ratios to the floor as Markdown, one line for each kind of run, medians over its rounds."""
    cells: dict[tuple[Any, ...], dict[str, list[dict[str, Any]]]] = {}
    for row in rows:
        key = (row["candidates"], row["slots"], row["unequal"], row["floor"])
        cells.setdefault(key, {}).setdefault(row["system"], []).append(row)
    lines = ["| candidates | slots | durations | floor, s | " + " | ".join(names) + " |"]
    lines += ["|" + "---|" * (4 + len(names))]
    for (candidates, slots, unequal, floor), found in sorted(cells.items()):
        shown = [_cell(found.get(name, []), candidates) for name in names]
        kind = "unequal" if unequal else "equal"
        lines.append(f"| {candidates} | {slots} | {kind} | {floor:.1f} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def _cell(rows: Sequence[dict[str, Any]], candidates: int) -> str:
    if not rows:
        return ""
    ratios = [row["ratio"] for row in rows if row.get("ratio")]
    if len(ratios) < len(rows):
        return f"{min(row['distinct'] for row in rows)} of {candidates} evaluated"
    extra = max(row["evaluations"] for row in rows) - candidates
    return f"{statistics.median(ratios):.2f}" + (f" (+{extra})" if extra else "")


def costs(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> str:
    """What each system takes besides: processor time for a candidate, and seconds before and after, as Markdown."""
    lines = ["| | CPU ms per candidate | start and end, s | replies per candidate |", "|---|---|---|---|"]
    for name in names:
        of = [row for row in rows if row["system"] == name and row.get("ratio")]
        if of:
            parts = [f"{statistics.median(row['cpu_ms'] for row in of):.0f}"]
            if "controller_ms" in of[0]:
                split = (statistics.median(row[f"{part}_ms"] for row in of) for part in ("controller", "evaluation"))
                parts.append("({:.0f} controller, {:.0f} evaluation)".format(*split))
            outside = statistics.median(row["outside"] for row in of)
            replies = statistics.mean(row["replies"] / row["candidates"] for row in of)
            lines.append(f"| {name} | {' '.join(parts)} | {outside:.1f} | {replies:.2f} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print the tables, and write the figures where asked."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", nargs="+", choices=[system.name for system in SYSTEMS])
    parser.add_argument("--candidates", nargs="+", type=int)
    parser.add_argument("--slots", nargs="+", type=int)
    parser.add_argument("--durations", nargs="+", choices=("equal", "unequal"))
    parser.add_argument("--seconds", type=float, help="of a reply and of an evaluation; 1, and 2 with 16 slots")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--full", action="store_true")
    options = parser.parse_args()
    only = options.only or [system.name for system in SYSTEMS if options.full or not system.name.endswith(DOCUMENTED)]
    wanted = [system for system in SYSTEMS if system.name in only]
    found = {system: system.python(options.peers) for system in wanted}
    installed = {system: python for system, python in found.items() if python is not None}
    for system in wanted:
        if system not in installed:
            print(f"{system.name} is left out: --peers names no folder with {system.home}", file=sys.stderr)
    rows = []
    for _ in range(options.rounds):
        for candidates, slots, unequal in _cells(options):
            for system, python in installed.items():
                # more than eight candidates a second are more than two cores can start processes for
                work = Work(candidates, slots, options.seconds or max(1.0, slots / 8), unequal)
                row = run(system, python, work)
                rows.append(row)
                print(json.dumps(row), file=sys.stderr)
    names = [system.name for system in installed]
    print(table(rows, names), costs(rows, names), sep="\n\n")
    if options.json:
        document = {
            "machine": {"cores": os.cpu_count(), "system": platform.system(), "python": platform.python_version()},
            "sandbox": sandbox.probe().level,
            "versions": {system.name: version(system, python) for system, python in installed.items()},
            "runs": rows,
        }
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _cells(options: argparse.Namespace) -> list[tuple[int, int, bool]]:
    if not (options.candidates or options.slots):
        cells = FULL if options.full else USUAL
    else:
        cells = [
            (count, slots, unequal)
            for count in options.candidates or (64,)
            for slots in options.slots or (1, 4, 8, 16)
            for unequal in (False, True)
        ]
    wanted = options.durations or ("equal", "unequal")
    return [cell for cell in cells if ("unequal" if cell[2] else "equal") in wanted]


if __name__ == "__main__":
    main()
