"""The operators of Guided Evolution: how a language model turns parents into a child.

Mutate rewrites one block (Algorithm 2 of the paper), EvolutionOfThought applies what a success teaches to another
block, Mate combines two versions of one block. Each makes several draws: what can't be used, or fails the
problem's cheap `check`, is tried again, by a repair turn that carries the exact error or by a fresh draw with
another move.
"""

from __future__ import annotations

import difflib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from guided_evolution.errors import GenomeError
from guided_evolution.genome import Block, Genome, canonical
from guided_evolution.individual import Individual, Outcome, Step
from guided_evolution.problem import Problem
from guided_evolution.prompts.book import CATEGORIES, CHARACTERS, MATINGS, PLAIN, Book, Move
from guided_evolution.randomness import choice
from guided_evolution.reply import Extracted, Refused, extract, keep_list, lesson


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


@dataclass(frozen=True, slots=True)
class Change:
    """A block that once changed for good, with what the change did.

    Attributes:
        teacher: The elite whose program carries the change.
        before: The block in the parent that was changed.
        after: The block in the elite.
        effect: The measured change of every objective, relative to that parent, in words.
    """

    teacher: Individual
    before: Block
    after: Block
    effect: str


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
        tries: Draws per step, the first included.
        changes: What valid elites have to teach.
        ask: Asks the model (purpose, prompt) and records the exchange with the child.
        refuse: Records why the last reply was not used.
        check: Runs the problem's cheap check on a program.
        distil: Asks once, for all children, for the lesson of a change.
        characters: Whether a prompt may speak as a character; without, every one is the plain one.
    """

    problem: Problem
    seed: Genome
    book: Book
    rng: np.random.Generator
    moves: bool
    repairs: bool
    two_steps: bool
    tries: int
    changes: Sequence[Change]
    ask: Callable[[str, str], Awaitable[Answer]]
    refuse: Callable[[str], None]
    check: Callable[[Genome], Awaitable[Outcome]]
    distil: Callable[[Change], Awaitable[str]]
    characters: bool = True


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
        block = choice(context.rng, genome.blocks)
        category = choice(context.rng, CATEGORIES)
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


class EvolutionOfThought:
    """Algorithm 2 with a lesson: what an elite's change taught is applied to another block."""

    parents = 1

    async def propose(self, parents: Sequence[Individual], context: Context) -> Proposal | Rejection:
        """Applies one elite's lesson to a block of the first parent."""
        genome = parents[0].genome
        pairs = [
            (change, block) for change in context.changes for block in genome.blocks if block.name != change.after.name
        ]
        if not pairs:
            return Rejection("no elite has a changed block to teach from", idle=True)
        change, block = choice(context.rng, pairs)
        step = Step(operator="eot", block=block.name, teacher=change.teacher.id)
        if context.two_steps:
            insight = await context.distil(change)
            if not insight:
                return Rejection("the model found no lesson in the change", step=step)
            step = replace(step, lesson=insight)
            text = context.book.fill(
                "eot_apply",
                teacher=change.after.name,
                lesson=f"Lesson: {insight}",
                change=_changed_lines(change.before, change.after),
                effect=change.effect,
                **_common(block, context),
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
    """Combines two versions of one block; the child is otherwise the first parent."""

    parents = 2

    async def propose(self, parents: Sequence[Individual], context: Context) -> Proposal | Rejection:
        """Merges the second parent's version of a block that differs into the first parent."""
        first, second = parents[0].genome, parents[1].genome
        known = {block.name for block in first.blocks} & {block.name for block in second.blocks}
        differing = [name for name in first.changed(second) if name in known]
        if not differing:
            return Rejection("the parents do not differ", idle=True)
        block = first.block(choice(context.rng, differing))
        other = second.block(block.name)
        template = choice(context.rng, MATINGS)
        step = Step(operator="mate", block=block.name, category=template)
        text = context.book.fill(
            template, other=other.source, difference=_difference(block, other), **_common(block, context)
        )
        return await _rewrite(first, block, context, lambda: (text, step))


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
            tried = await _child(genome, block, result, context)
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


async def _child(genome: Genome, block: Block, result: Extracted, context: Context) -> Genome | Refused:
    try:
        child = genome.replace(block.name, result.source)
    except GenomeError as error:
        return Refused(str(error), result.source)
    outcome = await context.check(child)
    return child if outcome.ok else Refused(f"check failed: {outcome.reason}", result.source)


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


def distil_prompt(change: Change, book: Book, problem: Problem) -> str:
    """The question for the lesson of one change."""
    return book.fill(
        "eot_distil",
        summary=problem.summary,
        teacher=change.after.name,
        change=_changed_lines(change.before, change.after),
        effect=change.effect,
    )


def _changed_lines(before: Block, after: Block) -> str:
    lines = difflib.unified_diff(before.source.splitlines(), after.source.splitlines(), lineterm="", n=1)
    return "\n".join([line for line in lines if not line.startswith(("---", "+++", "@@"))][:40])


def _difference(block: Block, other: Block) -> str:
    """The lines that only the other version has, for a model that would not find them by itself."""
    mine = {line.strip() for line in block.source.splitlines()}
    fresh = [line.strip() for line in other.source.splitlines() if line.strip() and line.strip() not in mine]
    return "; ".join(f"`{line}`" for line in fresh[:4]) or "it does less."


def changes_of(
    elite: Individual, seed: Genome, problem: Problem, find: Callable[[int], Individual | None]
) -> list[Change]:
    """What one elite has to teach: its blocks that differ from the seed's, with the measured effect of each.

    The effect is taken where the block got its present form: the ancestor that introduced it, against the parent
    that was changed. A block whose introduction was never scored on both sides teaches nothing.

    Args:
        elite: A scored individual.
        seed: The seed's program.
        problem: For names and directions of the objectives.
        find: Gives an individual by its id.
    """
    found = []
    names = {block.name for block in seed.blocks}
    for name in elite.genome.changed(seed):
        if name not in names:
            continue
        after, child = elite.genome.block(name), elite
        form = canonical(after.source)
        while child.origin.parents:
            parent = find(child.origin.parents[0])
            if parent is None or canonical(parent.genome.block(name).source) != form:
                break
            child = parent
        parent = find(child.origin.parents[0]) if child.origin.parents else None
        if parent is not None and parent.ok and child.ok:
            effect = effect_text(problem, parent.scores, child.scores)
            also = [step.block for step in child.origin.steps if step.block != name]
            if also:
                effect += f" (together with a change of {', '.join(also)})"
            found.append(Change(elite, parent.genome.block(name), after, effect))
    return found


def effect_text(problem: Problem, before: Mapping[str, float], after: Mapping[str, float]) -> str:
    """The measured change of every objective in words, e.g. "accuracy 0.91 -> 0.92 (+1.1 %, better)"."""
    parts = []
    for objective in problem.objectives:
        old, new = before[objective.name], after[objective.name]
        gain = objective.minimised(old) - objective.minimised(new)
        judgement = "better" if gain > 0 else "worse" if gain < 0 else "same"
        share = f"{(new - old) / abs(old):+.1%}, " if old and new != old else ""
        parts.append(f"{objective.name} {old:g} -> {new:g} ({share}{judgement})")
    return "; ".join(parts)
