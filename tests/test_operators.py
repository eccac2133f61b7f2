from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from guided_evolution.genome import Genome
from guided_evolution.individual import SWAP, Individual, Origin, Outcome, Status, Step
from guided_evolution.lessons import Change, changes_of, effect_text
from guided_evolution.operators import (
    Context,
    EvolutionOfThought,
    Mate,
    Mutate,
    Proposal,
    Rejection,
)
from guided_evolution.problem import Problem
from guided_evolution.prompts.book import Book
from guided_evolution.randomness import stream
from guided_evolution.testing import scripted_reply


@dataclass
class Answer:
    text: str
    cut: bool = False


@dataclass
class Desk:
    """Builds a context and keeps what went over it."""

    problem: Problem
    reply: Callable[[str], str] = scripted_reply
    check: Callable[[Genome], str] = lambda genome: ""
    changes: list[Change] = field(default_factory=list)
    seed: int = 0
    options: dict[str, object] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def context(self) -> Context:
        async def ask(purpose: str, prompt: str) -> Answer:
            self.asked.append((purpose, prompt))
            return Answer(self.reply(prompt))

        async def check(genome: Genome) -> Outcome:
            reason = self.check(genome)
            return Outcome(Status.CRASHED, reason) if reason else Outcome(Status.OK)

        async def distil(change: Change) -> str:
            return "larger numbers help"

        context = Context(
            problem=self.problem,
            seed=self.problem.genome(),
            book=Book(),
            rng=stream(self.seed, "test"),
            moves=True,
            repairs=False,
            two_steps=True,
            shortcuts=False,
            tries=3,
            changes=self.changes,
            ask=ask,
            refuse=self.refused.append,
            check=check,
            distil=distil,
        )
        return replace(context, **self.options)


def scored(number: int, genome: Genome, closeness: float, size: float, origin: Origin | None = None) -> Individual:
    outcome = Outcome(Status.OK, scores={"closeness": closeness, "size": size})
    return Individual(number, 0, genome, origin or Origin(), outcome)


def child_of(parent: Individual, number: int, block: str, source: str, closeness: float, size: float) -> Individual:
    origin = Origin((parent.id,), (Step("mutate", block),))
    return scored(number, parent.genome.replace(block, source), closeness, size, origin)


def propose(operator: object, parents: list[Individual], desk: Desk) -> Proposal | Rejection:
    return asyncio.run(operator.propose(parents, desk.context()))


@pytest.fixture
def seed(tiny: Problem) -> Individual:
    return scored(0, tiny.genome(), -25, 6)


def test_a_mutation_changes_exactly_one_block_and_says_how(tiny: Problem, seed: Individual) -> None:
    desk = Desk(tiny)
    result = propose(Mutate(), [seed], desk)
    assert isinstance(result, Proposal)
    assert result.genome.changed(seed.genome) == (result.step.block,)
    assert result.step.move
    assert result.step.move in desk.asked[0][1]
    assert f"`def {result.step.block}()`" in desk.asked[0][1]


def test_blocks_categories_and_characters_are_all_drawn_and_change_the_prompt(tiny: Problem, seed: Individual) -> None:
    steps, prompts = set(), set()
    for number in range(150):
        desk = Desk(tiny, seed=number, options={"moves": False})
        result = propose(Mutate(), [seed], desk)
        assert isinstance(result, Proposal)
        steps.add((result.step.category, result.step.character))
        prompts.add(desk.asked[0][1])
    assert len(steps) == 24
    assert len(prompts) > 60  # 72 = 24 prompts x 3 blocks; the character and the category both change the text


def test_without_characters_every_prompt_is_plain_and_all_else_is_drawn_the_same(
    tiny: Problem, seed: Individual
) -> None:
    spoken = set()
    for number in range(40):
        desks = [Desk(tiny, seed=number, options={"characters": characters}) for characters in (True, False)]
        with_them, without = (propose(Mutate(), [seed], desk) for desk in desks)
        assert isinstance(with_them, Proposal)
        assert isinstance(without, Proposal)
        assert replace(with_them.step, character="plain") == without.step
        text = Book().text(f"character_{with_them.step.character}").strip()
        assert [prompt.replace(text, "").split() for _, prompt in desks[0].asked] == [
            prompt.split() for _, prompt in desks[1].asked
        ]
        spoken.add(with_them.step.character)
    assert spoken == {"plain", "expert", "magoo", "scientist"}


