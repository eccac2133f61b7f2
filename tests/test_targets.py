from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guided_evolution import population, targets
from guided_evolution.individual import SWAP, Individual, Origin, Outcome, Status, Step
from guided_evolution.problem import Problem
from test_operators import scored

NAMES = ("a", "b", "c")
TRIES = st.lists(st.tuples(st.sampled_from((*NAMES, "unknown")), st.floats(0, 10)), max_size=40)


def shares(rows: list[dict[str, float]]) -> dict[str, float]:
    return {str(row["name"]): row["share"] for row in rows}


@given(TRIES)
def test_shares_sum_to_one_and_nothing_is_given_up(tries: list[tuple[str, float]]) -> None:
    found = shares(targets.learned([], NAMES, tries))
    assert sum(found.values()) == pytest.approx(1)
    assert min(found.values()) >= 0.25 / 3 - 1e-12


@given(TRIES, TRIES)
def test_learning_in_two_steps_is_learning_at_once(
    first: list[tuple[str, float]], second: list[tuple[str, float]]
) -> None:
    once = targets.learned([], NAMES, [*first, *second])
    twice = targets.learned(targets.learned([], NAMES, first), NAMES, second)
    assert shares(twice) == pytest.approx(shares(once))
    assert [row["tried"] for row in twice] == [row["tried"] for row in once]


def test_what_gains_more_for_a_try_gets_more() -> None:
    assert shares(targets.learned([], NAMES, [])) == dict.fromkeys(NAMES, pytest.approx(1 / 3))
    assert shares(targets.learned([], NAMES, [("a", 0.0)] * 9)) == dict.fromkeys(NAMES, pytest.approx(1 / 3))
    found = shares(targets.learned([], NAMES, [("a", 0.3), ("b", 0.0), ("b", 0.0)]))
    assert found["a"] > found["c"] > found["b"], "of c nothing is known, of b that it gave nothing twice"
    # by hand: the mean is 0.1; (3 * 0.1 + 0.3) / 4 = 0.15, 0.3 / 5 = 0.06, 0.3 / 3 = 0.1
    assert found["a"] == pytest.approx(0.75 * 0.15 / 0.31 + 0.25 / 3)
    often = shares(targets.learned([], NAMES, [("a", 0.3), *[("a", 0.0)] * 20, ("b", 0.02), ("c", 0.02)]))
    assert often["a"] < often["b"], "one success in many tries is no reason to go on"


def test_a_gain_is_what_the_front_would_lack(tiny: Problem) -> None:
    genome = tiny.genome()
    seed = scored(0, genome, -25, 6)
    members = [scored(1, genome, -10, 20), scored(2, genome, -20, 10), scored(3, genome, -24, 5)]
    found = targets.gains(tiny, members, seed)
    bound = population.reference_point(tiny, [seed])
    whole = population.hypervolume(tiny, members, bound)
    for each in members:
        others = [one for one in members if one is not each]
        assert found[each.id] == pytest.approx(1 - population.hypervolume(tiny, others, bound) / whole)
    assert targets.gains(tiny, [], seed) == {}


def test_tries_are_mutations_of_whatever_kind_and_no_blocks_that_were_taken(tiny: Problem) -> None:
    def child(number: int, *steps: Step, ok: bool = True) -> Individual:
        outcome = Outcome(Status.OK, scores={"closeness": -1.0, "size": 1.0}) if ok else Outcome(Status.REJECTED)
        return Individual(number, 1, tiny.genome(), Origin((0,), steps), outcome)

    children = [
        child(1, Step("mutate", "first", category="complex")),
        child(2, Step("mate", "third", category=SWAP), Step("random", "second")),
        child(3, Step("eot", "third", category="reduce_size", teacher=1)),
        child(4, Step("mate", "first", category="mate_accuracy")),
        child(5, Step("mutate", "first", category="complex"), ok=False),
    ]
    gained = {1: 0.5, 2: 0.1}
    tried = [("first", 0.5), ("second", 0.1), ("third", 0.0), ("first", 0.0), ("first", 0.0)]
    assert targets.blocks_tried(children, gained) == tried
    assert targets.categories_tried(children, gained) == [("complex", 0.5), ("reduce_size", 0.0), ("complex", 0.0)]
