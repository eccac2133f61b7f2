from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from guided_evolution import errands, session, view
from guided_evolution.errors import RunError, UsageError
from guided_evolution.individual import Exchange, Individual, Origin, Outcome, Status, Step
from guided_evolution.llm.scripted import FunctionLLM
from guided_evolution.problem import Problem
from guided_evolution.progress import format_value
from guided_evolution.report import report, write_report
from guided_evolution.run import Run, problem_to_json
from guided_evolution.settings import Settings
from guided_evolution.store import Store
from guided_evolution.testing import scripted_reply, write_tiny_problem
from large_run import write_large_run

GE = Path(sys.executable).parent / "ge"
HOSTILE = "</script><script>window.hurt = 1</script><img src=x onerror='window.hurt=1'>"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("report")
    problem = Problem.load(write_tiny_problem(folder / "tiny"))
    made = session.start(
        problem,
        Settings(population=4, generations=2, p_mate=0.5),
        folder / "run",
        (),
        FunctionLLM(scripted_reply, "fake"),
    )
    errands.test(made.folder, (), lambda *_: None)
    return Run(folder / "run")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Every text that a model or a candidate writes tries to become markup."""
    folder = tmp_path_factory.mktemp("hostile")
    problem = Problem.load(write_tiny_problem(folder / "tiny"))
    store = Store.create(folder / "run", problem=problem_to_json(problem), settings=Settings().to_json(), status="done")
    genome = problem.genome()
    store.put_individual(Individual(0, 0, genome))
    store.put_outcome(0, Outcome(Status.OK, scores={"closeness": -25.0, "size": 6.0}))
    step = Step("eot", "first", character="magoo", move=HOSTILE, lesson=HOSTILE, teacher=0)
    child = genome.replace("first", f"def first():\n    return {HOSTILE!r}\n")
    store.put_individual(Individual(1, 0, child, Origin((0,), (step,))))
    store.put_exchange(1, 0, Exchange("eot", HOSTILE, f"{HOSTILE}\n```\n````", f"=1+1 {HOSTILE}", usd=0.0))
    store.put_outcome(1, Outcome(Status.OK, scores={"closeness": -20.0, "size": 5.0}))
    store.put_individual(Individual(2, 0, child, Origin((0,), (step,))))
    store.put_outcome(2, Outcome(Status.CRASHED, f"=cmd|' /C calc'!A0 {HOSTILE}"))
    store.close()
    return Run(folder / "run")


class Page(HTMLParser):
    """What a browser would make of a page: its elements, and the text outside scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._raw = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._raw = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._raw = False

    def handle_data(self, data: str) -> None:
        if not self._raw:
            self.text += data


def test_the_page_says_what_won_by_how_much_and_how(run: Run) -> None:
    page = Page(report(run))
    for each in run.front:
        assert f"#{each.id}" in page.text
        assert format_value(each.scores["closeness"]) in page.text
        test = run.tests[each.id].scores["closeness"]
        assert format_value(test) in page.text
    assert "Nothing was found that is better than the seed in one objective and worse in none." in page.text
    assert f"by #{run.best('closeness').id}" in page.text
    assert "p_mate 0.5" in page.text
    assert "fake" in page.text
    assert {attrs.get("data-figure") for _, attrs in page.elements} >= {
        "front",
        "best",
        "operators",
        "lineage",
        "lanes",
    }


def test_the_winning_change_its_prompt_and_its_cost_are_shown(hostile: Run) -> None:
    page = Page(report(hostile))
    assert "#1 beats the seed and gives nothing up for it: closeness -20 against -25 (+20.0%)" in page.text
    assert "-    return 1 * SCALE" in page.text
    assert "magoo" in page.text


def test_text_of_models_and_candidates_never_becomes_markup(hostile: Run) -> None:
    page = Page(report(hostile))
    assert not [attrs for _, attrs in page.elements if any(name.startswith("on") for name in attrs)]
    assert "img" not in {tag for tag, _ in page.elements}
    assert len([tag for tag, _ in page.elements if tag == "script"]) == 2 + len(
        [attrs for _, attrs in page.elements if "data-figure" in attrs and attrs["data-figure"] != "best_tokens"]
    )
    assert HOSTILE in page.text, "it is shown as it is"


def test_the_page_asks_for_nothing_outside_itself(run: Run) -> None:
    text = report(run)
    page = Page(text)
    assert not [attrs for _, attrs in page.elements if "src" in attrs or str(attrs.get("href", "#"))[0] != "#"]
    policy = next(attrs["content"] for tag, attrs in page.elements if tag == "meta" and "http-equiv" in attrs)
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "unsafe-eval" not in policy
    assert "script-src 'sha256-" in policy


