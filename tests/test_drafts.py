from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guided_evolution import selection, session, view
from guided_evolution.drafts import Promise
from guided_evolution.errors import UsageError
from guided_evolution.genome import Genome
from guided_evolution.individual import PASSED_OVER, Individual, Origin, Outcome, Status, Step
from guided_evolution.llm.scripted import FunctionLLM
from guided_evolution.presets import PRESETS
from guided_evolution.problem import Constraint, Objective, Problem
from guided_evolution.replay import replay
from guided_evolution.run import Run, open_run
from guided_evolution.settings import Settings
from guided_evolution.store import Store
from guided_evolution.testing import Recorder, scripted_reply, write_tiny_problem
from interrupting import Stopper, kill_run

GE = Path(sys.executable).parent / "ge"
ACCURACY = Objective("accuracy", "max", reference=0, range=(0.0, 1.0))
SIZE = Objective("size", "min", reference=100)
BOTH = Problem(Path(), "two", {}, (ACCURACY, SIZE))
SETTINGS = Settings(population=4, generations=2, p_eot=0.5, llm="fake", workers=2, drafts=3)


def one(number: int, accuracy: float, size: float, parent: int | None = None, status: Status = Status.OK) -> Individual:
    genome = Genome.parse({"a.py": f"def f():\n    return {number}\n"})
    scores = {"accuracy": accuracy, "size": size} if status is Status.OK else {}
    origin = Origin() if parent is None else Origin((parent,), (Step("mutate", "f"),))
    return Individual(number, 0, genome, origin, Outcome(status, scores=scores))


SEED = one(0, 0.5, 50)


def promise(problem: Problem = BOTH, *front: Individual, known: frozenset[str] = frozenset()) -> Promise:
    return Promise(problem, lambda: front or (SEED,), known)


# -- what a draft promises --------------------------------------------------------------------------------------------


def test_without_experience_a_draft_is_taken_to_keep_its_parents_values() -> None:
    # between the references: 0.5 * (100 - 20) where the seed has 0.5 * (100 - 50)
    assert promise().gain(SEED, {"size": 20.0}) == pytest.approx(0.5 * 30)
    assert promise().gain(SEED, {"size": 50.0}) == 0
    assert promise().gain(SEED, {"size": 60.0}) == 0


def test_the_other_objectives_change_as_they_changed_in_earlier_children() -> None:
    found = promise()
    found.learn(one(1, 0.7, 50, 0), SEED, {})
    # as the parent, and 0.2 better: the mean of 0 and 0.2 * 50
    assert found.gain(SEED, {"size": 50.0}) == pytest.approx(5)
    better = one(2, 0.9, 50)
    # from 0.9 it can't become more than 1
    assert found.gain(better, {"size": 50.0}) == pytest.approx(((0.9 - 0.5) * 50 + (1.0 - 0.5) * 50) / 2)


def test_children_that_failed_lower_what_is_expected_of_their_like() -> None:
    found = promise()
    for number in range(20):
        found.learn(one(10 + number, 0, 0, 0, Status.CRASHED), SEED, {"size": 10.0})
        found.learn(one(40 + number, 0.5, 40, 0), SEED, {})
    # sixteen like it failed, and one is taken to be as its parent
    assert found.gain(SEED, {"size": 10.0}) == pytest.approx(0.5 * 40 / 17)
    assert found.gain(SEED, {"size": 40.0}) == pytest.approx(0.5 * 10)


def test_a_change_is_judged_by_changes_of_its_own_kind() -> None:
    found = promise()
    for number in range(16):
        found.learn(one(10 + number, 0.1, 10, 0), SEED, {})  # large cuts cost much
        found.learn(one(40 + number, 0.5, 45, 0), SEED, {})  # small ones nothing
    assert found.gain(SEED, {"size": 44.0}) == pytest.approx(0.5 * 6)
    assert found.gain(SEED, {"size": 9.0}) < 0.5 * 41 / 2


