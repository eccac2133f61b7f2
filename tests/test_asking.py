from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from guided_evolution import session
from guided_evolution.asking import Asker, Lane
from guided_evolution.budget import CHARACTERS_PER_TOKEN, Budget
from guided_evolution.errors import ModelError, UsageError
from guided_evolution.llm import Reply, Request
from guided_evolution.llm.client import ClientLLM, Endpoint
from guided_evolution.llm.scripted import FunctionLLM
from guided_evolution.problem import Problem
from guided_evolution.settings import Settings
from guided_evolution.testing import scripted_reply
from interrupting import Stopper

NOTHING = {"tokens_in": 0.0, "tokens_out": 0.0, "usd": 0.0, "uncounted_in": 0.0, "uncounted_out": 0.0}


class StoppedError(Exception):
    pass


class Meter:
    """A fake model of a known price, and the record of what it was paid."""

    name, small = "meter", False

    def __init__(self, dollars: float, lengths: list[int]) -> None:
        self.dollars, self.lengths = dollars, lengths
        self.spent = dict(NOTHING)
        self.calls = self.together = self.most = 0

    def price(self, tokens_in: int, tokens_out: int) -> float | None:
        return self.dollars * (tokens_in + tokens_out)

    async def ask(self, request: Request, on_text: object = None) -> Reply:
        length = min(request.max_tokens, self.lengths[self.calls % len(self.lengths)])
        self.calls += 1
        self.together += 1
        self.most = max(self.most, self.together)
        for _ in range(length % 7):
            await asyncio.sleep(0)
        self.together -= 1
        tokens_in = len(request.prompt) // 4
        return Reply("x", "meter", tokens_in=tokens_in, tokens_out=length, usd=self.price(tokens_in, length))

    async def close(self) -> None:
        pass

    def record(self, reply: Reply) -> None:
        self.spent["tokens_in"] += reply.tokens_in or 0
        self.spent["tokens_out"] += reply.tokens_out or 0
        self.spent["usd"] += reply.usd or 0.0


def spend(model: Meter, budget: Budget, requests: list[Request]) -> list[str]:
    async def run() -> list[str]:
        asker = Asker(8, budget, lambda: model.spent, lambda event: None)
        reasons: list[str] = []

        def before() -> None:
            if reasons:
                raise StoppedError

        asker.before_asking, asker.stop = before, reasons.append
        tasks = [asker.ask(model, request, 1, model.record) for request in requests]
        await asyncio.gather(*tasks, return_exceptions=True)
        return reasons

    return asyncio.run(run())


REQUESTS = st.lists(
    st.builds(
        lambda prompt, most: Request("mutate", "p" * prompt, max_tokens=most),
        st.integers(0, 4000),
        st.integers(1, 1400),
    ),
    min_size=1,
    max_size=40,
)


@hypothesis_settings(deadline=None, max_examples=60)
@given(requests=REQUESTS, lengths=st.lists(st.integers(0, 1400), min_size=1, max_size=5), cap=st.integers(1, 20000))
def test_caps_hold_under_eight_parallel_calls(requests: list[Request], lengths: list[int], cap: int) -> None:
    model = Meter(1e-3, lengths)
    reasons = spend(model, Budget(tokens=cap), requests)
    assert model.spent["tokens_in"] + model.spent["tokens_out"] <= cap
    assert reasons or model.calls == len(requests)
    model = Meter(1e-3, lengths)
    reasons = spend(model, Budget(usd=cap / 1000), requests)
    assert model.spent["usd"] <= cap / 1000 + 1e-9
    assert reasons or model.calls == len(requests)


def test_calls_wait_for_reservations_to_settle_before_the_run_stops() -> None:
    model = Meter(0.0, [10])
    reasons = spend(model, Budget(tokens=3000), [Request("mutate", "p" * 40, max_tokens=1000)] * 300)
    assert model.most == 2, "two calls of at most 1,076 tokens fit beside each other"
    assert reasons[0].startswith("max_tokens reached (3,000)")
    assert 3000 - 1076 - 20 <= model.spent["tokens_in"] + model.spent["tokens_out"] <= 3000


def test_without_a_cap_the_lane_is_full() -> None:
    model = Meter(0.0, [6])
    assert spend(model, Budget(), [Request("mutate", "p")] * 30) == []
    assert (model.calls, model.most) == (30, 8)


