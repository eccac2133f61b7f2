"""How often a model's proposals become a changed child that passes the check, per operator, category and character.

    python benchmarks/proposals/measure.py --problem examples/cifar10 --mutations 60 --matings 30 --thoughts 30

It drives the product's own breeder, with its second tries, against the real model and the real `check`. Matings and
Evolution-of-Thought steps start from children of the mutations, a few of which are evaluated for real first, since
both need parents with scores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from guided_evolution.breeding import Breeder, Plan
from guided_evolution.executors.local import LocalExecutor
from guided_evolution.individual import Individual
from guided_evolution.llm.spec import open_llm
from guided_evolution.operators import changes_of
from guided_evolution.problem import Problem
from guided_evolution.randomness import choice, stream
from guided_evolution.scoring import Scorer
from guided_evolution.settings import Settings
from guided_evolution.store import Store


class Tally:
    """Counts proposals by operator and by each of its keys."""

    def __init__(self) -> None:
        self.made: dict[tuple[str, str], list[int]] = defaultdict(list)
        self.first: Counter[str] = Counter()
        self.draws: list[int] = []
        self.reasons: Counter[str] = Counter()
        self.seconds = 0.0
        self.moves: dict[str, list[int]] = defaultdict(list)

    def add(self, operator: str, child: Individual, accepted: bool) -> None:
        step = child.origin.steps[-1] if child.origin.steps else None
        self.made[operator, "all"].append(accepted)
        for key in filter(None, (step and step.category, step and step.character, step and step.block)):
            self.made[operator, str(key)].append(accepted)
        asked = [exchange for exchange in child.origin.exchanges if exchange.purpose != "distil"]
        self.draws.append(len(asked))
        self.first[operator] += bool(asked) and not asked[0].verdict
        self.seconds += sum(exchange.seconds for exchange in child.origin.exchanges)
        for exchange in asked:
            if exchange.verdict:
                self.reasons[f"{operator}: {exchange.verdict}"[:110]] += 1
        if operator == "mutate" and step and step.move:
            self.moves[step.move].append(accepted)

    def document(self) -> dict[str, object]:
        rates = {
            f"{operator}/{key}": {"n": len(made), "accepted": sum(made), "rate": round(sum(made) / len(made), 3)}
            for (operator, key), made in sorted(self.made.items())
        }
        return {
            "rates": rates,
            "first_draw": dict(self.first),
            "draws_per_proposal": round(sum(self.draws) / max(1, len(self.draws)), 2),
            "model_seconds": round(self.seconds, 1),
            "reasons": dict(self.reasons.most_common()),
            "moves": {move: f"{sum(made)}/{len(made)}" for move, made in sorted(self.moves.items())},
        }


async def measure(arguments: argparse.Namespace) -> dict[str, object]:
    problem = Problem.load(arguments.problem)
    settings = Settings(
        seed=arguments.seed, p_eot=0.0, tries=arguments.tries, retry=arguments.retry, moves=arguments.moves,
        temperature=tuple(arguments.temperature) if arguments.temperature else None, threads=arguments.threads,
    )
    cores = len(os.sched_getaffinity(0))
    llm = open_llm(arguments.llm, threads=cores)
    tally = Tally()
    folder = Path(arguments.run or tempfile.mkdtemp(prefix="proposals-"))
    store = Store.create(folder)
    executor = LocalExecutor(1, folder / "jobs")
    scorer = Scorer(problem, settings, store, executor, lambda event: None)
    breeder = Breeder(problem, settings, store, llm, scorer, lambda event: None)
    thinker = Breeder(problem, replace(settings, p_eot=1.0), store, llm, scorer, lambda event: None)
    try:
        seed = Individual(0, 0, problem.genome())
        individuals = {0: replace(seed, outcome=await scorer.evaluate(seed))}
        print(f"seed: {dict(individuals[0].scores)}", flush=True)

        async def propose(number: int, operator: str, breeder: Breeder, plan: Plan) -> Individual:
            child, rejected = await breeder.breed(plan)
            store.put_individual(child)
            tally.add(operator, child, rejected is None)
            verdict = "ok" if rejected is None else rejected.reason
            step = child.origin.steps[-1] if child.origin.steps else None
            print(f"{number} {operator} {step and step.block} {step and step.category} "
                  f"{len(child.origin.exchanges)} draws: {verdict[:120]}", flush=True)
            return replace(child, outcome=rejected) if rejected else child

        number = 0
        for number in range(1, arguments.mutations + 1):
            parent = individuals[0]
            child = await propose(number, "mutate", breeder, Plan(number, 0, (parent,), mate=False, mutate=True))
            individuals[number] = child
        pool = await evaluated(individuals, scorer, arguments.pool)
        changes = [change for each in pool for change in changes_of(each, seed.genome, problem, individuals.get)]
        print(f"pool: {len(pool)} scored children, {len(changes)} changes to teach", flush=True)
        rng = stream(settings.seed, "benchmark")
        for number in range(number + 1, number + 1 + arguments.matings):
            pair = choice(rng, pool), choice(rng, pool)
            while not pair[0].genome.changed(pair[1].genome):
                pair = choice(rng, pool), choice(rng, pool)
            plan = Plan(number, 1, pair, mate=True, mutate=False)
            await propose(number, "mate", MatingOnly(breeder), plan)
        for number in range(number + 1, number + 1 + arguments.thoughts):
            plan = Plan(number, 1, (choice(rng, [*pool, seed]),), mate=False, mutate=True, changes=changes)
            await propose(number, "eot", thinker, plan)
    finally:
        await llm.close()
        executor.close()
    return {"llm": llm.name, "problem": problem.name, "seed": settings.seed, "tries": settings.tries,
            "spending": dict(store.spending()), **tally.document()}


class MatingOnly:
    """A breeder whose failed mating is not saved by a mutation, so that matings are counted alone."""

    def __init__(self, breeder: Breeder) -> None:
        self._breeder = breeder

    async def breed(self, plan: Plan):  # type: ignore[no-untyped-def]
        from guided_evolution.operators import Mate

        inner = self._breeder
        original: Callable = inner._operators
        inner._operators = lambda plan, rng: [Mate()]  # type: ignore[method-assign]
        try:
            return await inner.breed(plan)
        finally:
            inner._operators = original  # type: ignore[method-assign]


async def evaluated(individuals: dict[int, Individual], scorer: Scorer, wanted: int) -> list[Individual]:
    pool = []
    for number, child in list(individuals.items()):
        if number and child.outcome is None and len(pool) < wanted:
            scored = replace(child, outcome=await scorer.evaluate(child))
            individuals[number] = scored
            print(f"scored {number}: {scored.status} {dict(scored.scores)}", flush=True)
            if scored.ok:
                pool.append(scored)
    return pool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problem", default="examples/cifar10")
    parser.add_argument("--llm", default="local")
    parser.add_argument("--mutations", type=int, default=60)
    parser.add_argument("--matings", type=int, default=30)
    parser.add_argument("--thoughts", type=int, default=30)
    parser.add_argument("--pool", type=int, default=8, help="children to evaluate for matings and lessons")
    parser.add_argument("--tries", type=int, default=3)
    parser.add_argument("--retry", default="auto", choices=["auto", "draw", "repair"])
    parser.add_argument("--moves", default="auto", choices=["auto", "on", "off"])
    parser.add_argument("--temperature", type=float, nargs=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run", help="folder for the record (default: a temporary one)")
    parser.add_argument("--output", help="write the figures to this JSON file")
    arguments = parser.parse_args()
    figures = asyncio.run(measure(arguments))
    text = json.dumps(figures, indent=1)
    if arguments.output:
        Path(arguments.output).write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