def test_the_open_question_is_asked_when_moves_are_off(tiny: Problem, seed: Individual) -> None:
    desk = Desk(tiny, options={"moves": False})
    result = propose(Mutate(), [seed], desk)
    assert isinstance(result, Proposal)
    assert not result.step.move
    assert Book().question(result.step.category) in desk.asked[0][1]


def test_a_fresh_draw_carries_another_move(tiny: Problem, seed: Individual) -> None:
    desk = Desk(tiny, reply=lambda prompt: "No.")
    result = propose(Mutate(), [seed], desk)
    assert isinstance(result, Rejection)
    assert result.reason == "the reply holds no code"
    assert len({prompt for _, prompt in desk.asked}) == 3
    assert desk.refused == ["the reply holds no code"] * 3


def test_a_repair_turn_carries_the_exact_error_and_the_code(tiny: Problem, seed: Individual) -> None:
    desk = Desk(tiny, check=lambda genome: "ValueError: boom 17", options={"repairs": True})
    result = propose(Mutate(), [seed], desk)
    assert isinstance(result, Rejection)
    assert [purpose for purpose, _ in desk.asked] == ["mutate", "repair", "repair"]
    assert "check failed: ValueError: boom 17" in desk.asked[1][1]


def test_a_child_that_fails_the_check_is_tried_again(tiny: Problem, seed: Individual) -> None:
    failures = iter(["ValueError: no", ""])
    desk = Desk(tiny, check=lambda genome: next(failures))
    assert isinstance(propose(Mutate(), [seed], desk), Proposal)
    assert desk.refused == ["check failed: ValueError: no"]


def test_mating_merges_a_block_that_differs_into_the_first_parent(tiny: Problem, seed: Individual) -> None:
    first = child_of(seed, 1, "first", "def first():\n    return 5 * SCALE\n", -21, 10)
    second = child_of(seed, 2, "third", "def third():\n    return 9 * SCALE\n", -19, 12)
    desk = Desk(tiny)
    result = propose(Mate(), [first, second], desk)
    assert isinstance(result, Proposal)
    assert result.step.block in {"first", "third"}
    assert result.genome.changed(first.genome) == (result.step.block,)
    prompt = desk.asked[0][1]
    assert first.genome.block(result.step.block).source.strip() in prompt
    assert second.genome.block(result.step.block).source.strip() in prompt


FIVE, NINE = "def first():\n    return 5 * SCALE\n", "def third():\n    return 9 * SCALE\n"
SHORT = {"shortcuts": True}


def test_a_block_that_only_the_partner_changed_is_taken_and_nobody_is_asked(tiny: Problem, seed: Individual) -> None:
    first, second = child_of(seed, 1, "first", FIVE, -21, 10), child_of(seed, 2, "third", NINE, -19, 12)
    checked: list[str] = []
    for number in range(10):
        desk = Desk(tiny, check=lambda genome: checked.append(genome.digest) or "", seed=number, options=SHORT)
        result = propose(Mate(), [first, second], desk)
        assert isinstance(result, Proposal)
        assert (result.step.operator, result.step.block, result.step.category) == ("mate", "third", SWAP)
        assert dict(result.genome.files) == dict(first.genome.replace("third", NINE).files)
        assert desk.asked == []
    assert checked == [first.genome.replace("third", NINE).digest] * 10


def test_a_block_that_both_changed_is_merged_by_the_model(tiny: Problem, seed: Individual) -> None:
    first = child_of(seed, 1, "first", FIVE, -21, 10)
    second = child_of(seed, 2, "first", "def first():\n    return 4 * SCALE\n", -19, 12)
    desk = Desk(tiny, options=SHORT)
    result = propose(Mate(), [first, second], desk)
    assert isinstance(result, Proposal)
    assert result.step.category in ("mate_accuracy", "mate_efficiency")
    assert len(desk.asked) == 1


