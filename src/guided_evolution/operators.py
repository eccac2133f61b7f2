"""The operators of Guided Evolution: how a language model turns parents into a child.

Mutate rewrites one block (Algorithm 2 of the paper), EvolutionOfThought applies what a success teaches to another
block, Mate brings a partner's version of one block in. Each that asks makes several draws: what can't be used, or
fails the problem's cheap `check`, is tried again, by a repair turn that carries the exact error or by a fresh draw
with another move.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from guided_evolution.errors import GenomeError
from guided_evolution.genome import Block, Genome
from guided_evolution.individual import SWAP, Individual, Outcome, Step
from guided_evolution.lessons import Change, changed_lines
from guided_evolution.problem import Problem
from guided_evolution.prompts.book import CATEGORIES, CHARACTERS, MATINGS, PLAIN, Book, Move
from guided_evolution.randomness import choice, weighted
from guided_evolution.reply import Extracted, Refused, breaks, extract, keep_list, lesson


@dataclass(frozen=True, slots=True)
class Proposal:
    """A child that parses, differs and passed the problem's check."""

    genome: Genome
    step: Step


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why an operator made no child.

    Attributes:
        idle: True when it had nothing to work on and asked nothing: another operator should be drawn.
        step: What it tried; None when it tried nothing.
    """

    reason: str
    idle: bool = False
    step: Step | None = None


class Answer(Protocol):
    """A recorded reply."""

    @property
    def text(self) -> str:
        """The reply."""
        ...

    @property
    def cut(self) -> bool:
        """Whether it ended at its token limit."""
        ...


@dataclass(frozen=True, slots=True)
class Context:
    """What an operator may use while it makes one child.

    Attributes:
        seed: The seed's program: the names and signatures of its blocks must survive.
        rng: The child's own random stream.
        moves: Whether a prompt carries one concrete move instead of the open question.
        repairs: Whether a second try is a repair turn instead of a fresh draw.
        two_steps: Whether Evolution of Thought first distils a lesson and then applies it.
        shortcuts: Whether what is known is taken without asking: a block that only the partner changed, and the move
            that a teacher's change came from.
        tries: Draws per step, the first included.
        changes: What valid elites have to teach.
        ask: Asks the model (purpose, prompt) and records the exchange with the child.
        refuse: Records why the last reply was not used.
        check: Runs the problem's cheap check on a program.
        distil: Asks once, for all children, for the lesson of a change.
        characters: Whether a prompt may speak as a character; without, every one is the plain one.
        blocks: Share of each block among the mutations, by name; empty where all are alike.
        categories: Share of each category among the fixed prompts; empty where all are alike.
    """

    problem: Problem
    seed: Genome
    book: Book
    rng: np.random.Generator
    moves: bool
    repairs: bool
    two_steps: bool
    shortcuts: bool
    tries: int
    changes: Sequence[Change]
    ask: Callable[[str, str], Awaitable[Answer]]
    refuse: Callable[[str], None]
    check: Callable[[Genome], Awaitable[Outcome]]
    distil: Callable[[Change], Awaitable[str]]
    characters: bool = True
    blocks: Mapping[str, float] = field(default_factory=dict)
    categories: Mapping[str, float] = field(default_factory=dict)


class Operator(Protocol):
    """Turns parents into a proposal; registered under the entry point group `guided_evolution.operators`."""

    parents: int

    async def propose(self, parents: Sequence[Individual], context: Context) -> Proposal | Rejection:
        """Makes one child of the first parent, or says why not."""
        ...


class Mutate:
    """Algorithm 2 with a fixed prompt: a random block, one of 24 prompts."""

    parents = 1

    async def propose(self, parents: Sequence[Individual], context: Context) -> Proposal | Rejection:
        """Rewrites one random block of the first parent."""
        genome = parents[0].genome
        block = genome.block(_drawn(context.rng, [each.name for each in genome.blocks], context.blocks))
        category = _drawn(context.rng, CATEGORIES, context.categories)
        # drawn in any case, so that runs with and without characters draw the same of everything else
        character = choice(context.rng, CHARACTERS)
        step = Step(
            operator="mutate",
            block=block.name,
            category=category,
            character=character if context.characters else PLAIN,
        )
        bank = _bank(step.category, block, context)
        feedback = parents[0].outcome.feedback if parents[0].outcome and not context.moves else ""

        def prompt() -> tuple[str, Step]:
            move = ""
            if bank:
                move = bank.pop(int(context.rng.integers(len(bank)))).grounded(block.source, context.rng)
            text = context.book.fill(
                "mutate",
                character=context.book.text(f"character_{step.character}"),
                task=move or context.book.question(step.category),
                feedback=f"The last evaluation says: {feedback}" if feedback else "",
                **_common(block, context),
            )
            return text, replace(step, move=move)

        return await _rewrite(genome, block, context, prompt)


def _drawn(rng: np.random.Generator, names: Sequence[str], shares: Mapping[str, float]) -> str:
    weights = [shares.get(name, 0.0) for name in names]
    return weighted(rng, names, weights) if any(weights) else choice(rng, names)


class EvolutionOfThought:
    """Algorithm 2 with a lesson: what an elite's change taught is applied to another block.

    With shortcuts, only changes that made something better teach, and of one that came from a move no lesson needs to
    be asked for: what it teaches is the move, in the words of the other block, and where that doesn't fit, the move's
    category.
    """

    parents = 1

    async def propose(self, parents: Sequence[Individual], context: Context) -> Proposal | Rejection:
        """Applies one elite's lesson to a block of the first parent."""
        genome = parents[0].genome
        changes = [change for change in context.changes if change.helped or not context.shortcuts]
        moved = {change.category for change in changes if _moved(change, context)}
        fits = {
            (category, block.name) for category in moved for block in genome.blocks if _bank(category, block, context)
        }
        pairs = [
            (change, block)
            for change in changes
            for block in genome.blocks
            if block.name != change.after.name
            and (not _moved(change, context) or (change.category, block.name) in fits)
        ]
        if not pairs:
            return Rejection("no elite has a changed block to teach from", idle=True)
        change, block = choice(context.rng, pairs)
        step = Step(operator="eot", block=block.name, teacher=change.teacher.id)
        if _moved(change, context):
            order = itertools.cycle(_same_moves(change, block, context))
            return await _rewrite(genome, block, context, lambda: _again(next(order), step, change, block, context))
        if context.two_steps:
            insight = await context.distil(change)
            if not insight:
                return Rejection("the model found no lesson in the change", step=step)
            step = replace(step, lesson=insight)
            text = context.book.fill(
                "eot_apply",
                lesson=f"Lesson: {insight}",
                task="Apply the same idea, in the smallest way that fits this block.",
                **_taught(change, block, context),
            )
        else:
            text = context.book.fill(
                "eot",
                teacher=change.after.name,
                before=change.before.source,
                after=change.after.source,
                effect=change.effect,
                **_common(block, context),
            )
        return await _rewrite(genome, block, context, lambda: (text, step))


