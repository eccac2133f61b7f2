"""How fast the embedded model answers the prompts of mutations, under several settings of its engine, in one run.

    python benchmarks/local_model/measure.py [--model NAME] [--prompts 12] [--rounds 2] [--only NAME ...] [--json FILE]

The prompts are those that `ge run examples/digits` asks, made by the product's own breeder. Every setting gets a fresh
engine and the same prompts, temperatures, token limits and seeds; the settings take turns, so that a busy moment of a
machine does not hit one alone. "plain" is llama.cpp as it comes, "product" is what `ge run` uses, and each other
setting differs from it in what its name says. Sampled text differs between settings, so look at tokens a second as well
as at seconds per mutation. Leave the machine alone while it runs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from guided_evolution.breeding import Breeder, Plan
from guided_evolution.errors import RequestRefusedError
from guided_evolution.executors.local import LocalExecutor
from guided_evolution.individual import Individual
from guided_evolution.llm import Reply, Request, models, server
from guided_evolution.llm.local import CONTEXT
from guided_evolution.problem import Problem
from guided_evolution.scoring import Scorer
from guided_evolution.settings import Settings
from guided_evolution.store import Store

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits"
CORES = len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Setting:
    """What is varied: the engine's options, and how many prompts are asked at the same time."""

    name: str
    changes: dict[str, Any] = field(default_factory=dict)
    slots: int = 1