def test_a_mating_that_would_give_a_parent_again_is_left_to_another_operator(tiny: Problem, seed: Individual) -> None:
    other = child_of(seed, 1, "first", FIVE, -21, 10)
    both = child_of(other, 2, "third", NINE, -19, 12)
    for parents in ([seed, other], [other, both], [both, other], [other, seed]):
        desk = Desk(tiny, options=SHORT)
        result = propose(Mate(), parents, desk)
        assert isinstance(result, Rejection)
        assert result.idle
        assert desk.asked == desk.refused == []


def test_a_taken_block_is_held_to_the_rules_and_to_the_check(tiny: Problem, seed: Individual) -> None:
    first, second = child_of(seed, 1, "first", FIVE, -21, 10), child_of(seed, 2, "third", NINE, -19, 12)
    desk = Desk(tiny, check=lambda genome: "ValueError: boom 17", options=SHORT)
    result = propose(Mate(), [first, second], desk)
    assert isinstance(result, Rejection)
    assert not result.idle
    assert desk.refused == [result.reason] == ["check failed: ValueError: boom 17"]
    assert result.step == Step("mate", "third", category=SWAP)
    renamed = child_of(seed, 3, "third", NINE.replace("third()", "third(needed)"), -19, 12)
    result = propose(Mate(), [first, renamed], Desk(tiny, options=SHORT))
    assert isinstance(result, Rejection)
    assert "third" in result.reason


def test_both_mating_templates_are_drawn(tiny: Problem, seed: Individual) -> None:
    other = child_of(seed, 1, "first", "def first():\n    return 5 * SCALE\n", -21, 10)
    steps = {propose(Mate(), [seed, other], Desk(tiny, seed=number)).step.category for number in range(20)}
    assert steps == {"mate_accuracy", "mate_efficiency"}


def test_fault_01_a_mated_child_holds_the_merged_block_at_its_own_place(tiny: Problem, seed: Individual) -> None:
    for name in ("first", "second", "third"):
        other = child_of(seed, 1, name, f"def {name}():\n    return 42 * SCALE\n", -21, 10)
        merged = f"def {name}():\n    return 21 * SCALE + 21\n"
        result = propose(Mate(), [seed, other], Desk(tiny, reply=lambda prompt, text=merged: f"```python\n{text}```"))
        assert isinstance(result, Proposal)
        assert result.genome.block(name).source == merged
        assert result.genome.changed(seed.genome) == (name,)


def test_fault_05_nothing_differing_is_said_and_nothing_is_asked(tiny: Problem, seed: Individual) -> None:
    desk = Desk(tiny)
    for operator, parents in ((Mate(), [seed, seed]), (EvolutionOfThought(), [seed])):
        result = propose(operator, parents, desk)
        assert isinstance(result, Rejection)
        assert result.idle
    assert desk.asked == []


def test_evolution_of_thought_in_two_steps_shows_the_lesson_the_change_and_its_effect(
    tiny: Problem, seed: Individual
) -> None:
    elite = child_of(seed, 1, "first", "def first():\n    return 5 * SCALE\n", -21, 10)
    changes = changes_of(elite, seed.genome, tiny, {0: seed}.get)
    desk = Desk(tiny, changes=changes)
    result = propose(EvolutionOfThought(), [seed], desk)
    assert isinstance(result, Proposal)
    assert result.step.operator == "eot"
    assert result.step.lesson == "larger numbers help"
    assert result.step.teacher == 1
    assert result.step.block != "first"
    prompt = desk.asked[0][1]
    assert "larger numbers help" in prompt
    assert "+    return 5 * SCALE" in prompt
    assert "closeness -25 -> -21" in prompt


RAISE = "Raise the constant `{}` by about a third."


def taught(seed: Individual, problem: Problem, move: str, category: str = "hyperparameters") -> list[Change]:
    """What an elite teaches whose first block was changed by a move."""
    origin = Origin((0,), (Step("mutate", "first", category=category, move=move),))
    elite = scored(1, seed.genome.replace("first", FIVE), -21, 10, origin)
    return changes_of(elite, seed.genome, problem, {0: seed}.get)