def test_a_model_that_counts_no_tokens_is_counted_by_its_characters_also_after_a_resume(
    tiny: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = FunctionLLM(scripted_reply, "fake")
    settings = Settings(population=4, generations=9, llm="fake", max_tokens=9000)
    whole = session.start(tiny, settings, tmp_path / "whole", (), model)
    assert whole.stop_reason.startswith("max_tokens reached (9,000)")
    spent = whole.spending
    assert spent["tokens_in"] == spent["tokens_out"] == 0
    assert 7000 < (spent["uncounted_in"] + spent["uncounted_out"]) / CHARACTERS_PER_TOKEN <= 9000
    half = session.start(tiny, settings, tmp_path / "halves", (Stopper(6, monkeypatch),), model)
    assert half.status == "interrupted"
    assert 0 < half.spending["uncounted_in"] < spent["uncounted_in"]
    halves = session.resume(tmp_path / "halves", llm=model)
    assert halves.stop_reason.startswith("max_tokens reached (9,000)")
    assert halves.spending["calls"] == spent["calls"]


def test_money_without_a_price_is_refused_before_anything_is_written(tiny: Problem, tmp_path: Path) -> None:
    model = ClientLLM(Endpoint("http://127.0.0.1:9/v1#m"))
    with pytest.raises(UsageError, match=r"--max-usd can't be kept with http.*use --max-tokens"):
        session.start(tiny, Settings(max_usd=1.0), tmp_path / "run", (), model)
    assert not (tmp_path / "run").exists()


def test_a_listed_model_has_its_price() -> None:
    assert 0 < (ClientLLM(Endpoint("openai:gpt-5-mini")).price(1000, 1000) or 0) < 1
    assert ClientLLM(Endpoint("openai:no-such-model")).price(1, 1) is None
    assert ClientLLM(Endpoint("http://127.0.0.1:9/v1#m", embedded=True)).price(1, 1) == 0.0


def test_a_capped_run_says_why_it_stopped_and_keeps_the_cap(tiny: Problem, tmp_path: Path) -> None:
    settings = Settings(population=4, generations=9, llm="fake", llm_parallel=8, max_tokens=9000)
    run = session.start(tiny, settings, tmp_path / "run", (), FunctionLLM(scripted_reply, "fake"))
    assert run.status == "done"
    assert run.stop_reason.startswith("max_tokens reached (9,000)")


class Busy:
    """A fake model that asks for a pause, and then answers."""

    name, small = "busy", False

    def __init__(self, pause: float) -> None:
        self.pause = pause
        self.asked: list[float] = []

    async def ask(self, request: Request, on_text: object = None) -> Reply:
        self.asked.append(time.monotonic())
        if len(self.asked) == 1:
            raise ModelError("busy is over its rate limit (429).", retry_after=self.pause)
        return Reply("x", "busy")

    async def close(self) -> None:
        pass


def patiently(model: Busy, outage: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("guided_evolution.asking.PAUSE_SECONDS", 0.01)
    spent = dict(NOTHING)
    asker = Asker(1, Budget(), lambda: spent, lambda event: None)
    asker.outage_seconds = outage
    asyncio.run(asker.ask(model, Request("mutate", "x"), 1, lambda reply: None))


def test_a_pause_that_a_model_asks_for_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Busy(0.4)
    patiently(model, 10.0, monkeypatch)
    assert model.asked[1] - model.asked[0] >= 0.4


def test_a_pause_longer_than_an_outage_may_last_ends_the_run_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, begun = Busy(3600.0), time.monotonic()
    with pytest.raises(ModelError, match="rate limit"):
        patiently(model, 5.0, monkeypatch)
    assert len(model.asked) == 1
    assert time.monotonic() - begun < 5.0


@given(
    st.integers(1, 3),
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.integers(-1, 6)), min_size=1, max_size=12),
)
def test_a_place_goes_to_the_lowest_number_that_waits_and_none_is_lost(
    places: int, children: list[tuple[int, int, int]]
) -> None:
    lane, inside = Lane(places), list[int]()

    async def one(number: int, turns: int) -> None:
        async with lane.place(number):
            inside.append(number)
            try:
                assert len(inside) <= places
                for _ in range(turns):
                    await asyncio.sleep(0)
            finally:
                inside.remove(number)

    async def all_of_them() -> list[int]:
        tasks = [asyncio.ensure_future(one(number, turns)) for number, turns, _ in children]
        for step in range(8):
            await asyncio.sleep(0)
            for task, (_, _, at) in zip(tasks, children, strict=True):
                if at == step:
                    task.cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert not any(isinstance(each, AssertionError) for each in found)
        order: list[int] = []

        async def then(number: int) -> None:
            async with lane.place(number):
                order.append(number)
                await asyncio.sleep(0)

        # every place is free again: the first come get one each, and the lowest of the others go before the rest
        await asyncio.wait_for(asyncio.gather(*(then(number) for number in (9, 8, 7, 6, 5, 4))), 5)
        return order

    order = asyncio.run(all_of_them())
    assert not inside
    assert order[:places] == [9, 8, 7][:places]
    assert order[places:] == sorted(order[places:])
