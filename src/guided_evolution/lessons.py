"""What elites have to teach: the blocks that they changed for good, with the measured effect of each change."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from guided_evolution.genome import Block, Genome, canonical
from guided_evolution.individual import SWAP, Individual
from guided_evolution.problem import Problem
from guided_evolution.prompts.book import Book


@dataclass(frozen=True, slots=True)
class Change:
    """A block that once changed for good, with what the change did.

    Attributes:
        teacher: The elite whose program carries the change.
        before: The block in the parent that was changed.
        after: The block in the elite.
        effect: The measured change of every objective, relative to that parent, in words.
        helped: Whether it made an objective better.
        category: The category of the mutation that made the change; empty where it was none.
        move: The move that the mutation was asked for, in the words of the block; empty where it was none.
    """

    teacher: Individual
    before: Block
    after: Block
    effect: str
    helped: bool
    category: str = ""
    move: str = ""


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
    names = {block.name for block in seed.blocks}
    found = (_change(elite, name, problem, find) for name in elite.genome.changed(seed) if name in names)
    return [change for change in found if change is not None]


def _change(elite: Individual, name: str, problem: Problem, find: Callable[[int], Individual | None]) -> Change | None:
    child, parent = _introduction(elite, name, find)
    if parent is None or not parent.ok or not child.ok:
        return None
    before, after = problem.point(parent.scores), problem.point(child.scores)
    helped = any(new < old for old, new in zip(before, after, strict=True))
    effect = effect_text(problem, parent.scores, child.scores)
    also = [step.block for step in child.origin.steps if step.block != name]
    if also:
        effect += f" (together with a change of {', '.join(also)})"
    category, move = _move(child, name, find)
    return Change(elite, parent.genome.block(name), elite.genome.block(name), effect, helped, category, move)


def _introduction(
    elite: Individual, name: str, find: Callable[[int], Individual | None]
) -> tuple[Individual, Individual | None]:
    """The ancestor in which a block got the form that the elite has, and the parent that was changed."""
    child, form = elite, canonical(elite.genome.block(name).source)
    while True:
        parent = find(child.origin.parents[0]) if child.origin.parents else None
        if parent is None or canonical(parent.genome.block(name).source) != form:
            return child, parent
        child = parent


def _move(child: Individual, name: str, find: Callable[[int], Individual | None]) -> tuple[str, str]:
    """The category and the move that a block's form came from; empty where it was no move."""
    while True:
        # where a block was mated and then mutated, the mutation made what there is now
        step = next((step for step in reversed(child.origin.steps) if step.block == name), None)
        if step is None or step.category != SWAP:
            return (step.category, step.move) if step is not None and step.move else ("", "")
        partner = find(child.origin.parents[1])
        if partner is None:
            return "", ""
        child, _ = _introduction(partner, name, find)


def distil_prompt(change: Change, book: Book, problem: Problem) -> str:
    """The question for the lesson of one change."""
    return book.fill(
        "eot_distil",
        summary=problem.summary,
        teacher=change.after.name,
        change=changed_lines(change.before, change.after),
        effect=change.effect,
    )


def changed_lines(before: Block, after: Block) -> str:
    """The lines that differ, those before with "-" and those after with "+", with one line around; at most 40."""
    lines = difflib.unified_diff(before.source.splitlines(), after.source.splitlines(), lineterm="", n=1)
    return "\n".join([line for line in lines if not line.startswith(("---", "+++", "@@"))][:40])


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
