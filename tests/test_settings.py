from __future__ import annotations

import math

import pytest

from guided_evolution.budget import Budget
from guided_evolution.errors import UsageError
from guided_evolution.settings import Settings


def test_the_published_settings_are_the_defaults_where_they_apply() -> None:
    settings = Settings()
    assert (settings.population, settings.p_mate, settings.p_mutate, settings.p_eot) == (8, 0.35, 0.8, 0.25)
    assert settings.eot_elites == 10
    assert settings.first_population == 8
    assert Settings(initial=32).first_population == 32


def test_later_layers_win_and_none_is_passed_over() -> None:
    settings = Settings().with_changes({"population": 6, "p-eot": 0.5}, "problem.toml")
    settings = settings.with_changes({"population": None, "seed": 3}, "ge run")
    assert (settings.population, settings.p_eot, settings.seed) == (6, 0.5, 3)
    assert Settings().with_changes(settings.to_json(), "run") == settings


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"colour": 1}, "unknown option colour"),
        ({"population": "many"}, "population can't be 'many'"),
        ({"population": 2.5}, "population can't be 2.5"),
        ({"population": True}, "population can't be True"),
        ({"population": math.inf}, "population can't be inf"),
        ({"max_usd": math.nan}, "max_usd can't be nan"),
        ({"max_hours": -1}, "max_hours must be positive"),
        ({"p_mate": 2}, "between 0 and 1"),
        ({"p_mate": 0, "p_mutate": 0}, "nothing would ever change"),
        ({"llm": 3}, "llm can't be 3"),
        ({"temperature": [0.9, 0.1]}, "must be a range"),
        ({"temperature": 0.5}, "temperature can't be 0.5"),
        ({"reply_tokens": [100.5, 200]}, "reply_tokens can't be"),
        ({"moves": "sometimes"}, 'must be "auto", "on" or "off"'),
        ({"retry": "never"}, "retry must be"),
        ({"shortcuts": True}, "shortcuts can't be True"),
        ({"shortcuts": "some"}, 'shortcuts must be "auto", "on" or "off"'),
        ({"generations": -1}, "must not be negative"),
    ],
)
def test_wrong_values_are_named_with_their_place(values: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        Settings().with_changes(values, "here")
    assert str(caught.value).startswith("here: ")


def test_a_budget_names_the_first_cap_that_is_reached() -> None:
    spent = {"tokens_in": 600.0, "tokens_out": 400.0, "usd": 0.5}
    assert Budget().reached(spent, 100) == ""
    assert Budget(tokens=1000).reached(spent, 0) == "max_tokens reached (1,000)"
    assert Budget(tokens=1001).reached(spent, 0) == ""
    assert Budget(usd=0.5).reached(spent, 0) == "max_usd reached (0.5)"
    assert Budget(hours=2).reached(spent, 2.0) == "max_hours reached (2)"
    assert [Budget(evaluations=5).children(8, done) for done in (1, 4, 5, 9)] == [4, 1, 0, 0]
    assert Budget().children(8, 100) == 8
