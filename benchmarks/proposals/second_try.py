"""A repair turn or a fresh draw: which second try serves a model better, on the same failed first draws.

    python benchmarks/proposals/second_try.py FOLDER RUN [RUN ...] --limit 12

For every mutation in the RUNs whose first draw held code but could not be used, the model is asked once more in both
ways: with the exact error and its own code, and afresh with another move of the same category.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from measure import Bench

from guided_evolution.genome import Block, Genome
from guided_evolution.individual import Exchange, Individual, Step
from guided_evolution.llm import Request
from guided_evolution.operators import block_kind
from guided_evolution.problem import Problem
from guided_evolution.prompts.book import Book
from guided_evolution.randomness import choice, stream
from guided_evolution.reply import Extracted, Refused, extract, keep_list
from guided_evolution.run import Run
from guided_evolution.settings import Settings


def failures(run: Run) -> list[tuple[Individual, Step, Exchange, Genome]]:
    found = []
    for brief in run.individuals:
        child = run.individual(brief.id)
        asked = child.origin.exchanges
        step = next((step for step in child.origin.steps if step.operator == "mutate"), None)
        if step and asked and asked[0].purpose == "mutate" and asked[0].verdict and len(child.origin.parents) == 1:
            found.append((child, step, asked[0], run.individual(child.origin.parents[0]).genome))
    return found


def common(problem: Problem, book: Book, block: Block) -> dict[str, str]:
    rules = "\n".join([book.text("rules").strip(), *(f"- {line}" for line in problem.rules.splitlines())])
    keep = "\n".join(f"- {line}" for line in keep_list(block))
    return {
        "summary": problem.summary,
        "name": block.name,
        "rules": rules,
        "keep": f"These must stay exactly as they are:\n{keep}",
    }


async def usable(bench: Bench, prompt: str, block: Block, genome: Genome, place: int) -> str:
    rng = stream(bench.settings.seed, "second try", place)
    request = Request(
        "repair", prompt, temperature=float(rng.uniform(0.5, 0.9)), max_tokens=800, seed=int(rng.integers(2**31))
    )
    reply = await bench.llm.ask(request)
    result = extract(reply.text, block, genome, cut=reply.cut)
    if isinstance(result, Refused):
        return result.reason
    outcome = await bench.scorer.check(place, genome.replace(block.name, result.source))
    return "" if outcome.ok else outcome.reason


async def compare(bench: Bench, cases: list[tuple[Individual, Step, Exchange, Genome]]) -> None:
    book, counts = Book(), {"repair": 0, "fresh draw": 0}
    tried = 0
    for number, (_, step, exchange, genome) in enumerate(cases):
        block = genome.block(step.block)
        first = extract(exchange.reply, block, genome)
        code = first.source if isinstance(first, Extracted) else first.code
        moves = [
            move
            for move in book.moves(step.category)
            if move.fits(block_kind(block), block.source) and move.text[:25] not in exchange.prompt
        ]
        if not code or not moves:
            continue
        tried += 1
        values = common(bench.problem, book, block)
        repair = book.fill("repair", error=exchange.verdict, **values, block=code)
        move = choice(stream(bench.settings.seed, "move", number), moves)
        task = move.grounded(block.source, stream(bench.settings.seed, "ground", number))
        character = book.text(f"character_{step.character}")
        fresh = book.fill("mutate", character=character, task=task, feedback="", **values, block=block.source)
        for way, prompt, place in (("repair", repair, 2 * number), ("fresh draw", fresh, 2 * number + 1)):
            problem = await usable(bench, prompt, block, genome, place)
            counts[way] += not problem
            print(f"{block.name} after {exchange.verdict[:50]!r}: {way}: {problem[:80] or 'usable'}", flush=True)
    print({way: f"{count} of {tried}" for way, count in counts.items()})


async def run(arguments: argparse.Namespace) -> None:
    cases = [case for folder in arguments.runs for case in failures(Run(folder))][: arguments.limit]
    bench = Bench(Problem.load(arguments.problem), Settings(llm=arguments.llm, threads=1), arguments.folder)
    try:
        await compare(bench, cases)
    finally:
        await bench.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--problem", default="examples/cifar10")
    parser.add_argument("--llm", default="local")
    parser.add_argument("--limit", type=int, default=12)
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
