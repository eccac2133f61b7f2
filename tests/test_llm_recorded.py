from __future__ import annotations

import asyncio

import pytest

from guided_evolution.errors import ModelError
from guided_evolution.individual import Exchange
from guided_evolution.llm import Reply, Request
from guided_evolution.llm.recorded import Recorded, RecordedLLM


def recorded(individual: int, turn: int, reply: str, *, prompt: str = "p", temperature: float = 0.1) -> Recorded:
    call = Exchange("mutate", "big", prompt, reply, tokens_in=3, usd=0.5, temperature=temperature, max_tokens=100)
    return Recorded(individual, turn, call)


def ask(llm: RecordedLLM, *, prompt: str = "p", temperature: float = 0.1, individual: int | None = None) -> Reply:
    request = Request("mutate", prompt, temperature=temperature, max_tokens=100, individual=individual)
    return asyncio.run(llm.ask(request))


def test_the_recorded_reply_is_given_and_costs_nothing() -> None:
    pieces: list[str] = []
    llm = RecordedLLM("replay:r", [recorded(1, 0, "one")], small=True)
    request = Request("mutate", "p", temperature=0.1, max_tokens=100)
    reply = asyncio.run(llm.ask(request, pieces.append))
    assert (reply.text, reply.model, reply.usd, reply.tokens_in) == ("one", "big", 0.0, 3)
    assert pieces == ["one"]
    assert (llm.name, llm.small) == ("replay:r", True)


def test_the_same_settings_go_before_the_same_prompt() -> None:
    llm = RecordedLLM("r", [recorded(1, 0, "cold"), recorded(2, 0, "warm", temperature=0.3)], small=False)
    assert ask(llm, temperature=0.3).text == "warm"
    assert ask(llm, temperature=0.1).text == "cold"
    assert ask(llm, temperature=0.2).text == "cold", "no such temperature, but the prompt is known"


def test_equal_prompts_get_their_replies_in_order_and_then_from_the_first_again() -> None:
    llm = RecordedLLM("r", [recorded(5, 0, "c"), recorded(2, 1, "b"), recorded(2, 0, "a")], small=False)
    assert [ask(llm).text for _ in range(4)] == ["a", "b", "c", "a"]


def test_a_child_gets_its_own_reply_whoever_asks_first() -> None:
    llm = RecordedLLM("r", [recorded(2, 0, "two"), recorded(5, 0, "five")], small=False)
    assert ask(llm, individual=5).text == "five"
    assert ask(llm, individual=2).text == "two"


def test_in_place_each_child_gets_its_own_replies_in_their_order_whatever_the_words() -> None:
    calls = [recorded(2, 0, "b", prompt="x"), recorded(1, 1, "a1", prompt="y"), recorded(1, 0, "a0", prompt="z")]
    llm = RecordedLLM("r", calls, small=False, in_place=True)
    assert ask(llm, prompt="x", individual=1).text == "a0", "never another child's"
    assert ask(llm, prompt="new", individual=1).text == "a1"
    assert ask(llm, prompt="new", individual=2).text == "b"
    with pytest.raises(ModelError, match="of individual 2"):
        ask(llm, prompt="x", individual=2)
    with pytest.raises(ModelError, match="of individual 3"):
        ask(llm, prompt="x", individual=3)


def test_a_prompt_that_was_never_asked_is_a_permanent_error_that_names_the_child() -> None:
    llm = RecordedLLM("replay:r", [recorded(1, 0, "one")], small=False)
    with pytest.raises(ModelError, match=r"replay:r has no reply to this prompt \(mutate of individual 7\)") as error:
        ask(llm, prompt="other", individual=7)
    assert error.value.permanent
