"""Makes proposals with a real model and the real check, each operator by itself, and keeps them as a run's record.

    python benchmarks/proposals/measure.py FOLDER --problem examples/cifar10 --mutations 60 --matings 30 --thoughts 30
    python benchmarks/proposals/tally.py FOLDER

It drives the product's own breeder, second tries included. Matings and Evolution-of-Thought steps start from children
of the mutations, a few of which are evaluated for real first, since both need parents with scores.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from guided_evolution.breeding import Breeder, Plan
from guided_evolution.executors.local import LocalExecutor
from guided_evolution.individual import Individual
from guided_evolution.lessons import Change, changes_of
from guided_evolution.llm import LLM
from guided_evolution.llm.spec import open_llm
from guided_evolution.odds import Odds
from guided_evolution.operators import Mate, Operator
from guided_evolution.problem import Problem
from guided_evolution.randomness import choice, stream
from guided_evolution.run import problem_to_json
from guided_evolution.scoring import Scorer
from guided_evolution.settings import Settings
from guided_evolution.store import Store


class MatingOnly(Breeder):
    """A breeder whose failed mating is not saved by a mutation, so that matings are counted alone."""

    def _operators(self, plan: Plan, rng: np.random.Generator, llm: LLM) -> list[Operator]:
        return [Mate()]


class Bench:
    """Makes proposals one after the other and records them."""

    def __init__(self, problem: Problem, settings: Settings, folder: Path) -> None:
        self.store = Store.create(folder)
        self.store.put_meta(problem=problem_to_json(problem), settings=settings.to_json(), status="done")
        self.problem, self.settings = problem, settings
        self.llm = open_llm(settings.llm, threads=len(os.sched_getaffinity(0)))
        self.executor = LocalExecutor(1, folder / "jobs")
        self.scorer = Scorer(problem, settings, self.store, self.executor, lambda event: None)
        self.individuals: dict[int, Individual] = {}

    def breeder(self, kind: type[Breeder] = Breeder) -> Breeder:
        return kind(self.problem, self.settings, self.store, self.llm, self.scorer, lambda event: None)

    async def propose(self, breeder: Breeder, plan: Plan) -> Individual:
        child, rejected = await breeder.breed(plan)
        self.store.put_individual(child)
        if rejected is not None:
            self.store.put_outcome(child.id, rejected)
            child = replace(child, outcome=rejected)
        made = child.origin.steps[-1] if child.origin.steps else None
        verdict = rejected.reason if rejected else "accepted"
        asked = len(child.origin.exchanges)
        print(f"{child.id} {child.origin.operator} {made and made.block}, {asked} draws: {verdict[:140]}", flush=True)
        self.individuals[child.id] = child
        return child

    async def score(self, individual: Individual) -> Individual:
        self.store.put_individual(individual)
        outcome = await self.scorer.evaluate(individual)
        self.store.put_outcome(individual.id, outcome)
        print(f"scored {individual.id}: {outcome.status} {dict(outcome.scores)}", flush=True)
        self.individuals[individual.id] = replace(individual, outcome=outcome)
        return self.individuals[individual.id]

    async def pool(self, wanted: int) -> list[Individual]:
        found: list[Individual] = []
        for child in [each for each in self.individuals.values() if each.id and each.outcome is None]:
            if len(found) < wanted and (scored := await self.score(child)).ok:
                found.append(scored)
        return found

    async def close(self) -> None:
        await self.llm.close()
        self.executor.close()
        self.store.close()


async def measure(bench: Bench, mutations: int, matings: int, thoughts: int, wanted: int) -> None:
    seed = await bench.score(Individual(0, 0, bench.problem.genome()))
    plain = bench.breeder()
    for number in range(1, mutations + 1):
        await bench.propose(plain, Plan(number, 0, (seed,), mate=False, mutate=True))
    pool = await bench.pool(wanted) if matings or thoughts else []
    changes = [
        change for each in pool for change in changes_of(each, seed.genome, bench.problem, bench.individuals.get)
    ]
    pairs = [(one, two) for one in pool for two in pool if one.genome.changed(two.genome)]
    rng = stream(bench.settings.seed, "benchmark")
    await _both(bench, rng, pairs, [seed, *pool], changes, (mutations + 1, matings, thoughts))


async def _both(
    bench: Bench,
    rng: np.random.Generator,
    pairs: list[tuple[Individual, Individual]],
    parents: list[Individual],
    changes: list[Change],
    counts: tuple[int, int, int],
) -> None:
    first, matings, thoughts = counts
    mating, thinking = bench.breeder(MatingOnly), bench.breeder()
    # in turn, so that an interrupted measurement has both
    for index in range(max(matings, thoughts)):
        if index < matings:
            await bench.propose(mating, Plan(first + 2 * index, 1, choice(rng, pairs), mate=True, mutate=False))
        if index < thoughts:
            number, parent = first + 2 * index + 1, choice(rng, parents)
            plan = Plan(number, 1, (parent,), mate=False, mutate=True, changes=changes, odds=Odds(p_eot=1.0))
            await bench.propose(thinking, plan)


async def run(arguments: argparse.Namespace) -> None:
    options = {
        key: getattr(arguments, key)
        for key in ("llm", "tries", "retry", "moves", "shortcuts", "threads", "seed", "temperature")
    }
    bench = Bench(Problem.load(arguments.problem), Settings().with_changes(options, "measure"), arguments.folder)
    try:
        await measure(bench, arguments.mutations, arguments.matings, arguments.thoughts, arguments.pool)
    finally:
        await bench.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--problem", default="examples/cifar10")
    parser.add_argument("--llm", default="local")
    parser.add_argument("--mutations", type=int, default=60)
    parser.add_argument("--matings", type=int, default=30)
    parser.add_argument("--thoughts", type=int, default=30)
    parser.add_argument("--pool", type=int, default=8, help="children to evaluate for matings and lessons")
    parser.add_argument("--tries", type=int, default=3)
    parser.add_argument("--retry", default="auto", choices=["auto", "draw", "repair"])
    parser.add_argument("--moves", default="auto", choices=["auto", "on", "off"])
    parser.add_argument("--shortcuts", default="auto", choices=["auto", "on", "off"])
    parser.add_argument("--temperature", type=float, nargs=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
