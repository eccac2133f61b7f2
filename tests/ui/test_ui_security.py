"""Who gets which answer, and what never becomes markup."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from dashboards import PAGES, asked, write_run
from starlette.testclient import TestClient

from guided_evolution.individual import Exchange, Individual, Origin, Outcome, Status, Step
from guided_evolution.problem import Problem
from guided_evolution.run import problem_to_json
from guided_evolution.settings import Settings
from guided_evolution.store import Store
from guided_evolution.ui.guard import POLICY, Access
from guided_evolution.ui.library import Library, NoSuchRunError
from guided_evolution.ui.server import address_of


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
