from __future__ import annotations

import io
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from guided_evolution.errors import UsageError
from guided_evolution.individual import Exchange, Individual, Origin, Outcome, Status, Step
from guided_evolution.problem import Problem
from guided_evolution.run import open_run, problem_to_json
from guided_evolution.settings import Settings
from guided_evolution.store import Store
from guided_evolution.testing import write_tiny_problem
from guided_evolution.ui.app import make_app
from guided_evolution.ui.code import coloured, side_by_side
from guided_evolution.ui.guard import POLICY, Access
from guided_evolution.ui.library import OPEN, Library, NoSuchRunError
from guided_evolution.ui.paging import Paging
from guided_evolution.ui.server import address_of, serve
from guided_evolution.ui.text import visible, without_colours
from guided_evolution.verification import FIRST, VERIFY

sys.path.insert(0, str(Path(__file__).parent))
from large_run import write_large_run

GE = Path(sys.executable).parent / "ge"
PAGES = (
    "/",
    "/runs/one",
    "/runs/one/individuals",
    "/runs/one/individuals/1",
    "/runs/one/operators",
    "/runs/one/failures",
    "/runs/one/lineage",
    "/runs/one/time",
)


def ge(*arguments: object, cwd: Path) -> None:
    subprocess.run([str(GE), *map(str, arguments)], cwd=cwd, check=True, capture_output=True, timeout=120)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    write_tiny_problem(folder / "tiny")
    ge("run", "tiny", "--run", "runs/one", "--seed", 3, cwd=folder)
    return folder


@pytest.fixture
def client(home: Path) -> Iterator[TestClient]:
    with asked(home / "runs") as client:
        yield client


def asked(folder: Path, access: Access | None = None) -> TestClient:
    access = access or Access.to("127.0.0.1", 8686)
    return TestClient(make_app(folder, access), base_url="http://127.0.0.1:8686", raise_server_exceptions=True)


def write_run(folder: Path, tiny: Problem, count: int = 3, **meta: object) -> Store:
    facts = {"problem": problem_to_json(tiny), "status": "done", "stop_reason": "1 generations done", **meta}
    store = Store.create(folder, settings=Settings().to_json(), versions={}, **facts)
    for number in range(count):
        genome = tiny.genome().replace("first", f"def first():\n    return {number + 1} * SCALE\n")
        origin = Origin((0,), (Step("mutate", "first", "complex", "expert"),)) if number else Origin()
        store.put_individual(Individual(number, min(number, 1), genome, origin))
        store.put_outcome(number, Outcome(Status.OK, scores={"closeness": number - 20.0, "size": 6.0 + number}))
    return store


# -- security --------


@pytest.mark.parametrize("path", [*PAGES, "/static/app.js", "/runs/one/state.json", "/runs/nowhere"])
def test_every_answer_carries_the_security_headers(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.headers["content-security-policy"] == POLICY
    assert "default-src 'none'" in POLICY
    assert "frame-ancestors 'none'" in POLICY
    assert "unsafe-inline" not in POLICY
    assert "unsafe-eval" not in POLICY
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8686", 200),
        ("localhost:8686", 200),
        ("localhost:9999", 200),  # a tunnel's port
        ("[::1]:8686", 200),
        ("evil.example:8686", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost.evil.example", 421),
        ("192.168.1.7:8686", 421),
        ("", 421),
        ("[", 421),
    ],
)
def test_a_page_is_given_to_this_machines_names_only(client: TestClient, host: str, status: int) -> None:
    assert client.get("/", headers={"host": host}).status_code == status


def test_a_page_of_another_site_gets_nothing(client: TestClient) -> None:
    assert client.get("/", headers={"origin": "https://evil.example"}).status_code == 403
    assert client.get("/", headers={"origin": "null"}).status_code == 403
    assert client.get("/", headers={"origin": "http://127.0.0.1:8686"}).status_code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_the_dashboard_changes_nothing(client: TestClient, method: str) -> None:
    assert client.request(method, "/runs/one").status_code == 403
    assert client.request(method, "/runs/one", headers={"origin": "http://127.0.0.1:8686"}).status_code == 405