def test_what_breaks_a_constraint_promises_nothing() -> None:
    capped = replace(BOTH, constraints=(Constraint("size", max=60), Constraint("speed", min=3)))
    start = replace(SEED, outcome=replace(SEED.outcome, metrics={"speed": 4.0}))
    found = promise(capped, start)
    assert found.gain(start, {"size": 20.0}) == pytest.approx(15), "the parent's speed is taken for the child's"
    assert found.gain(start, {"size": 20.0, "speed": 2.0}) == 0


def test_without_references_all_but_the_worst_counts() -> None:
    bare = Problem(Path(), "bare", {}, (Objective("accuracy", "max"), Objective("size", "min")))
    found = promise(bare)
    assert found.gain(SEED, {"size": 20.0}) > found.gain(SEED, {"size": 40.0}) > 0
    assert found.gain(SEED, {"size": 60.0}) == 0


values = st.tuples(st.integers(0, 10), st.integers(1, 99))


@given(st.lists(st.tuples(values, st.booleans()), max_size=20), st.integers(1, 120), st.integers(1, 120))
def test_with_one_history_a_smaller_program_never_promises_less(
    past: list[tuple[tuple[int, int], bool]], size: int, other: int
) -> None:
    found = promise()
    for number, ((accuracy, _), ok) in enumerate(past, start=1):
        child = one(number, accuracy / 10, 50, 0, Status.OK if ok else Status.TIMED_OUT)
        found.learn(child, SEED, {"size": 50.0})
    small, large = sorted([float(size), float(other)])
    gains = [found.gain(SEED, {"size": each}) for each in (small, large)]
    assert gains[0] >= gains[1] - 1e-9
    assert min(gains) >= 0
    assert gains[0] <= selection.hypervolume([[-1.0, small]], [0.0, 100.0]) + 1e-9


@given(st.lists(values, min_size=1, max_size=6), st.lists(st.booleans(), min_size=6, max_size=6))
def test_a_new_program_is_chosen_wherever_there_is_one(sizes: list[tuple[int, int]], known: list[bool]) -> None:
    digests = [str(index) for index in range(len(sizes))]
    scored = frozenset(digest for digest, is_known in zip(digests, known, strict=False) if is_known)
    found = promise(BOTH, SEED, known=scored)
    checked = [{"size": float(size)} for _, size in sizes]
    place = found.choose(SEED, digests, checked)
    if len(scored) < len(digests):
        assert digests[place] not in scored
        new = [index for index, digest in enumerate(digests) if digest not in scored]
        assert found.gain(SEED, checked[place]) == max(found.gain(SEED, checked[index]) for index in new)
    else:
        assert place == 0


def test_of_equal_drafts_the_first_is_taken() -> None:
    assert promise().choose(SEED, ["a", "b"], [{}, {}]) == 0
    assert promise().choose(SEED, ["a", "b", "c"], [{"size": 50.0}, {"size": 20.0}, {"size": 20.0}]) == 1


def test_of_children_that_are_equally_alike_the_latest_say_what_is_to_be_expected() -> None:
    found = promise()
    for number in range(1, 17):
        found.learn(one(number, 0.5, 50, 0), SEED, {})
    assert found.gain(SEED, {"size": 50.0}) == 0
    for number in range(17, 33):
        found.learn(one(number, 0.9, 50, 0), SEED, {})
    assert found.gain(SEED, {"size": 50.0}) == pytest.approx(0.4 * 50 * 16 / 17)


def test_a_huge_score_leaves_an_answer() -> None:
    bare = Problem(Path(), "bare", {}, (Objective("accuracy", "max"), Objective("size", "min")))
    for problem in (BOTH, bare):
        low, high = one(1, -sys.float_info.max, 50, 0), one(2, sys.float_info.max, 50, 0)
        found = promise(problem, SEED, low, high)
        for child in (low, high):
            found.learn(child, SEED, {})
            for parent in (SEED, low, high):
                assert found.gain(parent, {"size": 20.0}) >= 0