def test_a_teachers_move_is_applied_in_the_words_of_the_other_block(tiny: Problem, seed: Individual) -> None:
    told = set()
    for number in range(20):
        desk = Desk(tiny, changes=taught(seed, tiny, RAISE.format(1)), seed=number, options=SHORT)
        result = propose(EvolutionOfThought(), [seed], desk)
        assert isinstance(result, Proposal)
        step = result.step
        assert (step.operator, step.category, step.teacher) == ("eot", "hyperparameters", 1)
        assert step.lesson == "I raise one number."  # the model's own words, nobody asked for a lesson
        assert step.move == RAISE.format({"second": 2, "third": 3}[step.block])
        prompt = desk.asked[0][1]
        assert f"in `{step.block}`: {step.move}" in prompt
        assert "larger numbers help" not in prompt
        assert "+    return 5 * SCALE" in prompt
        assert "closeness -25 -> -21" in prompt
        told.add(step.block)
    assert told == {"second", "third"}


def test_where_the_teachers_move_does_not_fit_others_of_its_category_do(tiny: Problem, seed: Individual) -> None:
    parent = scored(0, tiny.genome().replace("second", "def second():\n    return SCALE\n"), -25, 6)
    parent = replace(parent, genome=parent.genome.replace("third", "def third():\n    return SCALE\n"))
    desk = Desk(tiny, changes=taught(seed, tiny, RAISE.format(1)), options=SHORT)
    result = propose(EvolutionOfThought(), [parent], desk)
    assert isinstance(result, Rejection), "the scripted model finds no number there"
    assert result.step is not None
    assert result.step.move == "Change the order in which things are tried or visited."
    desk = Desk(tiny, changes=taught(seed, tiny, RAISE.format(1)), options=SHORT, reply=lambda prompt: "No.")
    propose(EvolutionOfThought(), [seed], desk)
    tasks = [prompt.split("Your task")[1].split("\n")[0] for _, prompt in desk.asked]
    assert "Raise the constant" in tasks[0]
    assert len(set(tasks)) == 3, "a fresh draw carries another move"


def test_a_block_for_which_the_category_has_no_move_is_not_taught(tiny: Problem, seed: Individual) -> None:
    tiny.prompts.mkdir()
    (tiny.prompts / "hyperparameters.md").write_text(
        "Change values.\n\n## Moves for a function\n- [\\b([12])\\b] Raise \\1.\n"
    )
    changes = taught(seed, tiny, "Raise 1.")
    for number in range(10):
        desk = Desk(tiny, changes=changes, seed=number, options={**SHORT, "book": Book(tiny.prompts)})
        result = propose(EvolutionOfThought(), [seed], desk)
        assert isinstance(result, Proposal)
        assert (result.step.block, result.step.move) == ("second", "Raise 2.")
    parent = replace(seed, genome=seed.genome.replace("second", "def second():\n    return 7\n"))
    result = propose(EvolutionOfThought(), [parent], desk)
    assert isinstance(result, Rejection)
    assert result.idle


def test_a_lesson_is_asked_for_where_the_change_came_from_no_move_or_none_is_wanted(
    tiny: Problem, seed: Individual
) -> None:
    foreign = taught(seed, tiny, RAISE.format(1), category="of another version")
    known, none = taught(seed, tiny, RAISE.format(1)), taught(seed, tiny, "")
    for changes, options in [(foreign, {}), (none, {}), (known, {"moves": False}), (known, {"shortcuts": False})]:
        desk = Desk(tiny, changes=changes, reply=lambda prompt: "No.", options=SHORT | options)
        result = propose(EvolutionOfThought(), [seed], desk)
        assert isinstance(result, Rejection)
        assert result.step is not None
        assert (result.step.lesson, result.step.move) == ("larger numbers help", "")
        assert "larger numbers help" in desk.asked[0][1]