def test_from_outside_a_token_is_needed_and_then_a_cookie_holds_it(home: Path) -> None:
    access = Access.to("0.0.0.0", 8686)
    assert len(access.token) >= 32
    assert access.token != Access.to("0.0.0.0", 8686).token
    assert f"?token={access.token}" in address_of(access)
    client = asked(home / "runs", access)
    for path in (*PAGES, "/static/app.js", "/?token=wrong", "/?token="):
        answer = client.get(path)
        assert answer.status_code == 403
        assert "one" not in answer.text.split("ge ui")[0]
    answer = client.get(f"/runs/one?page=2&token={access.token}")
    assert answer.status_code == 200
    assert access.token not in answer.text, "it must not stay in the address"
    assert 'content="0; url=/runs/one?page=2"' in answer.text
    elsewhere = asked(home / "runs", access).get(f"//evil.example/%3Cb%3E?token={access.token}").text
    assert 'content="0; url=/' in elsewhere
    assert "url=//" not in elsewhere
    assert "<b>" not in elsewhere
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert client.get("/runs/one").status_code == 200
    client.cookies.clear()
    client.cookies.set(access.cookie, "wrong")
    assert client.get("/runs/one").status_code == 403


def test_names_that_may_ask_from_outside() -> None:
    everywhere, one = Access.to("0.0.0.0", 1), Access.to("192.168.1.7", 1)
    assert everywhere.knows("10.0.0.3:1")
    assert everywhere.knows(f"{socket.gethostname()}:1")
    assert not everywhere.knows("evil.example")
    assert one.knows("192.168.1.7:1")
    assert not one.knows("192.168.1.8:1")
    assert not Access.to("localhost", 1).token
    assert not Access.to("::1", 1).token


@pytest.mark.parametrize(
    "path",
    [
        "/runs/..",
        "/runs/../secret",
        "/runs/%2e%2e/individuals",
        "/runs/..%2fsecret",
        "/runs/%2e%2e%2fsecret",
        "/runs/..%5csecret",
        "/runs/%00",
        "/runs/.",
        "/runs/one%2f..%2f..%2fsecret",
        "/runs//etc/passwd",
        "/static/../pages.py",
        "/static/%2e%2e/pages.py",
        "/static/..%2fpages.py",
        "/static//etc/passwd",
        "/runs/link",
        "/runs/inner",
    ],
)
def test_only_runs_below_the_folder_can_be_opened(tmp_path: Path, tiny: Problem, path: str) -> None:
    folder = tmp_path / "below"
    write_run(folder / "mine", tiny).close()
    hidden = {**problem_to_json(tiny), "name": "SECRET"}
    write_run(tmp_path / "secret", tiny, problem=hidden).close()
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "inner").mkdir()
    (folder / "inner" / "run.sqlite").symlink_to(tmp_path / "secret" / "run.sqlite")
    client = asked(folder)
    answer = client.get(path)
    assert answer.status_code == 404 or answer.url.path == "/", path
    assert "Traceback" not in answer.text
    assert "SECRET" not in answer.text
    assert "root:" not in answer.text
    assert client.get("/runs/mine").status_code == 200
    assert list(Library(folder).paths()) == ["mine"]
    with pytest.raises(NoSuchRunError), Library(folder).reading(path.removeprefix("/runs/")):
        pass


