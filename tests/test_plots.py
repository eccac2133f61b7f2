from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from guided_evolution import plots, session, view
from guided_evolution.errors import UsageError
from guided_evolution.individual import Individual, Outcome, Status
from guided_evolution.llm.scripted import FunctionLLM
from guided_evolution.plots.style import INK, themed, thinned
from guided_evolution.problem import Objective, Problem
from guided_evolution.run import Run, problem_to_json
from guided_evolution.settings import Settings
from guided_evolution.store import Store
from guided_evolution.testing import scripted_reply, write_tiny_problem
from large_run import write_large_run

HOSTILE = "<script>alert('x')</script>"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with failures whose reasons are hostile."""
    folder = tmp_path_factory.mktemp("plots")
    draws = itertools.count()

    def reply(prompt: str) -> str:
        number = next(draws)
        text = scripted_reply(prompt)
        if number % 7 == 3 and "```" in text:
            return text.replace("    return", f"    raise ValueError({HOSTILE!r})\n    return", 1)
        return "no" if number % 11 == 5 else text

    problem = write_tiny_problem(folder / "tiny")
    text = (problem / "evaluate.py").read_text()
    (problem / "evaluate.py").write_text(
        text.replace("def check(program):\n    numbers", "def check(program):\n    load")
    )
    settings = Settings(population=6, generations=3, p_mate=0.5, p_eot=0.5)
    return session.start(Problem.load(problem), settings, folder / "run", (), FunctionLLM(reply, "fake"))


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("large")
    return Run(write_large_run(folder / "run", Problem.load(write_tiny_problem(folder / "tiny")), 6_000))


def figures(run: Run) -> dict[str, Any]:
    return {
        "front": plots.plot_front(run),
        "hypervolume": plots.plot_hypervolume(run),
        "best": plots.plot_best(run),
        "lineage": plots.plot_lineage(run),
        "one": plots.plot_lineage(run, run.front[0].id),
        "operators": plots.plot_operators(run),
        "characters": plots.plot_operators(run, "character"),
        "failures": plots.plot_failures(run),
        "lanes": plots.plot_lanes(run),
        "sizes": plots.plot_sizes(run),
        "scatter": plots.plot_scatter(run, {HOSTILE: {"closeness": -20, "size": 10}}),
    }


def test_every_figure_names_its_axes_and_shows_hostile_text_as_text(run: Run) -> None:
    for name, figure in figures(run).items():
        assert figure.layout.xaxis.title.text, name
        assert figure.layout.yaxis.title.text, name
        assert "<script" not in figure.to_json().replace("\\u003c", "<"), name
        assert figure.layout.paper_bgcolor == "rgba(0,0,0,0)"
    assert "&lt;script" in json.dumps(figures(run)["failures"].to_plotly_json(), default=list)


def test_points_carry_the_ids_of_individuals(run: Run) -> None:
    figure = plots.plot_front(run)
    traces = {trace.name: trace for trace in figure.data}
    assert set(traces) == {"dominated", "Pareto front", "seed"}
    assert sorted(traces["Pareto front"].customdata) == sorted(each.id for each in run.front)
    shown = dict(zip(traces["Pareto front"].customdata, traces["Pareto front"].y, strict=True))
    assert all(shown[each.id] == each.scores["closeness"] for each in run.front)
    assert list(traces["seed"].customdata) == [0]


def test_the_front_of_a_generation_is_that_of_then(run: Run) -> None:
    early = plots.plot_front(run, generation=0)
    numbers = {number for trace in early.data for number in trace.customdata}
    assert max(run.by_id[number].generation for number in numbers) == 0
    traces = {trace.name: set(trace.customdata) for trace in early.data}
    assert traces["Pareto front"] != {each.id for each in run.front}


def test_hypervolume_and_best_end_where_the_run_does(run: Run) -> None:
    assert plots.plot_hypervolume(run).data[0].y[-1] == pytest.approx(run.hypervolume())
    best = {trace.name: trace for trace in plots.plot_best(run, "closeness").data}
    assert best["all"].y[-1] == run.best("closeness").scores["closeness"]
    assert best["no worse than the seed elsewhere"].y[-1] == -25, "nothing smaller than this seed comes closer"
    with pytest.raises(UsageError, match="tokens"):
        plots.plot_best(run, over="tokens")
    with pytest.raises(UsageError, match="over must be one of"):
        plots.plot_hypervolume(run, over="hope")
    with pytest.raises(UsageError, match='no objective "hope"'):
        plots.plot_best(run, "hope")


def test_over_tokens_and_money_where_they_are_known(large: Run) -> None:
    for over, total in (("tokens", 5_999 * 250), ("usd", 5_999 * 0.0002)):
        assert plots.plot_hypervolume(large, over=over).data[0].x[-1] == pytest.approx(total)


def test_lineage_links_every_parent(run: Run) -> None:
    traces = {trace.name: trace for trace in plots.plot_lineage(run).data}
    links = view.edges(run)
    for name, kind in (("changed", "parent"), ("mated with", "partner"), ("taught by", "teacher")):
        assert list(traces[name].x).count(None) == sum(each == kind for *_, each in links), name


def test_operators_and_failures_count_what_the_document_counts(run: Run) -> None:
    table = view.grouped(view.breakdown(run, view.entered(run)), "operator")
    bars = {trace.name: dict(zip(trace.y, trace.x, strict=True)) for trace in plots.plot_operators(run).data}
    assert bars["reached the front"] == {name: row["reached"] for name, row in table.items()}
    failed = sum(sum(trace.x) for trace in plots.plot_failures(run).data if trace.type == "bar")
    assert failed == sum(not each.ok for each in run.individuals) > 0
    with pytest.raises(UsageError, match="by must be one of"):
        plots.plot_operators(run, "weather")


def test_a_reference_is_placed_by_its_values_and_must_have_both(run: Run) -> None:
    figure = plots.plot_scatter(run, {"known": {"closeness": -3, "size": 44}})
    reference = next(trace for trace in figure.data if trace.name == "reference")
    assert (list(reference.x), list(reference.y), list(reference.text)) == ([44], [-3], ["known"])
    with pytest.raises(UsageError, match="needs closeness and size"):
        plots.plot_scatter(run, {"known": {"closeness": -3}})


def test_more_than_two_objectives_give_parallel_coordinates_or_a_choice(tiny: Problem, tmp_path: Path) -> None:
    objectives = (Objective("a"), Objective("b", "min"), Objective("c", "min"))
    problem = Problem(tiny.folder, "three", tiny.files, objectives)
    store = Store.create(tmp_path / "run", problem=problem_to_json(problem), settings=Settings().to_json())
    for number in range(12):
        genome = problem.genome().replace("first", f"def first():\n    return {number}\n")
        store.put_individual(Individual(number, 0, genome))
        scores = {"a": number % 5, "b": number % 3, "c": float(number)}
        store.put_outcome(number, Outcome(Status.OK, scores=scores))
    store.close()
    run = Run(tmp_path / "run")
    parallel = plots.plot_front(run)
    assert len(parallel.layout.xaxis.ticktext) == 3
    front = next(trace for trace in parallel.data if trace.name == "Pareto front")
    assert {number for number in front.customdata if number is not None} == {each.id for each in run.front}
    assert max(value for value in front.y if value is not None) == 1
    chosen = plots.plot_front(run, ["c", "a"])
    assert chosen.layout.yaxis.title.text.startswith("validation c")
    with pytest.raises(UsageError, match="a front shows two of the objectives"):
        plots.plot_front(run, ["a", "nothing"])
    with pytest.raises(UsageError, match="one objective to raise and one to lower"):
        plots.plot_sizes(run)


def test_an_empty_run_has_figures_that_say_so(tiny: Problem, tmp_path: Path) -> None:
    Store.create(
        tmp_path / "run", problem=problem_to_json(tiny), settings=Settings().to_json(), status="running"
    ).close()
    run = Run(tmp_path / "run")
    for make in (
        plots.plot_front,
        plots.plot_hypervolume,
        plots.plot_best,
        plots.plot_lineage,
        plots.plot_operators,
        plots.plot_failures,
        plots.plot_lanes,
        plots.plot_sizes,
        plots.plot_scatter,
    ):
        assert make(run).layout.annotations[0].text, make.__name__


def test_a_large_run_is_thinned_and_says_so(large: Run) -> None:
    for name, figure in figures(large).items():
        assert len(figure.to_json()) < 1_000_000, name
    figure = plots.plot_front(large)
    dominated = next(trace for trace in figure.data if trace.name == "dominated")
    assert len(dominated.x) == 2000
    assert "2,000 of" in figure.layout.annotations[0].text
    assert all(trace.type != "scattergl" for trace in figure.data), "WebGL points need eval, which pages forbid"


def test_thinning_keeps_both_ends_and_the_order() -> None:
    kept = thinned(range(10_001), 101)
    assert kept == list(range(0, 10_001, 100))
    assert thinned([1, 2, 3], 3) == [1, 2, 3]


def test_a_theme_sets_ink_and_ground(run: Run) -> None:
    figure = plots.plot_front(run)
    assert figure.layout.font.color == INK
    grounds = {themed(figure, dark=dark).layout.paper_bgcolor for dark in (False, True)}
    assert len(grounds) == 2
