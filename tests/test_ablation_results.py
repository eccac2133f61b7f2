"""What a finished ablation says: in JSON, on the page and in Markdown."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from guided_evolution import population
from guided_evolution.ablation import measures
from guided_evolution.ablation.arms import choose
from guided_evolution.ablation.earlier import Earlier
from guided_evolution.ablation.measures import Measure
from guided_evolution.ablation.plan import Plan
from guided_evolution.ablation.results import Ended, compare, curve
from guided_evolution.individual import Individual, Outcome, Status
from guided_evolution.problem import Constraint, Problem
from guided_evolution.progress import format_value
from guided_evolution.run import Run, problem_to_json
from guided_evolution.settings import Settings
from guided_evolution.store import Store
from guided_evolution.testing import write_tiny_problem
from guided_evolution.view.course import evaluated

GE = Path(sys.executable).parent / "ge"
ARMS, SEEDS, EVALUATIONS = ("full", "no-eot"), (0, 1), 8
# the seed's first number is far too large, so smaller programs come closer to the goal
MODEL = """\
import hashlib
import re

def reply(prompt):
    if "Write no code" in prompt:
        return "Lesson: smaller."
    code = re.findall(r"```python\\n(.*?)```", prompt, re.DOTALL)[-1]
    number = hashlib.sha256(prompt.encode()).digest()[0] % 30
    return "```python\\n" + re.sub(r"\\d+", str(number), code, count=1) + "```"
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ablation")
    tiny = write_tiny_problem(folder / "tiny")
    (tiny / "model.py").write_text(MODEL)
    (tiny / "seed.py").write_text((tiny / "seed.py").read_text().replace("return 1 *", "return 30 *"))
    return folder


