from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from guided_evolution import session, view
from guided_evolution.estimate import as_usual, estimate, planned_generations, tokens_of, usd_of
from guided_evolution.genome import Block, Genome
from guided_evolution.individual import Exchange, Step
from guided_evolution.llm import Reply, Request
from guided_evolution.llm.scripted import FunctionLLM
from guided_evolution.problem import Problem
from guided_evolution.screens import comparison_text, estimate_text
from guided_evolution.settings import Settings
from guided_evolution.testing import scripted_reply

ASKED = Exchange("mutate", "m", "p", "r", tokens_in=300, tokens_out=100, usd=0.01, seconds=20.0)
SETTINGS = Settings(population=8, generations=5, p_mate=0.5, p_mutate=0.5, workers=2, llm_parallel=4)


class Metered(FunctionLLM):
    """A fake model that counts what its caller says."""

    tokens: int | None = 100
    usd: float | None = 0.25

    async def ask(self, request: Request, on_text: object = None) -> Reply:
        reply = await super().ask(request)
        return replace(reply, tokens_in=self.tokens, tokens_out=self.tokens, usd=self.usd)


def test_an_estimate_counts_the_operators_of_each_child_and_both_lanes() -> None:
    found = estimate(SETTINGS, planned_generations(SETTINGS), [ASKED, ASKED], 30.0)
    operators = 8 + 40 * 1.25
    assert found.children == 48
    assert found.calls == 2 * operators
    assert found.tokens == 800 * operators
    assert math.isclose(found.usd or 0, 0.02 * operators)
    assert found.model_seconds == 40 * operators / 4
    assert found.evaluation_seconds == 49 * 30 / 2
    assert found.seconds == 49 * 30 / 2 + 6 * 30


def test_a_short_block_foretells_what_one_of_the_mean_length_takes() -> None:
    genome = Genome(tuple(Block(name, name * length, "x.py", 1) for name, length in (("a", 20), ("b", 60), ("c", 40))))
    asked = Exchange("mutate", "m", "p" * 100, "r" * 80, tokens_in=50, tokens_out=20, usd=0.07, seconds=4.0)
    steps = {name: (Step("mutate", name),) for name in "abc"}
    # 20 characters more: a fifth of the prompt and a quarter of the reply
    (longer,) = as_usual([asked], genome, steps["a"])
    assert (longer.tokens_in, longer.tokens_out, longer.seconds) == (60, 25, 5.0)
    assert longer.usd == pytest.approx(0.07 * 85 / 70)
    (shorter,) = as_usual([asked], genome, steps["b"])
    assert (shorter.tokens_in, shorter.tokens_out, shorter.seconds) == (40, 15, 3.0)
    assert as_usual([asked], genome, steps["c"]) == as_usual([asked], genome, ()) == [asked]
    assert as_usual([asked], genome, (*steps["a"], *steps["b"])) == [asked]
    (unknown,) = as_usual([replace(asked, tokens_in=None, usd=None)], genome, steps["a"])
    assert (unknown.tokens_in, unknown.tokens_out, unknown.usd) == (None, 25, None)
    # a model that thought and then said nothing: the block is twice as long, and so is what it takes
    (empty,) = as_usual([replace(asked, reply="")], genome, steps["a"])
    assert (empty.tokens_out, empty.seconds) == (40, 8.0)


def test_a_cap_on_evaluations_cuts_the_last_generations() -> None:
    assert planned_generations(SETTINGS) == [8] * 6
    assert planned_generations(replace(SETTINGS, max_evaluations=13)) == [8, 4]
    assert planned_generations(replace(SETTINGS, max_evaluations=1)) == []


def test_what_is_unknown_of_one_is_unknown_of_all() -> None:
    for missing in ("tokens_in", "tokens_out"):
        assert tokens_of([ASKED, replace(ASKED, **{missing: None})]) is None
    assert usd_of([ASKED, replace(ASKED, usd=None)]) is None
    found = estimate(SETTINGS, [8], [ASKED, replace(ASKED, usd=None, tokens_out=None)], 1.0)
    assert found.tokens is None
    assert found.usd is None
    assert "an unknown number of tokens at an unknown price" in estimate_text(found.to_json())
    assert "USD" not in estimate_text(estimate(SETTINGS, [8], [replace(ASKED, usd=0.0)], 1.0).to_json())


@pytest.mark.parametrize(("tokens", "usd"), [(100, 0.25), (None, None), (100, None), (100, 0.0)])
def test_a_run_says_at_its_end_how_good_the_estimate_was(
    tiny: Problem, tmp_path: Path, tokens: int | None, usd: float | None
) -> None:
    llm = Metered(scripted_reply, "metered")
    llm.tokens, llm.usd = tokens, usd
    run = session.start(tiny, Settings(population=3, generations=1, p_mate=0.0), tmp_path / "run", llm=llm)
    document = view.run_document(run)["estimate"]
    first = next(each for each in run.individuals[1:] if each.status != "rejected")
    questions = len(run.individual(first.id).origin.exchanges)
    assert document["child"] == first.id
    assert document["estimated"]["calls"] == 6 * questions
    usual = tokens_of(as_usual(run.individual(first.id).origin.exchanges, tiny.genome(), first.origin.steps))
    assert document["estimated"]["tokens"] == (None if tokens is None or usual is None else 6 * usual)
    assert document["took"]["children"] == 6
    assert document["took"]["calls"] == run.spending["calls"]
    assert document["took"]["tokens"] == (None if tokens is None else 200 * run.spending["calls"])
    assert document["took"]["usd"] == (
        None if usd is None else pytest.approx(0.25 * run.spending["calls"] if usd else 0)
    )
    assert document["took"]["seconds"] == run.seconds > 0
    text = comparison_text(document)
    assert ("unknown number of tokens" in text) == (tokens is None)
    assert ("at an unknown price" in text) == (usd is None)
    assert (" USD" in text) == bool(usd)


def test_without_an_accepted_child_there_is_nothing_to_go_by(tiny: Problem, tmp_path: Path) -> None:
    llm = FunctionLLM(lambda prompt: "no", "mute")
    run = session.start(tiny, Settings(population=2, generations=0), tmp_path / "run", llm=llm)
    assert run.estimate is None
