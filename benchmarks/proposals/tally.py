"""Counts proposals in run records: how many became a changed child that passes the check, and why others did not.

    python benchmarks/proposals/tally.py RUN [RUN ...] [--output FILE.json]

A proposal is one operator's work on one child, second tries included. It is accepted when its last question led to a
child that parses, differs and passed the problem's check.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from guided_evolution.individual import Exchange, Individual
from guided_evolution.run import Run

OPERATORS = ("mutate", "mate", "eot")


def proposals(individual: Individual) -> Iterator[tuple[str, list[Exchange]]]:
    """Each operator's exchanges in the making of an individual; a repair belongs to what it repairs."""
    current = ""

    def operator(exchange: Exchange) -> str:
        nonlocal current
        current = exchange.purpose if exchange.purpose in OPERATORS else current
        return current

    for name, group in groupby(individual.origin.exchanges, key=operator):
        yield name, list(group)


def tally(runs: Sequence[Run]) -> dict[str, object]:
    made: dict[str, list[bool]] = defaultdict(list)
    first: dict[str, int] = Counter()
    moves: dict[str, list[bool]] = defaultdict(list)
    reasons: Counter[str] = Counter()
    draws, seconds, tokens = [], 0.0, 0
    for run in runs:
        for brief in run.individuals:
            individual = run.individual(brief.id)
            steps = {step.operator: step for step in individual.origin.steps}
            for operator, exchanges in proposals(individual):
                accepted = not exchanges[-1].verdict
                first[operator] += not exchanges[0].verdict
                draws.append(len(exchanges))
                seconds += sum(exchange.seconds for exchange in exchanges)
                tokens += sum(exchange.tokens_out or 0 for exchange in exchanges)
                reasons.update(f"{operator}: {each.verdict}"[:100] for each in exchanges if each.verdict)
                step = steps.get(operator)
                keys = [step.category, step.character, step.block] if step else []
                for key in ["all", *filter(None, keys)]:
                    made[f"{operator}/{key}"].append(accepted)
                if step and step.move:
                    moves[step.move].append(accepted)
    return {
        "proposals": len(draws),
        "rates": {
            key: [sum(values), len(values), round(sum(values) / len(values), 3)] for key, values in sorted(made.items())
        },
        "accepted_at_first_draw": dict(first),
        "draws_per_proposal": round(sum(draws) / max(1, len(draws)), 2),
        "model_seconds_per_draw": round(seconds / max(1, sum(draws)), 1),
        "tokens_per_draw": round(tokens / max(1, sum(draws))),
        "reasons": dict(reasons.most_common(40)),
        "moves": {move: [sum(values), len(values)] for move, values in sorted(moves.items())},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--output", type=Path, help="write the figures to this JSON file")
    arguments = parser.parse_args()
    figures = tally([Run(folder) for folder in arguments.runs])
    text = json.dumps(figures, indent=1, ensure_ascii=False)
    if arguments.output:
        arguments.output.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