def test_hostile_names_and_texts_never_become_markup(tmp_path: Path, tiny: Problem) -> None:
    safe = '<script>alert(1)</script>"><img src=x onerror=alert(2)> {{7*7}} \x1b[31mred\x1b[0m \u202etxt \x00'
    problem = {**problem_to_json(tiny), "name": safe, "summary": safe}
    facts = {"status": "failed", "stop_reason": safe, "versions": {}, "settings": Settings().to_json()}
    store = Store.create(tmp_path / "runs" / "one <b>", problem=problem, **facts)
    store.put_individual(Individual(0, 0, tiny.genome()))
    store.put_outcome(0, Outcome(Status.OK, scores={"closeness": -1.0, "size": 1.0}, feedback=safe, log_tail=safe))
    genome = tiny.genome().replace("first", "def first():\n    return '<script>alert(3)</script>'\n")
    steps = (Step("mutate", "first", safe, safe, move=safe), Step("eot", "first", lesson=safe, teacher=0))
    store.put_exchange(1, 0, Exchange("mutate", safe, safe, safe, system=safe, reasoning=safe, verdict=safe))
    store.put_individual(Individual(1, 1, genome, Origin((0,), steps)))
    store.put_outcome(1, Outcome(Status.CRASHED, safe, log_tail=safe))
    store.close()
    client = asked(tmp_path / "runs")
    base = "/runs/one%20%3Cb%3E"
    pages = [
        "",
        "/individuals",
        "/individuals/1",
        "/individuals/1?against=seed",
        "/operators",
        "/failures",
        "/time",
        "/lineage",
    ]
    for path in ["/", *(base + page for page in pages), "/runs/%3Cscript%3E", base + "/individuals/%3Cscript%3E"]:
        text = client.get(path).text
        assert "<script>alert" not in text, path
        assert "<img" not in text, path
        assert "one <b>" not in text, path
        assert "> 49" not in text
        assert "\x1b" not in text
        assert "\x00" not in text
        assert "\u202e" not in text
    text = client.get(f"{base}/individuals/1").text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "{{7*7}}" in text
    assert "\u27e8U+202E\u27e9" in text


# -- pages --------


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


LARGE = ("/", "/individuals", "/individuals/5000", "/operators", "/failures", "/lineage", "/time", "/figures/front")


def large_pages(runs: Path) -> tuple[float, dict[str, float], dict[str, int]]:
    """Work for the first page of the run "big" and for each other one, over that of reading it; and their sizes."""
    client = asked(runs)
    client.get("/static/app.css")  # the server is up
    begun = time.process_time()
    assert len(open_run(runs / "big").individuals) == 10_000
    reading = time.process_time() - begun
    begun = time.process_time()
    assert client.get("/runs/big").status_code == 200
    first = time.process_time() - begun
    sizes, times = {}, {}
    for path in LARGE:
        begun = time.process_time()
        answer = client.get(path if path == "/" else f"/runs/big{path}")
        times[path] = (time.process_time() - begun) / reading
        sizes[path] = len(answer.content)
        assert answer.status_code == 200
    return first / reading, times, sizes


@pytest.mark.alone
def test_ten_thousand_individuals_stay_usable(tmp_path: Path, tiny: Problem) -> None:
    write_large_run(tmp_path / "runs" / "big", tiny, 10_000)
    # in a process of its own, as coverage doubles the work; the best of five, as the same work takes up to twice as
    # long on a machine that others use, and that may change within a round
    code = "import json, sys; from pathlib import Path; import test_ui\n"
    code += "print(json.dumps([test_ui.large_pages(Path(sys.argv[1])) for _ in range(5)]))"
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


# -- what can go wrong with a record --------