class Mate:
    """Brings the second parent's version of one block into the first parent; the child is otherwise the first.

    The paper has a model combine the two versions of any block that differs. With shortcuts it is a three-way merge
    with the seed as the base: a block that only the second parent changed is taken as it is, nobody asked; a block that
    only the first changed stays; and a model combines what both changed.
    """

    parents = 2

    async def propose(self, parents: Sequence[Individual], context: Context) -> Proposal | Rejection:
        """Takes or merges the second parent's version of a block that differs."""
        first, second = parents[0].genome, parents[1].genome
        differing = offered(first, second, context.seed) if context.shortcuts else _differing(first, second)
        if not differing:
            return Rejection("the second parent has nothing that the first could take", idle=True)
        block = first.block(choice(context.rng, differing))
        if context.shortcuts and block.name not in first.changed(context.seed):
            return await take(first, second, block.name, context)
        other = second.block(block.name)
        template = choice(context.rng, MATINGS)
        step = Step(operator="mate", block=block.name, category=template)
        text = context.book.fill(
            template, other=other.source, difference=_difference(block, other), **_common(block, context)
        )
        return await _rewrite(first, block, context, lambda: (text, step))


def offered(first: Genome, second: Genome, seed: Genome) -> list[str]:
    """The blocks that the second program changed, and otherwise than the first."""
    changed = second.changed(seed)
    return [name for name in _differing(first, second) if name in changed]


async def take(first: Genome, second: Genome, name: str, context: Context) -> Proposal | Rejection:
    """The first program with the second one's version of a block, as it is, by the rules for a model's reply."""
    if first.changed(second) == (name,):
        return Rejection("the child would be the second parent again", idle=True)
    step, block = Step("mate", name, category=SWAP), first.block(name)
    source = second.block(name).source
    reason = breaks(source, block, first, _original(block, context))
    tried = Refused(reason, source) if reason else await _child(first, block, source, context)
    if isinstance(tried, Genome):
        return Proposal(tried, step)
    context.refuse(tried.reason)
    return Rejection(tried.reason, step=step)