def test_of_drafts_that_break_a_constraint_the_least_breaking_is_chosen() -> None:
    capped = replace(BOTH, constraints=(Constraint("size", max=10),))
    found = promise(capped)
    sizes = [{"size": 40.0}, {"size": 12.0}, {"size": 30.0}]
    assert found.choose(SEED, ["a", "b", "c"], sizes) == 1
    assert found.choose(SEED, ["a", "b", "c", "d"], [*sizes, {"size": 9.0}]) == 3


# -- in a run ---------------------------------------------------------------------------------------------------------


def knowing(folder: Path, answer: str = '{"size": sum(abs(value) for value in numbers(program))}') -> Problem:
    """The tiny problem with a check that measures the size."""
    write_tiny_problem(folder)
    path = folder / "evaluate.py"
    text = path.read_text(encoding="utf-8")
    old = "def check(program):\n    numbers(program)\n"
    assert old in text
    path.write_text(text.replace(old, f"def check(program):\n    return {answer}\n"), encoding="utf-8")
    return Problem.load(folder)


@pytest.fixture
def sized(tmp_path: Path) -> Problem:
    return knowing(tmp_path / "sized")


def shrinking(prompt: str) -> str:
    """Raises a number, or lowers it: by the prompt."""
    text = scripted_reply(prompt)
    return text.replace("* SCALE", "* SCALE / 2") if sum(prompt.encode()) % 2 else text


def evolve(problem: Problem, folder: Path, settings: Settings = SETTINGS, **more: Any) -> Run:
    return session.start(problem, settings, folder, llm=FunctionLLM(shrinking, "fake"), **more)


def facts(run: Run) -> list[object]:
    return [
        (each.id, each.genome.digest, each.origin.parents, each.origin.steps, each.scores) for each in run.individuals
    ]


def test_the_most_promising_draft_is_evaluated_and_the_others_are_kept_as_passed_over(
    sized: Problem, tmp_path: Path
) -> None:
    recorder = Recorder()
    run = evolve(sized, tmp_path / "run", listeners=[recorder])
    assert len(run.individuals) == 1 + 4 + 2 * 4, "as many children as without drafts"
    passed_over = [call for call in run.calls if call.verdict == PASSED_OVER]
    assert len(passed_over) >= 8
    first = [run.individual(number) for number in range(1, 5)]
    seed, smaller = run.individuals[0], []
    for child in first:
        used = [call for call in child.origin.exchanges if not call.verdict]
        assert len(used) == 1
        drafts = [call for call in child.origin.exchanges if call.verdict in ("", PASSED_OVER)]
        assert len(drafts) == 3
        # nothing is known then but the sizes: the smallest draft that is smaller than the seed, else the first
        sizes = [_size(seed.genome, call.reply) for call in drafts]
        smaller.append(min(sizes) < seed.scores["size"])
        assert child.scores["size"] == (min(sizes) if smaller[-1] else sizes[0])
    assert any(smaller)
    evaluated = [event for event in recorder.events if event.kind == "evaluate"]
    assert len(evaluated) == len({each.genome.digest for each in run.individuals})


def _size(genome: Genome, reply: str) -> float:
    source = reply.split("```python\n")[1].removesuffix("```").rstrip("\n")
    name = source.split("def ")[1].split("(")[0]
    space: dict[str, Any] = {}
    exec(genome.replace(name, source).files["seed.py"], space)
    return float(sum(abs(space[each]()) for each in ("first", "second", "third")))


def test_a_run_with_drafts_can_be_repeated_on_any_number_of_workers(sized: Problem, tmp_path: Path) -> None:
    runs = [
        evolve(sized, tmp_path / str(workers), replace(SETTINGS, workers=workers, llm_parallel=workers))
        for workers in (1, 3)
    ]
    assert facts(runs[0]) == facts(runs[1])
    assert dict(runs[0].plans) == dict(runs[1].plans)