def test_a_run_that_is_removed_or_broken_gets_a_page_that_says_so(tmp_path: Path, tiny: Problem) -> None:
    for name in ("gone", "broken", "fine"):
        write_run(tmp_path / name, tiny).close()
    client = asked(tmp_path)
    assert client.get("/runs/gone").status_code == 200
    shutil.rmtree(tmp_path / "gone")
    answer = client.get("/runs/gone")
    assert answer.status_code == 404
    assert "moved or removed" in answer.text
    with sqlite3.connect(tmp_path / "broken" / "run.sqlite") as db:
        db.execute("UPDATE individuals SET genome = 'no json' WHERE id = 1")
    answer = client.get("/runs/broken")
    assert answer.status_code == 500
    assert "may be damaged" in answer.text
    assert "Traceback" not in answer.text
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "run.sqlite").write_bytes(b"no database at all" * 50)
    assert "can&#39;t be read" in client.get("/runs/text").text
    overview = client.get("/")
    assert overview.status_code == 200
    assert "can&#39;t be read" in overview.text
    assert "/runs/fine" in overview.text


def test_a_run_made_anew_in_the_same_place_is_read_anew(tmp_path: Path, tiny: Problem) -> None:
    write_run(tmp_path / "one", tiny, 2).close()
    client = asked(tmp_path)
    assert "2 of" in client.get("/runs/one").text
    shutil.rmtree(tmp_path / "one")
    write_run(tmp_path / "one", tiny, 5).close()
    assert "5 of" in client.get("/runs/one").text


def test_what_another_process_writes_is_seen_and_nothing_is_locked(tmp_path: Path, tiny: Problem) -> None:
    store = write_run(tmp_path / "one", tiny, 2, status="running")
    client = asked(tmp_path)
    before = client.get("/runs/one/state.json").json()
    assert client.get("/runs/one/state.json").json() == before, "nothing changed"
    store.put_individual(Individual(2, 1, tiny.genome(), Origin((0,), (Step("mutate", "first"),))))
    store.put_exchange(3, 0, Exchange("mutate", "fake", "p", "r"))
    after = client.get("/runs/one/state.json").json()
    assert after["revision"] != before["revision"]
    page = client.get("/runs/one").text
    assert "interrupted" in page, "no process holds this run"
    with sqlite3.connect(tmp_path / "one" / "run.sqlite", timeout=0) as other:
        other.execute("BEGIN EXCLUSIVE")  # would fail at once if the dashboard kept a lock
        other.rollback()
    store.close()


def test_states_of_a_run_all_have_something_to_say(tmp_path: Path, tiny: Problem) -> None:
    write_run(tmp_path / "empty", tiny, 0, status="failed", stop_reason="the seed can't be scored").close()
    write_run(tmp_path / "seed", tiny, 1).close()
    client = asked(tmp_path)
    for tab in ("", "/individuals", "/operators", "/failures", "/lineage", "/time", "/state.json"):
        for name in ("empty", "seed"):
            assert client.get(f"/runs/{name}{tab}").status_code == 200
    assert "The run failed" in client.get("/runs/empty").text
    assert "Nothing was scored" in client.get("/runs/empty").text
    assert "Only the seed is scored" in client.get("/runs/seed").text
    assert "No runs here yet" in asked(tmp_path / "elsewhere").get("/").text


def test_few_runs_are_kept_open(tmp_path: Path, tiny: Problem) -> None:
    for number in range(OPEN + 3):
        write_run(tmp_path / f"run{number}", tiny, 1).close()
    library = Library(tmp_path)
    library.rows(list(library.paths()))
    assert len(library._kept) == OPEN
    with pytest.raises(NoSuchRunError), library.reading("../run1"):
        pass
    with library.reading("run0") as reading:
        assert reading.status == "done"
    library.close()


def test_a_runs_own_folder_shows_that_run(home: Path) -> None:
    client = asked(home / "runs" / "one")
    assert "/runs/one" in client.get("/").text
    assert client.get("/runs/one").status_code == 200


# -- texts and diffs --------


def test_hidden_characters_are_shown_by_name() -> None:
    assert visible("a\x00b\x1b\x7f") == "a\u2400b\u241b\u2421"
    assert visible("x\u202ey\u200b") == "x\u27e8U+202E\u27e9y\u27e8U+200B\u27e9"
    assert visible("a\r\nb\rc\td \ud83d") == "a\nb\nc\td \ufffd"
    assert without_colours("\x1b[1;31mred\x1b[0m \x1b]8;;http://x\x07link\x1b]8;;\x07") == "red link"


