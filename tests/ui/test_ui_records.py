"""Records that change, break, vanish or are empty while they are shown."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest
from dashboards import asked, write_run

from guided_evolution.individual import Exchange, Individual, Origin, Step
from guided_evolution.problem import Problem
from guided_evolution.ui.library import OPEN, Library, NoSuchRunError


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
    assert "may be damaged" in overview.text
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
