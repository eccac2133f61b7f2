"""What `--prune` did in the runs of an ablation: an arm with it beside one that differs in nothing else.

    ge ablate examples/digits --arms random --arm pruned:llm=random,prune=true --seeds 6 --max-evaluations 37 \
      --population 8 --initial 12 --p-mate 0.35 --no-verify --folder FOLDER
    python benchmarks/pruning/live.py FOLDER random pruned --json benchmarks/pruning/figures-live.json

A program that was stopped in one arm and measured whole in the other tells what its stop saved, and whether it would
have been on the other arm's front.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from guided_evolution.ablation.plan import Plan
from guided_evolution.individual import Individual, Status
from guided_evolution.run import Run


def programs(run: Run) -> dict[str, Individual]:
    """What was evaluated, each program once, by digest."""
    scored = [each for each in run.individuals if each.outcome and each.status is not Status.REJECTED]
    return {each.genome.digest: each for each in reversed(scored)}


def seconds(individual: Individual) -> float:
    return individual.outcome.seconds if individual.outcome else 0.0


def compared(whole: Run, pruned: Run) -> dict[str, Any]:
    mine, theirs = programs(pruned), programs(whole)
    stopped = [each for each in mine.values() if each.status is Status.PRUNED]
    both = [(theirs[each.genome.digest], each) for each in stopped if each.genome.digest in theirs]
    front = {each.genome.digest for each in whole.front}
    return {
        "programs": len(mine),
        "stopped": len(stopped),
        "steps": [pruned.curve(each.genome.digest)[-1].step for each in stopped],
        "known_whole": len(both),
        "seconds_whole": sum(seconds(one) for one, _ in both),
        "seconds_stopped": sum(seconds(two) for _, two in both),
        "seconds_all": sum(map(seconds, mine.values())),
        "front": len(front),
        "front_members_stopped": sum(one.genome.digest in front for one, _ in both),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("whole", help="the arm without --prune")
    parser.add_argument("pruned", help="the arm with it")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    plan = Plan.read(given.folder)
    cells = {(cell.arm.name, cell.seed): plan.folder(given.folder, cell) for cell in plan.cells}
    rows = []
    for seed in plan.seeds:
        runs = [Run(cells[arm, seed]) for arm in (given.whole, given.pruned)]
        rows.append({"seed": seed, **compared(*runs)})
        for run in runs:
            run.close()
        print(*(f"{key} {value}" for key, value in rows[-1].items()), sep="  ")
    total = {key: sum(row[key] for row in rows) for key in rows[0] if key not in ("seed", "steps")}
    print("all", *(f"{key} {value:.5g}" for key, value in total.items()), sep="  ")
    if given.json:
        given.json.write_text(json.dumps({"seeds": rows, "all": total}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