def test_sides_of_a_diff() -> None:
    rows = side_by_side("a = 1\nb = 2\nc = 3\n", "a = 1\nb = 20\nc = 3\nd = 4\n")
    assert [row.kind for row in rows] == ["same", "changed", "same", "added"]
    assert rows[1].left is not None
    assert [piece.text for piece in rows[1].left[1] if piece.changed] == ["2"]
    assert rows[3].left is None
    assert rows[3].right is not None
    assert rows[3].right[0] == 4
    assert side_by_side("x\n", "x") == []


def test_unchanged_lines_are_folded_unless_all_are_wanted() -> None:
    old = "\n".join(f"x{number} = {number}" for number in range(100))
    new = old.replace("x50 = 50", "x50 = 51")
    rows = side_by_side(old, new)
    assert [row.kind for row in rows] == ["gap", *["same"] * 3, "changed", *["same"] * 3, "gap"]
    assert sum(row.hidden for row in rows) + 7 == 100
    assert len(side_by_side(old, new, context=None)) == 100


@pytest.mark.parametrize(
    "source", ["", "x", "x\n", "\n\n", 'def f():\n    """a\n    b"""\n', "'unclosed\n", "a" * 30_000, "é\u3000\n"]
)
def test_colours_lose_no_character(source: str) -> None:
    lines = coloured(source)
    assert "\n".join("".join(piece.text for piece in line) for line in lines) == source.removesuffix("\n")


# -- the verb --------


def test_the_verb_serves_says_where_and_ends_quietly(home: Path) -> None:
    process = subprocess.Popen([str(GE), "ui"], cwd=home, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert line.startswith("Showing runs at http://127.0.0.1:")
        address = line.split()[3]
        assert "tiny" in fetch(address)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert process.stderr.read() == ""
    finally:
        process.kill()


def fetch(address: str) -> str:
    import urllib.request

    for _ in range(100):
        try:
            with urllib.request.urlopen(address, timeout=10) as answer:
                return str(answer.read().decode())
        except OSError:
            time.sleep(0.1)
    raise AssertionError("nobody answers")


def test_a_port_that_is_taken_is_one_line(home: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = subprocess.run(
            [str(GE), "ui", "--port", str(port)], cwd=home, capture_output=True, text=True, timeout=60
        )
    assert result.returncode == 2
    assert result.stderr == f"Error: can't serve on 127.0.0.1 port {port}: it is in use; choose another --port\n"


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(UsageError, match=r"can't serve on 192\.0\.2\.1"):
        serve(Path(), "192.0.2.1", None, lambda _: None)
    with pytest.raises(UsageError, match=r"can't serve on no\.such\.host"):
        serve(Path(), "no.such.host.invalid", None, lambda _: None)


def test_wrong_folders_and_a_missing_extra_are_one_line(home: Path, tmp_path: Path) -> None:
    result = subprocess.run([str(GE), "ui", "nowhere"], cwd=home, capture_output=True, text=True, timeout=60)
    assert (result.returncode, "no such folder" in result.stderr) == (2, True)
    blocked = tmp_path / "starlette.py"
    blocked.write_text("raise ModuleNotFoundError(\"No module named 'starlette'\", name='starlette')\n")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    result = subprocess.run([str(GE), "ui"], cwd=home, capture_output=True, text=True, timeout=60, env=environment)
    assert result.stderr == "Error: ge ui needs: pip install 'guided-evolution[ui]'\n"
    assert result.returncode == 2


def test_the_state_is_small(client: TestClient) -> None:
    state = client.get("/runs/one/state.json")
    assert len(state.content) < 300
    assert json.loads(state.content)["status"] == "done"


# -- what was evaluated twice --------


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