@pytest.fixture(scope="module")
def finished(home: Path) -> tuple[dict[str, Any], str]:
    """The JSON and what was said beside it."""
    command = [str(GE), "ablate", "tiny", "--arms", ",".join(ARMS), "--seeds", "2", "--folder", "ab", "--json"]
    command += ["--max-evaluations", str(EVALUATIONS)]
    done = subprocess.run(command, cwd=home, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


@pytest.fixture(scope="module")
def document(finished: tuple[dict[str, Any], str]) -> dict[str, Any]:
    return finished[0]


class Page(HTMLParser):
    """A page's elements, the cells of its tables, its text, and the figures that it carries."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self.figures: dict[str, Any] = {}
        self._where, self._attributes = "", dict[str, str | None]()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._where, self._attributes = tag, dict(attrs)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self._where, self._attributes = "", {}

    def handle_data(self, data: str) -> None:
        name = str(self._attributes.get("id", ""))
        if self._where == "script":
            if name.startswith("figure-"):
                self.figures[name.removeprefix("figure-")] = json.loads(data)
            return
        self.text += data
        if self._where in ("td", "th"):
            self.rows[-1][-1] += data.strip()


def test_too_few_seeds_are_told_before_the_first_run(finished: tuple[dict[str, Any], str]) -> None:
    told = finished[1]
    warning = "Nothing can be concluded in the end: with 2 seeds p can't fall below 0.5; 6 seeds would do."
    assert warning in told
    assert told.index(warning) < told.index("run 1 of 4")
    assert told.rstrip().splitlines()[-1] == "Everything is kept in ab; the results are in ab/ablation.html"


def test_the_second_measure_is_the_champions(document: dict[str, Any], home: Path) -> None:
    gained = 0
    for each in document["runs"]:
        with contextlib.closing(Run(home / "ab" / each["arm"] / f"seed-{each['seed']}")) as run:
            seed = run.individuals[0]
            assert each["best"] == population.champion(run.problem, run.individuals, seed).scores["closeness"]
            gained += each["best"] > seed.scores["closeness"]
    assert gained > 0
    assert [each["measure"] for each in document["comparisons"]] == ["volume", "best"]
    values = {(each["arm"], each["seed"]): each["best"] for each in document["runs"]}
    differences = [values["no-eot", seed] - values["full", seed] for seed in SEEDS]
    assert document["comparisons"][1]["differences"] == differences
    assert "best closeness" in document["comparisons"][1]["sentence"]


def test_hypervolume_is_in_percent_of_the_joint_front(document: dict[str, Any], home: Path) -> None:
    fronts = {}
    for each in document["runs"]:
        with contextlib.closing(Run(home / "ab" / each["arm"] / f"seed-{each['seed']}")) as run:
            fronts[each["arm"], each["seed"]] = run.front
            problem = run.problem
    bound = (100.0, 100.0)  # the problem's own references, minimised
    whole = population.hypervolume(problem, [each for front in fronts.values() for each in front], bound)
    for each in document["runs"]:
        mine = population.hypervolume(problem, fronts[each["arm"], each["seed"]], bound)
        assert each["volume"] == pytest.approx(100 * mine / whole)
        assert 0 < each["volume"] <= 100


def test_the_curves_begin_alike_never_fall_and_end_at_the_runs_means(document: dict[str, Any]) -> None:
    curves = {(each["measure"], each["arm"]): each for each in document["curves"]}
    assert set(curves) == {(measure, arm) for measure in ("volume", "best") for arm in ARMS}
    for (measure, arm), found in curves.items():
        last = [each[measure] for each in document["runs"] if each["arm"] == arm]
        assert len(found["mean"]) == len(found["low"]) == len(found["high"]) == EVALUATIONS
        assert found["mean"][-1] == pytest.approx(sum(last) / len(last))
        assert found["mean"][0] == curves[measure, "full"]["mean"][0]
        assert all(before <= after for before, after in pairwise(found["mean"]))
        ends = zip(found["low"], found["mean"], found["high"], strict=True)
        assert all(low - 1e-9 <= mean <= high + 1e-9 for low, mean, high in ends)


def test_the_page_shows_the_numbers_of_the_json(document: dict[str, Any], home: Path) -> None:
    page = Page((home / "ab" / "ablation.html").read_text())
    for each in document["comparisons"]:
        assert each["sentence"] in page.text
    for each in document["runs"]:
        assert [each["arm"], str(each["seed"]), f"{each['volume']:.2f}", format_value(each["best"])] in page.rows
    for arm in ARMS:
        mine = [each for each in document["runs"] if each["arm"] == arm]
        cells = [arm, f"{sum(each['volume'] for each in mine) / 2:.1f}", format_value(sum(e["best"] for e in mine) / 2)]
        assert cells in [row[:3] for row in page.rows]
    assert set(page.figures) == {"curve-volume", "curve-best", "seeds-volume", "seeds-best", "fronts"}
    for each in document["curves"]:
        drawn = page.figures[f"curve-{each['measure']}"]["data"]
        lines = [trace["y"] for trace in drawn if trace.get("name") == each["arm"]]
        bands = [trace["y"] for trace in drawn if "name" not in trace and trace["legendgroup"] == each["arm"]]
        assert lines == [each["mean"]]
        assert bands == [each["low"], each["high"]]
    for measure in ("volume", "best"):
        traces = {trace.get("name"): trace["y"] for trace in page.figures[f"seeds-{measure}"]["data"]}
        for arm in ARMS:
            assert traces[arm] == [each[measure] for each in document["runs"] if each["arm"] == arm]
    fronts = {trace["name"]: trace for trace in page.figures["fronts"]["data"]}
    for arm, members in document["fronts"].items():
        drawn = sorted(zip(fronts[arm]["x"], fronts[arm]["y"], strict=True))
        assert drawn == sorted((each["scores"]["size"], each["scores"]["closeness"]) for each in members)


def test_operators_are_summed_over_an_arms_runs(document: dict[str, Any], home: Path) -> None:
    wanted: dict[tuple[str, str], list[int]] = {}
    for arm in ARMS:
        for seed in SEEDS:
            with contextlib.closing(Run(home / "ab" / arm / f"seed-{seed}")) as run:
                for each in run.individuals[1:]:
                    for step in each.origin.steps:
                        counts = wanted.setdefault((arm, step.operator), [0, 0])
                        counts[0] += 1
                        counts[1] += each.ok
    found = {(each["arm"], each["operator"]): each for each in document["operators"]}
    assert {key: each["scored"] for key, each in found.items()} == {key: counts[1] for key, counts in wanted.items()}
    assert all(found[key]["tried"] >= counts[0] > 0 for key, counts in wanted.items())
    assert ("no-eot", "eot") not in found
    page = Page((home / "ab" / "ablation.html").read_text())
    for (arm, operator), each in found.items():
        names = ("tried", "asked", "passed", "scored", "improved", "reached")
        assert [arm, operator, *(str(each[name]) for name in names)] in page.rows


def test_what_is_finished_can_be_shown_while_the_rest_is_not(document: dict[str, Any], home: Path) -> None:
    shutil.copytree(home / "ab", home / "half")
    shutil.rmtree(home / "half" / "no-eot" / "seed-1")
    command = [str(GE), "ablate", "half", "--so-far"]
    done = subprocess.run([*command, "--json"], cwd=home, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert [run["calls"] for run in shown["runs"]] == [run["calls"] for run in document["runs"] if run["seed"] == 0]
    assert "1 of 2 planned seeds so far" in (home / "half" / "ablation.md").read_text()
    assert not (home / "half" / "no-eot" / "seed-1").exists()
    shutil.rmtree(home / "half" / "full" / "seed-0")
    nothing = subprocess.run(command, cwd=home, capture_output=True, text=True)
    assert nothing.returncode == 1
    assert nothing.stderr.strip() == "Error: no seed has all its runs finished in half yet."
    assert subprocess.run([*command[:2], "tiny", "--so-far"], cwd=home, capture_output=True).returncode == 1


def test_what_a_smaller_budget_would_have_shown(document: dict[str, Any], home: Path) -> None:
    def shown(at: int) -> dict[str, Any]:
        command = [str(GE), "ablate", "ab", "--at", str(at), "--json"]
        done = subprocess.run(command, cwd=home, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stderr.rstrip().endswith(f"the results are in ab/ablation-at-{at}.html")
        return json.loads(done.stdout)

    assert shown(EVALUATIONS)["runs"] == document["runs"]
    first, half = shown(1), shown(4)
    assert {each["children"] for each in first["runs"]} == {0}
    assert {each["volume"] for each in first["runs"]} == {100.0}, "of a joint front that is the seed program"
    assert [each["evaluations"] for each in half["runs"]] == [4] * 4
    curves = {(each["arm"], each["measure"]): each["mean"] for each in document["curves"]}
    for arm in ARMS:
        best = [each["best"] for each in half["runs"] if each["arm"] == arm]
        assert sum(best) / len(best) == pytest.approx(curves[arm, "best"][3])
        mine = [each for each in half["operators"] if each["arm"] == arm]
        runs = [each for each in half["runs"] if each["arm"] == arm]
        assert sum(each["tried"] for each in mine) >= sum(each["children"] for each in runs) > 0
        whole = [each for each in document["runs"] if each["arm"] == arm]
        assert sum(each["calls"] for each in runs) < sum(each["calls"] for each in whole) or arm != "full"
    known = {(each["seed"], each["id"]) for each in half["fronts"]["full"]}
    with contextlib.closing(Run(home / "ab" / "full" / "seed-0")) as run:
        early = Earlier(run, 4)
        assert {number for seed, number in known if seed == 0} <= {each.id for each in early.front}
        assert [each.id for each in evaluated(early)] == [each.id for each in evaluated(run)][:4]
        assert early.seconds < run.seconds
        assert Earlier(run, 99).individuals == run.individuals


@pytest.mark.parametrize("at", [0, -1, EVALUATIONS + 1])
def test_no_more_can_be_shown_than_there_is(document: dict[str, Any], home: Path, at: int) -> None:
    command = [str(GE), "ablate", "ab", "--at", str(at)]
    done = subprocess.run(command, cwd=home, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == f"Error: --at must lie between 1 and the 8 evaluations of each run, not {at}\n"


def test_the_page_asks_for_nothing_outside_itself(document: dict[str, Any], home: Path) -> None:
    page = Page((home / "ab" / "ablation.html").read_text())
    assert not [attrs for _, attrs in page.elements if "src" in attrs or str(attrs.get("href", "#"))[0] != "#"]
    policy = next(attrs["content"] for tag, attrs in page.elements if tag == "meta" and "http-equiv" in attrs)
    assert str(policy).startswith("default-src 'none'")
    assert "script-src 'sha256-" in str(policy)


def test_the_markdown_has_the_table_the_sentences_and_the_plan(document: dict[str, Any], home: Path) -> None:
    text = re.sub(r"\\([\\`*_\[\]<>|&#])", r"\1", (home / "ab" / "ablation.md").read_text())
    for each in document["comparisons"]:
        assert f"* {each['sentence']}\n" in text
    for each in document["runs"]:
        assert f"| {each['arm']} | {each['seed']} | {each['volume']:.2f} | {format_value(each['best'])} |" in text
    assert "| arm no-eot | p_eot 0.0 |" in text
    assert f"| evaluations of each run | {EVALUATIONS} |" in text
    assert "| version of python |" in text


def test_without_plotly_there_is_markdown_and_a_way_to_the_page(
    document: dict[str, Any], home: Path, tmp_path: Path
) -> None:
    page = home / "ab" / "ablation.html"
    before = page.read_bytes()
    page.unlink()
    (home / "ab" / "ablation.md").unlink()
    (tmp_path / "main.py").write_text(
        "import sys\n"
        "sys.modules['plotly'] = None\n"  # as if it weren't installed
        "from guided_evolution.cli import main\n"
        "main()\n"
    )
    command = [sys.executable, str(tmp_path / "main.py"), "ablate", "ab"]
    done = subprocess.run(command, cwd=home, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "pip install 'guided-evolution[plot]'" in done.stderr
    assert "the results are in ab/ablation.md" in done.stderr
    assert "Nothing can be concluded in the end" not in done.stderr  # nothing is about to begin
    assert not page.exists()
    assert (home / "ab" / "ablation.md").exists()
    page.write_bytes(before)
    assert all(each["sentence"] in done.stdout for each in document["comparisons"])


def test_another_problem_and_no_seeds_are_misuse(document: dict[str, Any], home: Path) -> None:
    write_tiny_problem(home / "other")
    other = [str(GE), "ablate", "other", "--arms", ",".join(ARMS), "--seeds", "2", "--folder", "ab"]
    done = subprocess.run(other, cwd=home, capture_output=True, text=True)
    assert done.returncode == 2
    assert "another problem" in done.stderr
    none = subprocess.run([str(GE), "ablate", "tiny", "--seeds", "0"], cwd=home, capture_output=True, text=True)
    assert none.returncode == 2
    assert "--seeds must be at least 1, not 0" in none.stderr
    assert not (home / "runs").exists()


def made(folder: Path, problem: Problem, scores: list[tuple[float, float]]) -> Run:
    """A run of programs with the given scores, the first one the seed."""
    store = Store.create(folder, problem=problem_to_json(problem), settings=Settings().to_json(), status="done")
    for number, (closeness, size) in enumerate(scores):
        genome = problem.genome().replace("first", f"def first():\n    return {number}\n")
        store.put_individual(Individual(number, 0, genome))
        store.put_outcome(number, Outcome(Status.OK, scores={"closeness": closeness, "size": size}))
    store.close()
    return Run(folder)


def without_references(folder: Path) -> Problem:
    write_tiny_problem(folder)
    path = folder / "problem.toml"
    path.write_text(re.sub(r"reference = .*\n", "", path.read_text()))
    return Problem.load(folder)


def test_one_wild_program_does_not_flatten_the_differences(tmp_path: Path) -> None:
    problem = without_references(tmp_path / "tiny")
    better, worse = [(-25.0, 6.0), (-20.0, 5.0), (-10.0, 8.0)], [(-25.0, 6.0), (-22.0, 5.0), (-18.0, 9.0)]
    tame = [made(tmp_path / "a", problem, better), made(tmp_path / "b", problem, worse)]
    wild = [made(tmp_path / "c", problem, [*better, (-1e6, 1e6)]), tame[1]]
    assert measures.reference(wild) == measures.reference(tame) == (25.0, 9.0)
    first, second = measures.courses(wild)
    assert [first.volume[:3], second.volume] == [each.volume for each in measures.courses(tame)]
    assert first.volume[-1] - second.volume[-1] > 10


def test_a_pooled_front_leaves_out_what_another_run_beats(tmp_path: Path) -> None:
    problem = without_references(tmp_path / "tiny")
    runs = [
        made(tmp_path / "a", problem, [(-25.0, 6.0), (-20.0, 5.0), (-10.0, 8.0)]),
        made(tmp_path / "b", problem, [(-25.0, 6.0), (-22.0, 5.0), (-8.0, 8.0)]),
    ]
    found = [(run is runs[0], tuple(each.scores.values())) for run, each in measures.joint_front(problem, runs)]
    assert found == [(False, (-8.0, 8.0)), (True, (-20.0, 5.0))]


def test_measures_by_hand(tmp_path: Path) -> None:
    problem = Problem.load(write_tiny_problem(tmp_path / "tiny"))  # both references are 100 away from 0
    first, second = measures.courses(
        [
            made(tmp_path / "a", problem, [(-25.0, 6.0), (-20.0, 5.0), (-10.0, 8.0)]),
            made(tmp_path / "b", problem, [(-25.0, 6.0), (-22.0, 5.0), (-8.0, 8.0)]),
        ]
    )
    joint = 80 * 95 + 12 * 92  # (-20, 5) of the first and (-8, 8) of the second
    assert first.volume == pytest.approx((100 * 75 * 94 / joint, 100 * 80 * 95 / joint, 100 * (7600 + 920) / joint))
    assert second.volume[-1] == pytest.approx(100 * (78 * 95 + 14 * 92) / joint)
    assert first.best == (-25.0, -20.0, -20.0)  # the closest is larger than the seed
    assert second.best == (-25.0, -22.0, -22.0)


def test_a_seed_that_breaks_a_constraint_sets_no_bar(tmp_path: Path) -> None:
    problem = without_references(tmp_path / "tiny")
    bounded = replace(problem, constraints=(Constraint("closeness", min=-24.0),))
    run = made(tmp_path / "a", bounded, [(-25.0, 6.0), (-24.5, 5.0), (-20.0, 9.0), (-22.0, 5.0)])
    (course,) = measures.courses([run])
    assert course.best == (None, None, -20.0, -20.0)
    assert course.best[-1] == population.champion(bounded, run.individuals, run.individuals[0]).scores["closeness"]
    assert course.volume[1] == 0


def test_an_arm_without_a_value_is_not_compared_but_counts(tmp_path: Path) -> None:
    arms = choose("full,no-eot,best-of-n")
    problem = Problem.load(write_tiny_problem(tmp_path / "tiny"))
    plan = Plan.make(problem, Settings(max_evaluations=5), arms, 8)
    best = {"full": 1.0, "no-eot": 0.5, "best-of-n": 0.0}
    runs = [
        Ended(cell.arm.name, cell.seed, 5, 4, 4, 0, 1.0, 0, 0, 50.0, best[cell.arm.name] + cell.seed, "done")
        for cell in plan.cells
    ]
    runs[-1] = replace(runs[-1], best=None)
    first, second = compare(plan, runs, measures.measures(problem)[1])
    assert (first.p, first.corrected, first.comparisons) == (2 / 256, 4 / 256, 2)
    assert (second.differences[-1], second.mean, second.p, second.interval) == (None, None, None, None)
    assert second.to_json()["detectable"] is None


def test_a_run_that_ended_early_keeps_its_last_value() -> None:
    measure = Measure("best", "best closeness", "", larger=True)
    found = curve(measure, "full", [[None, 1.0, 2.0], [0.0, 3.0, 4.0, 6.0, 8.0]], 4)
    assert found.mean == (None, 2.0, 3.0, 4.0)
    assert found.low[0] is None
    assert found.low[1] is not None
    alone = curve(measure, "full", [[1.0]], 2)
    assert (alone.mean, alone.low) == ((1.0, 1.0), (None, None))
