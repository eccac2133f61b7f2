from __future__ import annotations

import time

from guided_evolution.curves import Watch, is_kept
from guided_evolution.pruning import is_rung


def test_a_long_curve_is_thinned_and_keeps_every_power_of_two() -> None:
    kept = [step for step in range(1, 100_001) if is_kept(step)]
    assert kept[:127] == list(range(1, 128))
    assert len(kept) < 800
    assert {1 << power for power in range(17)} <= set(kept)
    assert all(is_kept(step) for step in range(1, 100_001) if is_rung(step))


def test_a_curve_ends_with_the_last_step_whatever_is_left_out() -> None:
    watch = Watch(lambda step, scores: "")
    for step in range(1, 132):
        assert not watch.take({"x": float(step)})
    curve = watch.curve(0.0)
    assert [each.step for each in curve.results[-4:]] == [127, 128, 130, 131]
    assert curve.whole
    assert curve.last == 131
    assert curve.results[-1].scores == {"x": 131.0}
    assert curve.at(129) is None
    assert curve.at(130) is not None


def test_what_comes_after_the_decision_is_left_out() -> None:
    watch = Watch(lambda step, scores: "enough" if scores["x"] > 1 else "")
    assert [watch.take({"x": float(step)}) for step in (0, 1, 2, 3)] == [False, False, True, True]
    curve = watch.curve(0.0)
    assert (watch.verdict, watch.stopped_at) == ("enough", {"x": 2.0})
    assert [each.step for each in curve.results] == [1, 2, 3]
    assert not curve.whole


def test_times_are_counted_from_the_beginning_of_the_evaluation() -> None:
    watch = Watch(lambda step, scores: "")
    time.sleep(0.2)  # it waited for its place until here
    began = time.monotonic()
    time.sleep(0.1)
    watch.take({"x": 1.0})
    time.sleep(0.1)
    taken = time.monotonic() - began
    (only,) = watch.curve(taken).results
    assert 0.09 < only.seconds < taken - 0.09
    assert Watch(lambda step, scores: "").curve(1.0).results == ()