def _differing(first: Genome, second: Genome) -> list[str]:
    known = {block.name for block in first.blocks} & {block.name for block in second.blocks}
    return [name for name in first.changed(second) if name in known]


def _moved(change: Change, context: Context) -> bool:
    """Whether a change came from a move, and moves are what it is to teach by."""
    return context.shortcuts and context.moves and change.category in CATEGORIES


def _same_moves(change: Change, block: Block, context: Context) -> list[Move]:
    """What a change teaches another block: the same move where it fits, then others of its category."""
    bank = _bank(change.category, block, context)
    shuffled = [bank[index] for index in context.rng.permutation(len(bank))]
    return sorted(shuffled, key=lambda move: not move.says(change.move, change.before.source))


def _again(move: Move, step: Step, change: Change, block: Block, context: Context) -> tuple[str, Step]:
    """The question that applies a move as a teacher's change did."""
    said = move.grounded(block.source, context.rng)
    text = context.book.fill("eot_apply", lesson="", task=said, **_taught(change, block, context))
    return text, replace(step, category=change.category, move=said)


def _taught(change: Change, block: Block, context: Context) -> dict[str, str]:
    return {
        "teacher": change.after.name,
        "change": changed_lines(change.before, change.after),
        "effect": change.effect,
        **_common(block, context),
    }


async def _rewrite(
    genome: Genome, block: Block, context: Context, prompt: Callable[[], tuple[str, Step]]
) -> Proposal | Rejection:
    """Draws until a reply gives a changed child that passes the check, or the tries are used up."""
    text, step = prompt()
    reason = ""
    for number in range(context.tries):
        answer = await context.ask(step.operator if not number or not context.repairs else "repair", text)
        result = extract(answer.text, block, genome, original=_original(block, context), cut=answer.cut)
        if isinstance(result, Extracted):
            tried = await _child(genome, block, result.source, context)
            if isinstance(tried, Genome):
                if step.operator == "eot" and not step.lesson:
                    step = replace(step, lesson=lesson(answer.text))
                return Proposal(tried, step)
            result = tried
        reason = result.reason
        context.refuse(reason)
        if context.repairs and result.code:
            text = context.book.fill("repair", error=reason, **{**_common(block, context), "block": result.code})
        else:
            text, step = prompt()
    return Rejection(reason, step=step)


async def _child(genome: Genome, block: Block, source: str, context: Context) -> Genome | Refused:
    try:
        child = genome.replace(block.name, source)
    except GenomeError as error:
        return Refused(str(error), source)
    outcome = await context.check(child)
    return child if outcome.ok else Refused(f"check failed: {outcome.reason}", source)


def _common(block: Block, context: Context) -> dict[str, str]:
    rules = context.book.text("rules").strip()
    if block_kind(block) == "module":
        rules += "\n" + context.book.text("rules_module").strip()
    if context.problem.rules:
        rules += "\n" + "\n".join(f"- {line}" for line in context.problem.rules.splitlines() if line.strip())
    keep = "\n".join(f"- {line}" for line in keep_list(_original(block, context)))
    return {
        "summary": context.problem.summary,
        "name": block.name,
        "block": block.source,
        "rules": rules,
        "keep": f"These must stay exactly as they are:\n{keep}" if keep else "",
    }


def _original(block: Block, context: Context) -> Block:
    return next((each for each in context.seed.blocks if each.name == block.name), block)


def _bank(category: str, block: Block, context: Context) -> list[Move]:
    if not context.moves:
        return []
    kind = block_kind(block)
    return [move for move in context.book.moves(category) if move.fits(kind, block.source)]


def block_kind(block: Block) -> str:
    """What a block is to the bank of moves: "module", "optimizer" or "function"."""
    if "Module)" in block.source:
        return "module"
    return "optimizer" if "optim." in block.source else "function"


def _difference(block: Block, other: Block) -> str:
    """The lines that only the other version has, for a model that would not find them by itself."""
    mine = {line.strip() for line in block.source.splitlines()}
    fresh = [line.strip() for line in other.source.splitlines() if line.strip() and line.strip() not in mine]
    return "; ".join(f"`{line}`" for line in fresh[:4]) or "it does less."
