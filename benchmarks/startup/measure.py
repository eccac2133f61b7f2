"""How long a check of ExquisiteNetV2 takes: a fresh process against the fork server, in turn, in one run.

    python benchmarks/startup/measure.py [--rounds 20] [--json FILE]

A job's time is that of `launch.run`, from the job's files to the outcome, jail and supervisor included. Moments inside
are measured as well, as the evaluator sees them: its imports are done, the network is built, a training step is taken.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import textwrap
import time
from pathlib import Path

from guided_evolution.evaluation import Job, launch, sandbox
from guided_evolution.evaluation.forking import ForkServer
from guided_evolution.problem import Problem

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits"
# The example's own check, with the clock read at two points; time.time is one clock for all processes of a machine.
EVALUATOR = """
    import time
    import torch
    from guided_evolution.nn import loading, recipes

    def evaluate(program):
        imported = time.time()
        module = loading.load_program(program)
        model = module.ExquisiteNetV2(10, 1)
        built = time.time()
        recipes.check_step(model, module.make_optimizer(model), (4, 1, 8, 8), 10)
        return {"imported": imported, "built": built, "stepped": time.time()}
"""


def measure(rounds: int) -> dict[str, object]:
    """Both ways, `rounds` times each, alternating; seconds."""
    problem = Problem.load(EXAMPLE)
    times: dict[str, dict[str, list[float]]] = {"fresh": {}, "forked": {}}
    server = ForkServer(problem.sandbox.preload)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "problem").mkdir()
        (folder / "problem" / "evaluate.py").write_text(textwrap.dedent(EVALUATOR), encoding="utf-8")
        names = ("imported", "built", "stepped")
        job = Job("bench", "evaluate", problem.files, folder / "problem", objectives=names, memory_mb=4096)
        launch.run(job, folder / "warm", server=server)
        launch.run(job, folder / "warm")
        for _ in range(rounds):
            for way in times:
                began = time.time()
                outcome = launch.run(job, folder / "job", server=server if way == "forked" else None)
                total = time.time() - began
                if not outcome.ok:
                    raise SystemExit(f"{way}: {outcome}")
                moments = {each: outcome.scores[each] - began for each in names}
                for moment, seconds in {**moments, "whole job": total}.items():
                    times[way].setdefault(moment, []).append(seconds)
    server.close()
    medians = {way: {moment: statistics.median(values) for moment, values in row.items()} for way, row in times.items()}
    ratio = {moment: medians["fresh"][moment] / medians["forked"][moment] for moment in medians["fresh"]}
    machine = {"cores": os.cpu_count(), "system": platform.system(), "python": platform.python_version()}
    return {"rounds": rounds, "sandbox": sandbox.probe().level, "machine": machine, "medians": medians, "ratio": ratio}


def main() -> None:
    """Measure, print a table, and write the figures where asked."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = measure(options.rounds)
    medians, ratio = found["medians"], found["ratio"]
    assert isinstance(medians, dict) and isinstance(ratio, dict)
    print(f"{'median of ' + str(options.rounds):<14} {'fresh':>9} {'forked':>9} {'ratio':>7}")
    for moment in ratio:
        fresh, forked = medians["fresh"][moment], medians["forked"][moment]
        print(f"{moment:<14} {fresh:>7.3f} s {forked:>7.3f} s {ratio[moment]:>6.1f}x")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
