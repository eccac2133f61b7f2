"""What the pages say, and how large they may become."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from dashboards import LARGE, asked, ge, write_run
from starlette.testclient import TestClient

from guided_evolution.individual import Outcome, Status
from guided_evolution.problem import Problem
from guided_evolution.run import open_run
from guided_evolution.store import Store
from guided_evolution.ui.paging import Paging
from guided_evolution.verification import FIRST, VERIFY
from large_run import write_large_run


def test_the_pages_say_what_the_record_says(client: TestClient, home: Path) -> None:
    run = open_run(home / "runs" / "one")
    assert "tiny" in client.get("/").text
    overview = client.get("/runs/one").text
    for each in run.front:
        assert f'href="/runs/one/individuals/{each.id}"' in overview
    individual = next(each for each in run.individuals[1:] if each.ok)
    page = client.get(f"/runs/one/individuals/{individual.id}").text
    full = run.individual(individual.id)
    assert full.origin.exchanges[0].prompt.split("\n")[0] in page.replace("&#39;", "'").replace("&#34;", '"')
    assert f'href="/runs/one/individuals/{individual.origin.parents[0]}"' in page
    parent = client.get(f"/runs/one/individuals/{individual.origin.parents[0]}").text
    assert f'href="/runs/one/individuals/{individual.id}"' in parent, "children are linked too"


def points(chart: dict[str, Any]) -> int:
    return sum(len(trace["customdata"]) for trace in chart["data"])


@pytest.mark.parametrize("figure", ["front", "best", "hypervolume", "operators", "failures", "lanes", "lineage"])
def test_charts_are_json_that_plotly_draws(client: TestClient, figure: str) -> None:
    chart = client.get(f"/runs/one/figures/{figure}")
    assert chart.headers["content-type"] == "application/json"
    assert {"data", "layout"} <= chart.json().keys()
    assert "scattergl" not in chart.text, "the graphics card's traces compile code, which the policy forbids"


def test_a_chart_that_cannot_be_drawn_says_why(client: TestClient) -> None:
    assert "over must be one of" in client.get("/runs/one/figures/best?over=nothing").json()["empty"]
    assert client.get("/runs/one/figures/nothing").status_code == 404


def test_the_generation_decides_on_the_front(client: TestClient) -> None:
    first = client.get("/runs/one/figures/front?generation=0").json()
    last = client.get("/runs/one/figures/front").json()
    assert points(first) < points(last)
    assert "after generation 0" in client.get("/runs/one?generation=0").text
    for wrong in ("-5", "99", "x", "9" * 40):
        assert client.get(f"/runs/one?generation={wrong}").status_code == 200


def test_the_list_is_filtered_sorted_and_paged_on_the_server(tmp_path: Path, tiny: Problem) -> None:
    folder = write_large_run(tmp_path / "runs" / "big", tiny, 500)
    run = open_run(folder)
    client = asked(tmp_path / "runs")
    page = client.get("/runs/big/individuals").text
    assert page.count('<th scope="row">') == 50
    assert "page 1 of 10" in page
    assert client.get("/runs/big/individuals?page=999").text.count('<th scope="row">') == 50
    failed = sum(not each.ok for each in run.individuals)
    assert f"{failed} individuals" in client.get("/runs/big/individuals?status=failed").text
    rejected = client.get("/runs/big/individuals?status=rejected").text
    assert f"{sum(each.status is Status.REJECTED for each in run.individuals)} individuals" in rejected
    assert "50 individuals" not in client.get("/runs/big/individuals?operator=mate&generation=3").text
    best = client.get("/runs/big/individuals?sort=best:closeness").text
    top = max((each for each in run.individuals if each.ok), key=lambda each: each.scores["closeness"])
    assert f'individuals/{top.id}"' in best.split("<tbody>")[1][:300]
    assert "No individual matches" in client.get("/runs/big/individuals?status=nothing").text


def test_pages_of_a_list() -> None:
    assert Paging.of([], 3).pages == 1
    assert Paging.of([], 3).first == 0
    assert Paging.of(range(101), 3).items == range(100, 101)
    assert Paging.of(range(101), 3).last == 101
    assert Paging.of(range(101), 0).page == 1


@pytest.mark.alone
def test_ten_thousand_individuals_stay_usable(tmp_path: Path, tiny: Problem) -> None:
    write_large_run(tmp_path / "runs" / "big", tiny, 10_000)
    # in a process of its own, as coverage doubles the work; the best of five, as the same work takes up to twice as
    # long on a machine that others use, and that may change within a round
    code = "import json, sys; from pathlib import Path; import dashboards\n"
    code += "print(json.dumps([dashboards.large_pages(Path(sys.argv[1])) for _ in range(5)]))"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    environment["PYTHONPATH"] = str(Path(__file__).parent)
    command = [sys.executable, "-c", code, str(tmp_path / "runs")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, timeout=300)
    rounds = json.loads(done.stdout)
    # reading ten thousand individuals takes 0.45 s where this was set, and the first page 0.8 s; the bound is a second
    assert min(first for first, _, _ in rounds) < 2.3
    for path in LARGE:
        assert min(times[path] for _, times, _ in rounds) < 1, path
        assert rounds[0][2][path] < 1_500_000, path


def test_export_is_what_ge_export_writes(client: TestClient, home: Path) -> None:
    best = open_run(home / "runs" / "one").front[0].id
    answer = client.get(f"/runs/one/individuals/{best}/export")
    assert answer.headers["content-disposition"] == f'attachment; filename="one-{best}.zip"'
    ge("export", "runs/one", best, f"out-{best}", cwd=home)
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        for path in (home / f"out-{best}").iterdir():
            assert archive.read(f"one-{best}/{path.name}") == path.read_bytes()


def test_what_is_not_there_is_said_plainly(client: TestClient) -> None:
    for path in ("/runs/none", "/runs/one/individuals/999", "/runs/one/individuals/x", "/nowhere"):
        answer = client.get(path)
        assert answer.status_code == 404
        assert "Not found" in answer.text
        assert "Traceback" not in answer.text


def test_a_runs_own_folder_shows_that_run(home: Path) -> None:
    client = asked(home / "runs" / "one")
    assert "/runs/one" in client.get("/").text
    assert client.get("/runs/one").status_code == 200


def test_the_state_is_small(client: TestClient) -> None:
    state = client.get("/runs/one/state.json")
    assert len(state.content) < 300
    assert json.loads(state.content)["status"] == "done"


def test_a_second_evaluation_is_told_of_calmly(tmp_path: Path, tiny: Problem) -> None:
    store = write_run(tmp_path / "runs" / "one", tiny, 4)
    store.put_outcome(3, Outcome(Status.OK, scores={"closeness": -17.0, "size": 9.0}), VERIFY)
    store.close()
    with asked(tmp_path / "runs") as client:
        assert "evaluated twice: same scores" in client.get("/runs/one/individuals/3").text
        assert "evaluated twice" not in client.get("/runs/one/individuals/2").text
        assert "1 program evaluated twice: same scores" in client.get("/runs/one").text
    worse = Outcome(Status.OK, scores={"closeness": -18.5, "size": 8.0})
    reason = "<b>out of luck</b>"
    failed = Outcome(Status.CRASHED, reason)
    store = Store.open(tmp_path / "runs" / "one", write=True)
    store.put_outcomes(2, {VERIFY: worse, "evaluate": worse}, aside=FIRST)
    store.put_outcomes(1, {VERIFY: failed, "evaluate": failed}, aside=FIRST)
    store.close()
    with asked(tmp_path / "runs") as client:
        text = "closeness -18, then -18.5: the worse counts"
        assert f"evaluated twice: {text}" in client.get("/runs/one/individuals/2").text
        overview = client.get("/runs/one").text
        assert "3 programs evaluated twice: 2 disagreed" in overview
        assert text in overview
        assert reason not in overview
        assert "then crashed: &lt;b&gt;out of luck&lt;/b&gt;; it counts as failed" in overview