def test_what_became_of_earlier_children_decides_in_later_generations(
    sized: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(SETTINGS, generations=4, verify=False)
    taught = evolve(sized, tmp_path / "taught", settings)
    monkeypatch.setattr(Promise, "learn", lambda self, child, parent, checked: None)
    untaught = evolve(sized, tmp_path / "untaught", settings)
    programs = [
        [[each.genome.digest for each in run.individuals if bool(each.generation) is later] for later in (False, True)]
        for run in (taught, untaught)
    ]
    assert programs[0][0] == programs[1][0]
    assert programs[0][1] != programs[1][1]


def test_programs_that_are_known_give_way_to_new_ones(
    sized: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(SETTINGS, search="best-of-n", generations=4, verify=False)
    run = evolve(sized, tmp_path / "run", settings)
    chosen = Promise.choose
    monkeypatch.setattr(
        Promise,
        "choose",
        lambda self, parent, digests, checked: chosen(Promise(sized, self._front), parent, digests, checked),
    )
    careless = evolve(sized, tmp_path / "careless", settings)
    distinct = [len({each.genome.digest for each in each_run.individuals}) for each_run in (run, careless)]
    assert distinct[0] > distinct[1]


def test_a_refused_swap_leaves_the_replies_of_the_draft_before_it_alone(tmp_path: Path) -> None:
    # a program that changes two of the three numbers is refused, so no block can be taken from a partner
    problem = knowing(
        tmp_path / "sized",
        "{} if sum(a != b for a, b in zip(numbers(program), (1, 2, 3))) < 2 else 1 / 0",
    )
    settings = replace(SETTINGS, p_mate=1.0, p_mutate=1.0, p_eot=0.0, shortcuts="on", tries=4, generations=3)
    recorder = Recorder()
    run = evolve(problem, tmp_path / "run", settings, listeners=[recorder])
    refused = sum(event.kind == "refused" for event in recorder.events)
    assert refused > sum(call.verdict not in ("", PASSED_OVER) for call in run.calls), "some were refused unasked"
    for each in run.individuals[1:]:
        child = run.individual(each.id)
        if child.ok:
            assert any(not exchange.verdict for exchange in child.origin.exchanges), child.id


def test_adaptive_operators_learn_from_the_draft_that_was_evaluated(sized: Problem, tmp_path: Path) -> None:
    settings = replace(SETTINGS, generations=4, p_mate=0.0, p_eot=0.4, operators="adaptive", drafts=4, verify=False)
    run = evolve(sized, tmp_path / "run", settings)
    last = run.operator_odds[-1]
    tried = {row["operator"]: row["tried"] for row in last["operators"]}
    past = [run.individual(each.id) for each in run.individuals if 0 < each.generation < last["generation"]]
    by_step = [{step.operator for step in each.origin.steps} for each in past]
    assert tried["eot"] == sum("eot" in steps for steps in by_step) > 0
    assert tried["mutate"] == sum("mutate" in steps for steps in by_step) > 0


def test_the_first_child_is_evaluated_before_the_last_is_asked_for(tiny: Problem, tmp_path: Path) -> None:
    # without a check nothing but the model decides who comes when
    path = tiny.folder / "evaluate.py"
    path.write_text(path.read_text().replace("def check(program):\n    numbers(program)\n", ""))
    recorder = Recorder()
    evolve(Problem.load(tiny.folder), tmp_path / "run", replace(SETTINGS, generations=0), listeners=[recorder])
    seen = [(event.kind, event.individual) for event in recorder.events if event.kind in ("ask", "evaluate")]
    assert seen.index(("evaluate", 1)) < seen.index(("ask", 4))


@pytest.mark.parametrize("schedule", ["generational", "steady"])
def test_a_replay_chooses_the_same_drafts(sized: Problem, tmp_path: Path, schedule: str) -> None:
    settings = replace(SETTINGS, schedule=schedule, llm_parallel=3, workers=2)
    run = evolve(sized, tmp_path / "run", settings)
    found = replay(run.folder, tmp_path / "again", sized, changes={"workers": 1, "llm_parallel": 1})
    assert (found.ended, found.programs, found.prompts, found.scores) == ("", {}, [], {})
    verdicts = [{(call.individual, call.turn): call.verdict for call in each.calls} for each in (run, found.run)]
    assert verdicts[0] == verdicts[1]


def test_a_steady_run_with_drafts_goes_on_after_an_interrupt(
    sized: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(SETTINGS, schedule="steady", llm_parallel=3)
    part = evolve(sized, tmp_path / "run", settings, listeners=[Stopper(6, monkeypatch)])
    before = {each.id: each.genome.digest for each in part.individuals}
    run = session.resume(tmp_path / "run", llm=FunctionLLM(shrinking, "fake"))
    assert len(run.individuals) == 13 > len(before)
    assert before.items() <= {each.id: each.genome.digest for each in run.individuals}.items()


@pytest.mark.parametrize("after", [2, 5, 9])
def test_an_interrupted_run_with_drafts_ends_as_one_that_was_not(
    sized: Problem, tmp_path: Path, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = evolve(sized, tmp_path / "whole")
    part = evolve(sized, tmp_path / "run", listeners=[Stopper(after, monkeypatch)])
    assert part.status == "interrupted"
    run = session.resume(tmp_path / "run", llm=FunctionLLM(shrinking, "fake"))
    assert facts(run) == facts(whole)
    assert run.spending["calls"] == whole.spending["calls"]


@pytest.mark.parametrize("count", [2, 7, 16])
def test_fault_11_drafts_that_were_paid_for_are_not_asked_for_again_after_a_kill(
    sized: Problem, tmp_path: Path, count: int
) -> None:
    kill_run(sized, tmp_path / "run", "reply", count, population=4, generations=2, drafts=3, llm_parallel=2)
    paid = open_run(tmp_path / "run").spending["calls"]
    assert paid >= count
    calls: list[str] = []

    def counting(prompt: str) -> str:
        calls.append(prompt)
        return scripted_reply(prompt)

    run = session.resume(tmp_path / "run", llm=FunctionLLM(counting, "fake"))
    assert run.spending["calls"] == paid + len(calls)
    assert len(run.individuals) == 13


def test_a_child_is_rejected_only_when_all_its_drafts_failed(sized: Problem, tmp_path: Path) -> None:
    def moody(prompt: str) -> str:
        return scripted_reply(prompt) if "def first" in prompt.split("```python")[-1] else "no code"

    settings = replace(SETTINGS, p_mate=0.0, p_eot=0.0, tries=1)
    run = session.start(sized, settings, tmp_path / "run", llm=FunctionLLM(moody, "fake"))
    children = [run.individual(each.id) for each in run.individuals[1:]]
    assert {each.status for each in children} == {Status.OK, Status.REJECTED}
    for child in children:
        usable = [call for call in child.origin.exchanges if call.verdict in ("", PASSED_OVER)]
        assert bool(usable) == (child.status is Status.OK)
        assert len(child.origin.exchanges) == 3


def test_without_a_model_there_are_drafts_too(sized: Problem, tmp_path: Path) -> None:
    settings = replace(SETTINGS, llm="random", verify=False)
    runs = [session.start(sized, replace(settings, drafts=drafts), tmp_path / str(drafts)) for drafts in (1, 6)]
    sizes = [[each.scores["size"] for each in run.individuals[1:5] if each.ok] for run in runs]
    assert sum(sizes[1]) / len(sizes[1]) < sum(sizes[0]) / len(sizes[0])


def test_where_a_check_measures_nothing_the_first_new_draft_is_taken(tiny: Problem, tmp_path: Path) -> None:
    recorder = Recorder()
    run = evolve(tiny, tmp_path / "run", listeners=[recorder])
    for number in range(1, 5):
        exchanges = run.individual(number).origin.exchanges
        usable = [each.verdict for each in exchanges if each.verdict in ("", PASSED_OVER)]
        assert usable == ["", PASSED_OVER, PASSED_OVER][: len(usable)]
    notes = [event.text for event in recorder.events if event.kind == "note"]
    assert sum("drafts: check returns no objective" in text for text in notes) == 1


# -- what a check may return ------------------------------------------------------------------------------------------


def test_what_a_check_measured_is_recorded(sized: Problem, tmp_path: Path) -> None:
    run = evolve(sized, tmp_path / "run")
    store = Store.open(run.folder)
    for each in run.individuals[1:]:
        check = store.check(each.genome.digest)
        assert check is not None
        if each.ok:
            assert check.scores == {"size": each.scores["size"]}
    store.close()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ('{"size": float("nan")}', 'objective "size" is nan'),
        ('{"size": "small"}', 'objective "size" is a str, expected a number'),
        ('{"size": -1}', 'objective "size" is -1, outside its range from 0 to 50'),
    ],
)
def test_an_objective_that_a_check_measures_must_be_a_number_in_its_range(
    tmp_path: Path, answer: str, reason: str
) -> None:
    folder = knowing(tmp_path / "sized", answer).folder
    toml = folder / "problem.toml"
    toml.write_text(toml.read_text().replace("reference = 100\n", "reference = 100\nrange = [0, 50]\n"))
    run = evolve(Problem.load(folder), tmp_path / "run", replace(SETTINGS, generations=0))
    assert {each.status for each in run.individuals[1:]} == {Status.REJECTED}
    assert all(each.outcome and reason in each.outcome.reason for each in run.individuals[1:])


def test_a_check_that_measures_something_else_than_the_evaluation_is_found_before_a_run(tmp_path: Path) -> None:
    folder = knowing(tmp_path / "sized", '{"size": 3}').folder
    result = subprocess.run([str(GE), "check", str(folder)], capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert "size of the seed: check says 3, and evaluate 6" in result.stderr
    assert "Traceback" not in result.stderr


# -- for users --------------------------------------------------------------------------------------------------------


def test_drafts_are_a_whole_number_from_one() -> None:
    with pytest.raises(UsageError, match="drafts must be at least 1, not 0"):
        Settings(drafts=0)
    assert PRESETS["paper"]["drafts"] == Settings().drafts == 1


def test_the_command_line_makes_drafts_and_tells_of_them(sized: Problem, tmp_path: Path) -> None:
    def ge(*arguments: object) -> str:
        result = subprocess.run([str(GE), *map(str, arguments)], capture_output=True, text=True, timeout=120)
        assert result.returncode == 0, result.stderr
        return result.stdout

    ge("run", sized.folder, "--drafts", 3, "--generations", 1, "--run", tmp_path / "run")
    assert json.loads(ge("show", tmp_path / "run", "--json"))["settings"]["drafts"] == 3
    shown = [ge("show", tmp_path / "run", number) for number in range(1, 5)]
    assert any(PASSED_OVER in text for text in shown)
    run = Run(tmp_path / "run")
    assert all(PASSED_OVER not in row["example"] for row in view.refusals(run)), "nothing was wrong with them"
    rows = view.breakdown(run, set())
    assert sum(row["asked"] for row in rows) == sum(call.verdict != PASSED_OVER for call in run.calls if call.turn >= 0)


def test_a_trial_says_that_the_check_returns_no_objective(tiny: Problem) -> None:
    toml = tiny.folder / "problem.toml"
    toml.write_text(toml.read_text().replace("[evolution]\n", "[evolution]\ndrafts = 3\n"))
    result = subprocess.run([str(GE), "check", str(tiny.folder)], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert "drafts: check returns no objective" in result.stdout
