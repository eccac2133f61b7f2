"""The two examples whose programs are plain functions: circle packing, proven exactly, and online bin packing."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from importlib.util import module_from_spec, spec_from_file_location
from itertools import count
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guided_evolution.evaluation import Job, launch
from guided_evolution.individual import Outcome, Status
from guided_evolution.operators import block_kind
from guided_evolution.problem import Problem
from guided_evolution.prompts.book import CATEGORIES, Book

EXAMPLES = Path(__file__).parent.parent / "examples"
NAMES = ("bin_packing", "circle_packing")
NUMBERS = count()


def evaluator(example: str) -> ModuleType:
    spec = spec_from_file_location(f"{example}_evaluate", EXAMPLES / example / "evaluate.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CIRCLES, BINS = evaluator("circle_packing"), evaluator("bin_packing")


@pytest.fixture(autouse=True)
def candidate_forgotten() -> Iterator[None]:
    yield
    sys.modules.pop("_guided_evolution_candidate", None)


def jailed(example: str, source: str, folder: Path, stage: str = "evaluate", **fields: Any) -> Outcome:
    """What a run would say of this program: scored in a process of its own, in the strongest jail of this machine."""
    problem = Problem.load(EXAMPLES / example)
    fields = {"seconds": problem.limits.seconds, "memory_mb": problem.limits.memory_mb, **fields}
    job = Job(
        name=f"{next(NUMBERS)}-{stage}",
        stage=stage,
        files={"seed.py": source},
        problem=problem.folder,
        objectives=tuple(objective.name for objective in problem.objectives),
        ranges={objective.name: objective.range for objective in problem.objectives if objective.range},
        seed=1,
        **fields,
    )
    return launch.run(job, folder / job.name)


def seed_of(example: str) -> str:
    return (EXAMPLES / example / "seed.py").read_text()


def changed(example: str, old: str, new: str) -> str:
    source = seed_of(example)
    assert source.count(old) == 1
    return source.replace(old, new)


@pytest.mark.parametrize("example", NAMES)
def test_the_seed_passes_check_and_evaluate_in_the_jail_and_gives_the_same_score_twice(
    example: str, tmp_path: Path
) -> None:
    assert jailed(example, seed_of(example), tmp_path, "check").ok
    first, second = (jailed(example, seed_of(example), tmp_path) for _ in range(2))
    assert first.ok, first
    assert first.scores == second.scores
    assert first.feedback


def test_the_seeds_have_the_scores_that_their_read_me_gives(tmp_path: Path) -> None:
    circles = jailed("circle_packing", seed_of("circle_packing"), tmp_path)
    assert circles.scores == {"sum_radii": pytest.approx(2.3650, abs=5e-5), "size": 205}
    bins = jailed("bin_packing", seed_of("bin_packing"), tmp_path)
    assert bins.scores == {"excess": pytest.approx(4.77, abs=5e-3), "size": 50}
    held_out = jailed("bin_packing", seed_of("bin_packing"), tmp_path, "test")
    assert held_out.scores["excess"] == pytest.approx(4.73, abs=5e-3)


MUTATIONS = {
    "bin_packing": {
        "tightness": ("-left / capacity", "-abs(left / capacity - 0.1)"),
        "opening": ("-0.1", "0.4"),
        "priority": ("tightness(bins - item, capacity)", "tightness(bins - item // 2, capacity) % 0.5"),
    },
    "circle_packing": {
        "layout": ("return grid[:count]", "return grid[-count:] * 0.99"),
        "radii": ("apart.min(axis=1) / 2", "apart.min(axis=1) / 2.1"),
        "step_size": ("0.05", "0.03"),
        "move": ("rng.normal(size=2)", "rng.uniform(-1, 1, size=2)"),
        "pack": ("found.sum() > best.sum()", "found.min() > best.min()"),
    },
}


@pytest.mark.parametrize("example", NAMES)
def test_fault_15_every_block_is_live(example: str, tmp_path: Path) -> None:
    module, file = evaluator(example), tmp_path / "seed.py"
    context = SimpleNamespace(seed=1)
    objective = Problem.load(EXAMPLES / example).objectives[0].name
    file.write_text(seed_of(example))
    before = module.evaluate(file, context)[objective]
    blocks = {block.name: block.source for block in Problem.load(EXAMPLES / example).genome().blocks}
    assert set(blocks) == set(MUTATIONS[example])
    for name, (old, new) in MUTATIONS[example].items():
        assert old in blocks[name]
        file.write_text(changed(example, old, new))
        assert module.evaluate(file, context)[objective] != before, name


@pytest.mark.parametrize("example", NAMES)
def test_every_move_of_the_problem_fits_some_block_or_what_became_of_one(example: str) -> None:
    problem = Problem.load(EXAMPLES / example)
    book = Book(problem.prompts)
    book.check()
    blocks = problem.genome().blocks
    assert {block_kind(block) for block in blocks} == {"function"}
    for category in CATEGORIES:
        fitting = [[move for move in book.moves(category) if move.fits("function", block.source)] for block in blocks]
        assert sum(map(bool, fitting)) >= 0.5 * len(blocks), category
        assert {move.kind for move in book.moves(category)} == {"function"}


# circle packing


def exactly(values: Any) -> Any:
    return [tuple(map(Fraction, each)) if isinstance(each, tuple) else Fraction(each) for each in values]


def test_touching_circles_are_valid_and_an_overlap_of_one_ulp_is_not() -> None:
    centres = exactly([(0.25, 0.5), (0.75, 0.5)])
    assert CIRCLES.violation(centres, exactly([0.25, 0.25])) == ""
    larger = math.nextafter(0.25, 1)
    assert CIRCLES.violation(centres, exactly([0.125, math.nextafter(0.375, 1)])) == "circle 1 leaves the square"
    inner = exactly([(0.375, 0.5), (0.625, 0.5)])
    assert CIRCLES.violation(inner, exactly([0.125, 0.125])) == ""
    assert CIRCLES.violation(inner, exactly([0.125, math.nextafter(0.125, 1)])) == "circles 0 and 1 overlap"
    assert CIRCLES.violation(exactly([(0.25, 0.5)]), exactly([larger])) == "circle 0 leaves the square"


def test_an_overlap_that_floats_do_not_see_is_seen() -> None:
    (x, y), (u, v) = (0.1, 0.1), (0.4, 0.5)
    distance = math.hypot(x - u, y - v)
    one = 0.1
    other = next(r for r in iter_ulps(distance - one) if Fraction(one) + Fraction(r) > root_below((x, y), (u, v)))
    assert one + other <= distance  # by floats it fits
    assert CIRCLES.violation(exactly([(x, y), (u, v)]), exactly([one, other])) == "circles 0 and 1 overlap"
    scaled, factor, limiting = CIRCLES.shrunk(exactly([(x, y), (u, v)]), exactly([one, other]))
    assert 1 - Fraction(1, 10**15) < factor < 1
    assert limiting == "circles 0 and 1 overlap"
    assert CIRCLES.violation(exactly([(x, y), (u, v)]), scaled) == ""


def iter_ulps(value: float) -> Iterator[float]:
    value -= 8 * math.ulp(value)
    for _ in range(16):
        yield value
        value = math.nextafter(value, 1)


def root_below(one: tuple[float, float], other: tuple[float, float]) -> Fraction:
    square = sum((Fraction(a) - Fraction(b)) ** 2 for a, b in zip(one, other, strict=True))
    return CIRCLES.floor_root(square) + Fraction(1, CIRCLES.SCALE)  # type: ignore[no-any-return]


inside = st.floats(0.001, 0.999)
circles = st.lists(
    st.tuples(inside, inside, st.floats(1e-6, 2.0)), min_size=1, max_size=8, unique_by=lambda each: each[:2]
)


@given(circles)
@settings(deadline=None, max_examples=150)
def test_any_circles_shrink_to_a_packing_that_can_not_be_larger(found: list[tuple[float, float, float]]) -> None:
    centres, radii = exactly([each[:2] for each in found]), exactly([each[2] for each in found])
    scaled, factor, limiting = CIRCLES.shrunk(centres, radii)
    assert CIRCLES.violation(centres, scaled) == ""
    assert 0 < factor <= 1
    assert (factor == 1) == (CIRCLES.violation(centres, radii) == "") == (not limiting)
    if factor < 1:
        slightly = factor + Fraction(1, 2**60)
        assert CIRCLES.violation(centres, [slightly * radius for radius in radii])
    assert Fraction(CIRCLES.at_most(sum(scaled))) <= sum(scaled)


@given(st.integers(0, 10**40), st.integers(1, 10**40))
def test_roots_and_floats_are_rounded_down_and_by_less_than_one_step(top: int, bottom: int) -> None:
    value, step = Fraction(top, bottom), Fraction(1, CIRCLES.SCALE)
    root = CIRCLES.floor_root(value)
    assert root**2 <= value < (root + step) ** 2
    assert CIRCLES.floor(value) <= value < CIRCLES.floor(value) + step
    near = CIRCLES.at_most(value)
    assert Fraction(near) <= value < Fraction(math.nextafter(near, math.inf))


PACK = "import numpy as np\ndef pack(count, steps, rng):\n{}"
GRID = """\
    c = np.array([((i % 6 + 0.5) / 6, (i // 6 + 0.5) / 6) for i in range(count)])
    r = np.full(count, 1 / 12)
"""


def test_a_plain_grid_has_the_sum_of_its_radii_rounded_down(tmp_path: Path) -> None:
    outcome = jailed("circle_packing", PACK.format(GRID + "    return c, r\n"), tmp_path)
    assert outcome.scores["sum_radii"] == pytest.approx(26 / 12, rel=1e-15)
    assert Fraction(outcome.scores["sum_radii"]) <= Fraction(26, 12)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("    return c, r[:-1]\n", r"the radii have the shape \(25,\), expected \(26,\)"),
        ("    return c[:, :1], r\n", r"the centres have the shape \(26, 1\), expected \(26, 2\)"),
        ("    r[3] = np.nan\n    return c, r\n", "the radii hold a number that is not finite"),
        ("    c[3] = np.inf\n    return c, r\n", "the centres hold a number that is not finite"),
        ("    r[3] = -0.1\n    return c, r\n", "the radius of circle 3 is -0.1, and has to be above 0"),
        ("    c[3, 0] = 1.5\n    return c, r\n", "the centre of circle 3, .* is not inside of the square"),
        ("    c[3] = c[4]\n    return c, r\n", "two circles have the same centre"),
        ("    return c, r, 2.7\n", "pack returned a tuple, expected the pair"),
        ("    return 2.7\n", "pack returned a float, expected the pair"),
        ("    return c, 'large'\n", "the radii are a str that is no array of numbers"),
        ("    return c, r * 1e300\n", "nothing is left of the packing"),
        ("    return c, 1 / 0\n", r"ZeroDivisionError: division by zero \(seed\.py:5 in pack\)"),
        ("    import scipy\n    return c, r\n", "the program uses the module scipy, which is not allowed"),
        ("    return sys._getframe(1)\n", "the program uses `._getframe`"),
    ],
)
def test_what_is_no_packing_is_refused_with_its_reason(body: str, reason: str, tmp_path: Path) -> None:
    outcome = jailed("circle_packing", PACK.format(GRID + body), tmp_path)
    assert outcome.status is Status.CRASHED
    assert re.search(reason, outcome.reason), outcome.reason


def test_claiming_larger_radii_gains_nothing(tmp_path: Path) -> None:
    honest, boasting = (
        jailed("circle_packing", PACK.format(GRID + f"    return c, r * {by}\n"), tmp_path) for by in (1, 7.3)
    )
    assert boasting.scores["sum_radii"] <= honest.scores["sum_radii"] + 1e-15
    assert boasting.scores["sum_radii"] == pytest.approx(honest.scores["sum_radii"])
    assert boasting.metrics["shrunk_by"] == pytest.approx(1 - 1 / 7.3)
    assert "multiplied by 0.1370" in boasting.feedback


@pytest.mark.parametrize("example", NAMES)
def test_a_loop_without_end_is_stopped(example: str, tmp_path: Path) -> None:
    function = {"bin_packing": "priority(item, bins, capacity)", "circle_packing": "pack(count, steps, rng)"}[example]
    outcome = jailed(example, f"def {function}:\n    while True:\n        pass\n", tmp_path, "check", seconds=2)
    assert outcome.status is Status.TIMED_OUT


def test_circles_that_could_grow_are_named(tmp_path: Path) -> None:
    body = GRID + "    r[[2, 5]] = 0.01\n    return c, r\n"
    outcome = jailed("circle_packing", PACK.format(body), tmp_path)
    assert "circles touch nothing and could grow" in outcome.feedback
    assert re.search(r"grow: .*\b2\b.*\b5\b", outcome.feedback)


# bin packing

PRIORITY = """\
import numpy as np
class Easy:
    def integers(self, low, high):
        return 50
    def weibull(self, shape):
        return 1
def priority(item, bins, capacity):
    {}
"""


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("return bins[:-1]", r"priority returned \d+ for \d+ bins, expected an array of length"),
        ("return 1.0", "priority returned one number for 1 bins, expected an array of length 1"),
        ("return bins[None]", r"priority returned 1x1 for 1 bins"),
        ("return 'all'", "priority returned a str that is no array of numbers"),
        ("return None", r"priority returned nothing \(None\)"),
        ("return bins * np.nan", r"priority returned NaN for an item of \d+ and a bin with \d+ free"),
        ("return bins / 0 - bins / 0", "priority returned NaN"),
        ("return bins + missing", r"NameError: name 'missing' is not defined \(seed\.py:8 in priority\)"),
        ("import os; return bins", "the program uses the module os"),
        ("np.argmax = lambda values: 0; return -bins", r"the program changed numpy\.argmax"),
        ("np.mean = lambda values: 0.0; return -bins", r"the program changed numpy\.mean"),
        (
            "np.random.default_rng = lambda seed: Easy(); return -bins",
            r"the program changed numpy\.random\.default_rng",
        ),
    ],
)
def test_a_wrong_priority_is_refused_with_its_reason(body: str, reason: str, tmp_path: Path) -> None:
    outcome = jailed("bin_packing", PRIORITY.format(body), tmp_path)
    assert outcome.status is Status.CRASHED, outcome
    assert re.search(reason, outcome.reason), outcome.reason


def test_infinite_priorities_are_answers(tmp_path: Path) -> None:
    outcome = jailed("bin_packing", PRIORITY.format("return 1 / (bins - item)"), tmp_path)
    best_fit = jailed("bin_packing", PRIORITY.format("return -bins"), tmp_path)
    assert outcome.scores["excess"] == best_fit.scores["excess"]


def test_changing_the_bins_changes_nothing() -> None:
    def greedy(item: int, bins: np.ndarray, capacity: int) -> np.ndarray:
        worth = -bins.copy()
        bins[:] = 10**6
        return worth

    def honest(item: int, bins: np.ndarray, capacity: int) -> np.ndarray:
        return -bins

    for name in BINS.CLASSES:
        packed = [BINS.pack(each, name, BINS.rng_of(BINS.EVALUATE, name, 0)) for each in (greedy, honest)]
        assert packed[0] == packed[1]


def test_items_come_one_at_a_time_and_only_bins_that_they_fit_into_are_offered() -> None:
    free: list[int] = []
    drawn: list[int] = []

    class Watched:
        def __init__(self) -> None:
            self.rng = np.random.default_rng(5)

        def integers(self, low: int, high: int) -> int:
            drawn.append(int(self.rng.integers(low, high)))
            return drawn[-1]

    def priority(item: int, bins: np.ndarray, capacity: int) -> np.ndarray:
        assert item == drawn[-1] and len(drawn) == len(calls) + 1
        assert (bins >= item).all() and bins[-1] == capacity
        calls.append(item)
        assert sorted(bins[:-1]) == sorted(space for space in free if space >= item)
        at = int(np.argmax(-bins))
        if at < len(bins) - 1:
            free.remove(bins[at])
        free.append(int(bins[at]) - item)
        return -bins

    calls: list[int] = []
    packed = BINS.pack(priority, "uniform", Watched(), items=300)
    assert len(calls) == 300
    assert packed["bins"] == len(free)
    assert packed["bins"] * 150 - sum(drawn) == sum(free) == packed["wasted"]


def fewest_bins(items: list[int], capacity: int) -> int:
    """By trying everything: item by item into each bin that differs."""
    best = len(items)

    def place(at: int, free: tuple[int, ...]) -> None:
        nonlocal best
        if len(free) >= best:
            return
        if at == len(items):
            best = len(free)
            return
        for space in {space for space in free if space >= items[at]}:
            rest = list(free)
            rest.remove(space)
            place(at + 1, (*rest, space - items[at]))
        place(at + 1, (*free, capacity - items[at]))

    place(0, ())
    return best


@given(st.lists(st.integers(1, 30), min_size=1, max_size=8))
@settings(deadline=None, max_examples=150)
def test_the_lower_bound_is_one(items: list[int]) -> None:
    bound = BINS.lower_bound(items, 30)
    assert -(-sum(items) // 30) <= bound <= fewest_bins(items, 30)


def test_the_lower_bound_knows_that_two_large_items_share_no_bin() -> None:
    assert BINS.lower_bound([16] * 5, 30) == 5
    assert BINS.lower_bound([20, 20, 11, 11], 30) == 3
    assert BINS.lower_bound([15] * 5, 30) == 3


def test_instances_are_those_of_the_two_families_and_held_out_ones_are_others() -> None:
    for name, (capacity, items, *_) in BINS.CLASSES.items():
        rng = BINS.rng_of(BINS.EVALUATE, name, 0)
        drawn = [BINS.draw(name, rng) for _ in range(items * 5)]
        other = BINS.rng_of(BINS.TEST, name, 0)
        assert drawn[:50] != [BINS.draw(name, other) for _ in range(50)]
        low, high, mean = {"uniform": (20, 100, 60), "weibull": (1, 100, 45 * math.gamma(1 + 1 / 3))}[name]
        assert low <= min(drawn) and max(drawn) <= high <= capacity
        assert np.mean(drawn) == pytest.approx(mean, rel=0.02)


def test_the_baselines_have_the_figures_of_the_read_me() -> None:
    command = [sys.executable, "baselines.py"]
    said = subprocess.run(command, cwd=EXAMPLES / "bin_packing", capture_output=True, text=True, check=True).stdout
    readme = (EXAMPLES / "bin_packing" / "README.md").read_text()
    figures = re.findall(r"(\w+), (\w+): ([\d.]+) % \(uniform ([\d.]+) %, weibull ([\d.]+) %\)", said)
    assert len(figures) == 6
    for name, stage, mean, uniform, weibull in figures:
        row = f"| {name.replace('_', ' ')} | {stage} | {uniform} % | {weibull} % | {mean} % |"
        assert row in readme, row


def test_a_program_remembers_nothing_from_one_instance_to_the_next(tmp_path: Path) -> None:
    source = "count = []\ndef priority(item, bins, capacity):\n    count.append(item)\n    assert len(count) <= 2000\n"
    assert jailed("bin_packing", source + "    return -bins\n", tmp_path).ok
