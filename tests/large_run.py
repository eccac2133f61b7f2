"""Writes a run of any size straight into a record: for tests of what people look at when a run is large."""

from __future__ import annotations

import random
from pathlib import Path

from guided_evolution.individual import Exchange, Individual, Origin, Outcome, Status, Step
from guided_evolution.problem import Problem
from guided_evolution.run import problem_to_json
from guided_evolution.settings import Settings
from guided_evolution.store import Store

BLOCKS = ("first", "second", "third")
CATEGORIES = ("complex", "reduce_size", "hyperparameters", "uncommon", "significant")
CHARACTERS = ("plain", "expert", "magoo", "scientist")
PROMPT = "Your task: change one number of this block.\n" * 20
REPLY = "I raise one number.\n```python\ndef first():\n    return 2\n```\n"


def write_large_run(folder: Path, problem: Problem, count: int = 10_000, seed: int = 0) -> Path:
    """Writes a finished run of `count` individuals, every tenth a failure, with one question each."""
    rng = random.Random(seed)
    settings = Settings(population=100, generations=count // 100, llm="scripted", max_usd=50.0)
    store = Store.create(
        folder, problem=problem_to_json(problem), settings=settings.to_json(), versions={}, status="done"
    )
    store._waits = ("OFF", "OFF")  # thirty thousand commits to a disk take minutes
    genome = problem.genome()
    for number in range(count):
        individual, exchange, outcome = _one(number, genome, rng)
        if exchange is not None:
            store.put_exchange(number, 0, exchange)
        store.put_individual(individual)
        store.put_outcome(number, outcome)
    store.put_meta(seconds=float(count), stop_reason=f"{settings.generations} generations done")
    store.close()
    return folder


def _one(number, genome, rng):
    if not number:
        return Individual(0, 0, genome), None, Outcome(Status.OK, scores={"closeness": -25.0, "size": 6.0})
    block = rng.choice(BLOCKS)
    child = genome.replace(block, f"def {block}():\n    return {number}\n")
    parents = (rng.randrange(number),) if rng.random() < 0.7 else (rng.randrange(number), rng.randrange(number))
    step = Step(rng.choice(("mutate", "eot", "mate")), block, rng.choice(CATEGORIES), rng.choice(CHARACTERS))
    exchange = Exchange(
        step.operator, "fake", PROMPT, REPLY, tokens_in=220, tokens_out=30, usd=0.0002, seconds=rng.random()
    )
    if rng.random() < 0.1:
        status = rng.choice((Status.CRASHED, Status.TIMED_OUT, Status.REJECTED))
        outcome = Outcome(status, f"ValueError: expected {rng.randrange(900)} features (seed.py:{rng.randrange(40)})")
    else:
        size = rng.uniform(6, 90)
        close = -30 + 25 * (size / 90) ** 0.5 * (0.6 + 0.4 * number / 10_000) - rng.expovariate(0.3)
        outcome = Outcome(Status.OK, scores={"closeness": close, "size": size}, seconds=rng.random(), log_tail="epoch")
    return Individual(number, 1 + number // 100, child, Origin(parents, (step,))), exchange, outcome
