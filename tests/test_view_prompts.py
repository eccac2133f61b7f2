from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from guided_evolution import view
from guided_evolution.individual import Exchange
from guided_evolution.problem import Problem
from guided_evolution.run import Run, problem_to_json
from guided_evolution.store import Store

CALL = Exchange("mutate", "m", "", "reply", tokens_in=10)


def sharing(tiny: Problem, folder: Path, *exchanges: Exchange) -> dict[str, float | None]:
    store = Store.create(folder, problem=problem_to_json(tiny))
    for number, exchange in enumerate(exchanges, 1):
        store.put_exchange(number, 0, exchange)
    store.close()
    document = view.run_document(Run(folder))
    assert document["spending"]["tokens_cached"] == sum(each.tokens_cached or 0 for each in exchanges)
    return document["prompts"]  # type: ignore[no-any-return]


def test_shared_is_what_some_earlier_prompt_of_the_same_model_began_with(tiny: Problem, tmp_path: Path) -> None:
    prompts = ["rules: A", "rules: B", "other", "rules: Bx", "rules: A"]
    calls = [replace(CALL, prompt=prompt) for prompt in prompts]
    found = sharing(tiny, tmp_path / "run", *calls, replace(CALL, model="another", prompt="rules: A"))
    assert found["shared"] == pytest.approx((0 + 7 + 0 + 8 + 8 + 0) / sum(map(len, [*prompts, "rules: A"])))
    assert found["cached"] is None, "no provider named any"


def test_cached_counts_the_models_that_named_any(tiny: Problem, tmp_path: Path) -> None:
    calls = [replace(CALL, tokens_cached=5), CALL, replace(CALL, model="silent", tokens_in=1000)]
    assert sharing(tiny, tmp_path / "run", *calls)["cached"] == pytest.approx(5 / 20)


def test_a_run_without_questions_shares_nothing(tiny: Problem, tmp_path: Path) -> None:
    assert sharing(tiny, tmp_path / "run") == {"shared": None, "cached": None}
