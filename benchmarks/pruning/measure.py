"""What early stopping would have saved and cost in runs that were recorded without it.

    python benchmarks/pruning/measure.py RUN [RUN ...] > benchmarks/pruning/figures.json

Each run is played over in its own order: every program meets the rule with the curves of the generations before, cut
where the rule has stopped them. What a stopped program's descendants would have been instead, nobody knows; so the harm
is told twice: without the stopped programs, and without their descendants too, as if nothing had come in their place.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from unittest import mock

from guided_evolution import population, pruning
from guided_evolution.curves import Curve
from guided_evolution.individual import Individual
from guided_evolution.run import Run, open_run

# the share that has to dominate, and the first step that decides; the rule itself comes first
VARIANTS = ((0.5, 2), (0.5, 1), (0.25, 2), (0.75, 2))


@dataclass(frozen=True)
class Played:
    """The rule's decisions in one run: id to the step at which it would have been stopped."""

    programs: dict[int, Individual]
    stopped: dict[int, int]


def play(run: Run) -> Played:
    programs: dict[str, Individual] = {}
    for each in run.individuals:
        if each.ok:
            programs.setdefault(each.genome.digest, each)
    curves: dict[int, tuple[int, Curve]] = {}
    stopped: dict[int, int] = {}
    for each in sorted(programs.values(), key=lambda one: (one.generation, one.id)):
        before = [curve for generation, curve in curves.values() if generation < each.generation]
        results = run.curve(each.genome.digest)
        at = next(
            (one.step for one in results if pruning.hopeless(run.problem, before, one.step, one.scores)),
            None,
        )
        if at is not None:
            stopped[each.id] = at
        kept = tuple(one for one in results if at is None or one.step <= at)
        curves[each.id] = (each.generation, Curve(kept, whole=at is None))
    return Played({each.id: each for each in programs.values()}, stopped)


def figures(run: Run, played: Played) -> dict[str, Any]:
    total = sum(each.outcome.seconds for each in played.programs.values() if each.outcome)
    saved = sum(_left(run, played.programs[number], step) for number, step in played.stopped.items())
    front = {each.id for each in run.front}
    reference = population.reference_point(run.problem, run.individuals)
    lost = _with_descendants(run, set(played.stopped))

    def volume(without: Iterable[int]) -> float:
        gone = set(without)
        left = [each for number, each in played.programs.items() if number not in gone]
        return population.hypervolume(run.problem, left, reference)

    whole = volume(())
    return {
        "programs": len(played.programs),
        "could_be_stopped": sum(each.generation > 0 for each in played.programs.values()),
        "stopped": len(played.stopped),
        "steps": [sum(step == at for step in played.stopped.values()) for at in (1, 2, 4)],
        "seconds": round(total, 1),
        "saved": round(saved / total, 4),
        "front": len(front),
        "front_stopped": len(front & set(played.stopped)),
        "front_lost_with_descendants": len(front & lost),
        "hypervolume_lost": round(1 - volume(played.stopped) / whole, 6),
        "hypervolume_lost_with_descendants": round(1 - volume(lost) / whole, 6),
    }


def _left(run: Run, individual: Individual, step: int) -> float:
    assert individual.outcome is not None
    return individual.outcome.seconds - next(
        each.seconds for each in run.curve(individual.genome.digest) if each.step == step
    )


def _with_descendants(run: Run, stopped: set[int]) -> set[int]:
    """The stopped ones and everything that came from them; ids grow from parents to children."""
    lost = set(stopped)
    for each in run.individuals:
        if lost & set(each.origin.parents):
            lost.add(each.id)
    return lost


def main(folders: list[str]) -> None:
    runs = [open_run(folder) for folder in folders]
    document = {}
    for share, first in VARIANTS:
        with mock.patch.object(pruning, "SHARE", share), mock.patch.object(pruning, "FIRST", first):
            document[f"share {share}, from step {first}"] = {
                str(run.settings["seed"]): figures(run, play(run)) for run in runs
            }
    print(json.dumps(document, indent=2))


if __name__ == "__main__":
    main(sys.argv[1:])