def test_markdown_holds_the_same_numbers_and_fences_hold(hostile: Run, run: Run) -> None:
    text = report(run, "md")
    for each in run.front:
        assert f"| \\#{each.id} |" in text
    text = report(hostile, "md")
    outside = re.sub(r"^(`{3,})[^\n]*\n.*?^\1$", "", text, flags=re.DOTALL | re.MULTILINE)
    assert "`````" in text, "longer than the four backticks of the prompt"
    assert "<script" not in outside.replace("\\<", "")


def test_csv_has_a_row_per_individual_and_no_formula(run: Run, hostile: Run) -> None:
    rows = list(csv.DictReader(io.StringIO(report(run, "csv"))))
    assert [int(row["id"]) for row in rows] == [each.id for each in run.individuals]
    for row, each in zip(rows, run.individuals, strict=True):
        assert float(row["closeness"]) == each.scores["closeness"]
    assert {int(row["id"]) for row in rows if row["front"] == "1"} == {each.id for each in run.front}
    assert float(rows[0]["test closeness"]) == run.tests[0].scores["closeness"]
    bad = list(csv.DictReader(io.StringIO(report(hostile, "csv"))))[2]
    assert bad["reason"].startswith("'=cmd")


def test_json_is_the_document(run: Run) -> None:
    assert json.loads(report(run, "json")) == json.loads(json.dumps(view.run_document(run)))


def test_wrong_formats_empty_runs_and_places_are_named(run: Run, tiny: Problem, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="format must be one of"):
        report(run, "pdf")
    Store.create(tmp_path / "new", problem=problem_to_json(tiny), settings={}, status="running").close()
    with pytest.raises(RunError, match="nothing to report"):
        report(Run(tmp_path / "new"))
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="can't write"):
        write_report(run, tmp_path / "file" / "report.html")


def test_the_command_writes_beside_the_run_or_where_it_is_told(run: Run, tmp_path: Path) -> None:
    def ge(*arguments: object) -> str:
        result = subprocess.run([str(GE), "report", *map(str, arguments)], capture_output=True, text=True, timeout=120)
        assert result.returncode == 0, result.stderr
        return result.stdout

    assert ge(run.folder).strip() == str(run.folder / "report.html")
    assert (run.folder / "report.html").read_text().startswith("<!doctype html>")
    ge(run.folder, "-o", tmp_path / "deep" / "r.csv", "--format", "csv")
    assert (tmp_path / "deep" / "r.csv").read_text().startswith("id,")
    assert json.loads(ge(run.folder, "-o", "-", "--format", "json"))["schema"] == 1


def test_ten_thousand_individuals_make_a_small_page(tmp_path: Path) -> None:
    problem = Problem.load(write_tiny_problem(tmp_path / "tiny"))
    text = report(Run(write_large_run(tmp_path / "run", problem)))
    assert len(text.encode()) < 8_000_000


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_a_browser_opens_it_from_a_file(hostile: Run, tmp_path: Path, width: int, scheme: str) -> None:
    """No error in the console, no request, no sideways scrolling, every figure drawn, and no hostile text run."""
    playwright = pytest.importorskip("playwright.sync_api")
    target = write_report(hostile, tmp_path / "report.html")
    wrong: list[str] = []
    with playwright.sync_playwright() as machine:
        try:
            browser = machine.chromium.launch(
                channel="chromium", executable_path=shutil.which("chromium"), args=["--no-sandbox"]
            )
        except playwright.Error:
            text = "there is no Chromium here"
            pytest.fail(text) if os.environ.get("CI") == "true" else pytest.skip(text)
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: wrong.append(request.url) if not request.url.startswith("file:") else None)
        page.goto(target.as_uri())
        places = page.locator(".chart")
        for index in range(places.count()):
            places.nth(index).scroll_into_view_if_needed()
            page.wait_for_selector(f".chart >> nth={index} >> .main-svg", timeout=60_000)
        assert places.count() >= 7
        assert page.evaluate("window.hurt") is None
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert HOSTILE in page.inner_text("body")
        ink = page.evaluate("getComputedStyle(document.querySelector('.chart .xtitle')).fill")
        assert ink == ("rgb(89, 99, 110)" if scheme == "light" else "rgb(163, 173, 184)")
        browser.close()
    assert wrong == []