def test_a_move_is_known_of_a_block_that_was_taken_from_a_partner(tiny: Problem, seed: Individual) -> None:
    made = Origin((0,), (Step("mutate", "first", category="hyperparameters", move=RAISE.format(1)),))
    partner = scored(1, seed.genome.replace("first", FIVE), -21, 10, made)
    other = child_of(seed, 2, "third", NINE, -19, 12)
    mated = Origin((2, 1), (Step("mate", "first", category=SWAP),))
    child = scored(3, other.genome.replace("first", FIVE), -15, 16, mated)
    found = {
        each.after.name: each for each in changes_of(child, seed.genome, tiny, {0: seed, 1: partner, 2: other}.get)
    }
    assert found["first"].effect.startswith("closeness -19 -> -15")
    assert (found["first"].category, found["first"].move) == ("hyperparameters", RAISE.format(1))
    assert (found["third"].category, found["third"].move) == ("", "")


def test_evolution_of_thought_in_one_step_keeps_the_models_own_lesson(tiny: Problem, seed: Individual) -> None:
    elite = child_of(seed, 1, "first", "def first():\n    return 5 * SCALE\n", -21, 10)
    changes = changes_of(elite, seed.genome, tiny, {0: seed}.get)
    desk = Desk(
        tiny,
        changes=changes,
        options={"two_steps": False},
        reply=lambda prompt: f"Lesson: bigger is closer.\n{scripted_reply(prompt)}",
    )
    result = propose(EvolutionOfThought(), [seed], desk)
    assert isinstance(result, Proposal)
    assert result.step.lesson == "bigger is closer."
    assert elite.genome.block("first").source.strip() in desk.asked[0][1]
    assert seed.genome.block("first").source.strip() in desk.asked[0][1]


def test_fault_04_the_effect_is_measured_and_may_be_worse(tiny: Problem, seed: Individual) -> None:
    mixed = child_of(seed, 1, "first", "def first():\n    return -9 * SCALE\n", -35, 5)
    (change,) = changes_of(mixed, seed.genome, tiny, {0: seed}.get)
    assert change.effect == "closeness -25 -> -35 (-40.0%, worse); size 6 -> 5 (-16.7%, better)"
    assert effect_text(tiny, {"closeness": -1.0, "size": 2.0}, {"closeness": -1.0, "size": 1.0}) == (
        "closeness -1 -> -1 (same); size 2 -> 1 (-50.0%, better)"
    )


def test_fault_04_the_effect_is_relative_to_the_parent_that_was_changed(tiny: Problem, seed: Individual) -> None:
    middle = child_of(seed, 1, "first", "def first():\n    return 5 * SCALE\n", -21, 10)
    elite = child_of(middle, 2, "third", "def third():\n    return 9 * SCALE\n", -15, 16)
    by_block = {change.after.name: change for change in changes_of(elite, seed.genome, tiny, {0: seed, 1: middle}.get)}
    assert by_block["first"].effect.startswith("closeness -25 -> -21")
    assert by_block["third"].effect.startswith("closeness -21 -> -15")


def test_with_shortcuts_a_change_that_made_nothing_better_teaches_nothing(tiny: Problem, seed: Individual) -> None:
    for closeness, size in ((-35, 14), (-25, 6), (-26, 6)):
        other = child_of(seed, 1, "first", "def first():\n    return -9 * SCALE\n", closeness, size)
        changes = changes_of(other, seed.genome, tiny, {0: seed}.get)
        result = propose(EvolutionOfThought(), [seed], Desk(tiny, changes=changes, options=SHORT))
        assert isinstance(result, Rejection)
        assert result.idle
        asked = propose(EvolutionOfThought(), [seed], Desk(tiny, changes=changes))
        assert isinstance(asked, Proposal), "without shortcuts the model is shown what it did, as in the paper"


def test_fault_06_failed_individuals_teach_nothing(tiny: Problem, seed: Individual) -> None:
    elite = child_of(seed, 1, "first", "def first():\n    return 5 * SCALE\n", -21, 10)
    failed = replace(elite, outcome=Outcome(Status.CRASHED, "boom"))
    assert changes_of(failed, seed.genome, tiny, {0: seed}.get) == []
    unscored = replace(seed, outcome=Outcome(Status.TIMED_OUT))
    assert changes_of(elite, seed.genome, tiny, {0: unscored}.get) == []