def settings() -> list[Setting]:
    speculation = [
        Setting(f"speculate {kind}", {"speculate": kind}) for kind in ("ngram_simple", "ngram_map_k", "ngram_mod")
    ]
    threads = [Setting(f"threads {count}", {"threads": count}) for count in sorted({1, 2 * CORES, max(1, CORES // 2)})]
    return [
        Setting("plain", {"plain": True}),
        Setting("product"),
        *[each for each in threads if each.changes["threads"] != CORES],
        *[Setting(f"batch {size}", {"n_batch": size, "n_ubatch": size}) for size in (128, 2048)],
        Setting("slots 2", {"n_parallel": 2}, slots=2),
        Setting("cache prompts", {"cache": True}),
        *speculation,
        Setting("slots 2, speculate ngram_simple", {"n_parallel": 2, "speculate": "ngram_simple"}, slots=2),
    ]


class Collector:
    """Takes down what it is asked, as a small model is asked, and answers nothing."""

    name, small = "collector", True

    def __init__(self) -> None:
        self.requests: list[Request] = []

    async def ask(self, request: Request, on_text: Callable[[str], None] | None = None) -> Reply:
        self.requests.append(request)
        raise RequestRefusedError("only the question was wanted")

    async def close(self) -> None:
        return


def prompts(count: int, folder: Path) -> list[Request]:
    """The first questions of a run of the digits example with seed 0."""
    problem, options = Problem.load(EXAMPLE), Settings(sandbox="off")
    llm, store = Collector(), Store.create(folder)
    executor = LocalExecutor(1, folder / "jobs")
    scorer = Scorer(problem, options, store, executor, lambda event: None)
    breeder = Breeder(problem, options, store, llm, scorer, lambda event: None)
    seed = Individual(0, 0, problem.genome())

    async def ask() -> None:
        for number in range(1, count + 1):
            await breeder.breed(Plan(number, 0, (seed,), mate=False, mutate=True))

    asyncio.run(ask())
    executor.close()
    store.close()
    return llm.requests[:count]


def serve(options: dict[str, Any]) -> None:
    """The engine's process: the product's parameters, then the changes; it ends with its standard input."""
    import xllamacpp

    changes = options.pop("changes")
    if changes.pop("plain", False):
        params = xllamacpp.CommonParams()
        params.model.path, params.hostnames, params.port = options["model"], ["127.0.0.1"], 0
        params.n_ctx, params.verbosity = options["context"], 1
    else:
        threads = changes.pop("threads", options["threads"])
        params = server.parameters({**options, "threads": threads})
    kind = changes.pop("speculate", "")
    if kind:
        params.speculative.types = [xllamacpp.common_speculative_type[f"COMMON_SPECULATIVE_TYPE_{kind.upper()}"]]
    changes.pop("cache", None)
    for name, value in changes.items():
        setattr(params, name, value)
    announce = os.dup(1)
    os.dup2(2, 1)
    running = xllamacpp.Server(params)
    os.write(announce, f"{running.listening_address}\n".encode())
    sys.stdin.buffer.read()
    os._exit(0)


@contextmanager
def engine(model: Path, setting: Setting) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    options = {"model": str(model), "alias": "m", "key": "", "port": 0, "threads": CORES}
    # llama.cpp shares the context among the slots
    options |= {"context": CONTEXT * setting.slots, "changes": setting.changes}
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    command = [sys.executable, __file__, "--serve", json.dumps(options)]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environment)
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            address = process.stdout.readline().decode().strip()
            if not address:
                log.seek(0)
                raise SystemExit(f"{setting.name}: the engine did not start\n{log.read()[-2000:].decode()}")
            yield address, process
        finally:
            process.stdin.close()
            process.wait(20)


def ask(address: str, request: Request, setting: Setting) -> dict[str, Any]:
    body = {
        "messages": [{"role": "user", "content": request.prompt}],
        "temperature": request.temperature,
        "max_tokens": request.max_tokens,
        "seed": request.seed,
        "cache_prompt": bool(setting.changes.get("cache") or setting.changes.get("plain")),
    }
    headers = {"Content-Type": "application/json"}
    call = urllib.request.Request(f"{address}/v1/chat/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(call, timeout=1200) as answer:
        return json.load(answer)


def measure(model: Path, setting: Setting, requests: list[Request]) -> dict[str, Any]:
    """All prompts once: wall-clock seconds, tokens, and the engine's own timings."""
    begun = time.monotonic()
    with engine(model, setting) as (address, process):
        loaded = time.monotonic() - begun
        ask(address, Request("mutate", "Say yes.", temperature=0.0, max_tokens=4, seed=1), setting)
        begun, lock = time.monotonic(), threading.Lock()
        answers: list[dict[str, Any]] = []

        def one(request: Request) -> None:
            answer = ask(address, request, setting)
            with lock:
                answers.append(answer)

        with ThreadPoolExecutor(setting.slots) as pool:
            list(pool.map(one, requests))
        wall = time.monotonic() - begun
        peak = next(line for line in Path(f"/proc/{process.pid}/status").read_text().splitlines() if "VmHWM" in line)
    timings = [answer["timings"] for answer in answers]
    return {
        "setting": setting.name,
        "load_seconds": loaded,
        "wall_seconds": wall,
        "tokens_in": sum(answer["usage"]["prompt_tokens"] for answer in answers),
        "tokens_out": sum(answer["usage"]["completion_tokens"] for answer in answers),
        "read_seconds": sum(each["prompt_ms"] for each in timings) / 1000,
        "write_seconds": sum(each["predicted_ms"] for each in timings) / 1000,
        "drafted": sum(each.get("draft_n", 0) for each in timings),
        "taken": sum(each.get("draft_n_accepted", 0) for each in timings),
        "peak_mb": int(peak.split()[1]) / 1024,
    }


def table(rows: list[dict[str, Any]], count: int) -> str:
    """The medians over the rounds; speeds count all slots together."""
    names = list(dict.fromkeys(row["setting"] for row in rows))
    lines = [
        "| setting | seconds per mutation | against plain | tokens a second | of these written | reply tokens "
        "| drafts taken | MB |",
        "|---|---|---|---|---|---|---|---|",
    ]

    def median(name: str, value: Callable[[dict[str, Any]], float]) -> float:
        return statistics.median(value(row) for row in rows if row["setting"] == name)

    plain = median(names[0], lambda row: row["wall_seconds"])
    for name in names:
        wall = median(name, lambda row: row["wall_seconds"])
        both = median(name, lambda row: (row["tokens_in"] + row["tokens_out"]) / row["wall_seconds"])
        written = median(name, lambda row: row["tokens_out"] / row["wall_seconds"])
        length = median(name, lambda row: row["tokens_out"]) / count
        drafted = sum(row["drafted"] for row in rows if row["setting"] == name)
        taken = sum(row["taken"] for row in rows if row["setting"] == name)
        share = f"{taken / drafted:.0%} of {drafted}" if drafted else ""
        memory = median(name, lambda row: row["peak_mb"])
        lines.append(
            f"| {name} | {wall / count:.1f} | {plain / wall:.2f} | {both:.1f} | {written:.1f} | {length:.0f} "
            f"| {share} | {memory:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=models.DEFAULT)
    parser.add_argument("--prompts", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", nargs="+", help="Names of settings; plain is always measured.")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(json.loads(options.serve))
        return
    model = models.find(options.model)
    if model is None:
        raise SystemExit(f"`ge models pull {options.model}` first")
    chosen = [each for each in settings() if not options.only or each.name in ("plain", *options.only)]
    with tempfile.TemporaryDirectory() as folder:
        requests = prompts(options.prompts, Path(folder) / "record")
    rows = []
    for number in range(options.rounds):
        for setting in chosen if number % 2 == 0 else chosen[::-1]:
            rows.append(measure(model, setting, requests))
            print(f"round {number + 1}: {setting.name}: {rows[-1]['wall_seconds']:.1f} s", file=sys.stderr, flush=True)
    rows.sort(key=lambda row: [each.name for each in chosen].index(row["setting"]))
    print(table(rows, len(requests)))
    print(
        f"\n{options.model}, {CORES} cores, {platform.machine()}, {len(requests)} prompts of the digits example, "
        f"medians of {options.rounds} rounds, load {os.getloadavg()[0]:.1f} at the end."
    )
    if options.json:
        options.json.write_text(json.dumps({"model": options.model, "cores": CORES, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
