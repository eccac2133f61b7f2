"""The operators of the baseline without a language model: random edits of one block, and blocks that change hands.

They draw blocks, and are checked, as the operators of a model are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from guided_evolution.errors import GenomeError
from guided_evolution.genome import Block, Genome
from guided_evolution.individual import Individual, Step
from guided_evolution.llm.no_model import RANDOM
from guided_evolution.operators import Context, Proposal, Rejection, offered, take
from guided_evolution.random_edits import edited
from guided_evolution.randomness import choice
from guided_evolution.reply import breaks
from guided_evolution.source import BOM, split_lines, unix


class RandomEdit:
    """A random block of the first parent with one to three random edits; several draws, as a model has."""

    parents = 1

    async def propose(self, parents: Sequence[Individual], context: Context) -> Proposal | Rejection:
        """Edits one random block of the first parent; one that holds nothing to edit gives way to another."""
        genome = parents[0].genome
        for block in _in_turn(genome, context):
            result = await self._edited(genome, block, context)
            if result is not None:
                return result
        return Rejection("no block holds anything that random edits change")

    async def _edited(self, genome: Genome, block: Block, context: Context) -> Proposal | Rejection | None:
        text = unix(genome.text(block.file).removeprefix(BOM))
        last = block.line + len(split_lines(unix(block.source))) - 1
        step, reason = Step(RANDOM, block.name), ""
        for _ in range(context.tries):
            change = edited(text, block.line, last, context.rng)
            if change is None:
                break
            step = replace(step, move="; ".join(change.moves))
            child = await _child(genome, block, change.lines, context)
            if isinstance(child, Genome):
                return Proposal(child, step)
            reason = child
            context.refuse(reason)
        return Rejection(reason, step=step) if reason else None


def _in_turn(genome: Genome, context: Context) -> list[Block]:
    """The blocks in random order; where shares are known, those with more of them tend to come first."""
    weights = np.array([context.blocks.get(each.name, 0.0) for each in genome.blocks])
    count = len(weights)
    if (weights > 0).all():
        order = context.rng.choice(count, size=count, replace=False, p=weights / weights.sum())
    else:
        order = context.rng.permutation(count)
    return [genome.blocks[int(index)] for index in order]


class RandomMate:
    """The first parent with the second one's version of one block that the second changed."""

    parents = 2

    async def propose(self, parents: Sequence[Individual], context: Context) -> Proposal | Rejection:
        """Takes over one block, as it is."""
        first, second = parents[0].genome, parents[1].genome
        names = offered(first, second, context.seed)
        if not names:
            return Rejection("the second parent has nothing that the first could take", idle=True)
        return await take(first, second, choice(context.rng, names), context)


async def _child(genome: Genome, block: Block, source: str, context: Context) -> Genome | str:
    """The genome with a new block, or why it can't be used: the rules that a model's reply is held to."""
    original = next((each for each in context.seed.blocks if each.name == block.name), block)
    if problem := breaks(source, block, genome, original):
        return problem
    try:
        child = genome.replace(block.name, source)
    except GenomeError as error:
        return str(error)
    outcome = await context.check(child)
    return child if outcome.ok else f"check failed: {outcome.reason}"
