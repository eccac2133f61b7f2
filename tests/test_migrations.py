from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from guided_evolution import session
from guided_evolution.errors import RunError
from guided_evolution.llm.scripted import FunctionLLM
from guided_evolution.migrations import SCHEMA, STEPS, migrate
from guided_evolution.run import Run
from guided_evolution.store import FILE, Store
from guided_evolution.testing import scripted_reply

GE = Path(sys.executable).parent / "ge"
RECORDS = Path(__file__).parent / "records"
STORED = sorted(RECORDS.glob("schema-*.sqlite"))


def shape(database: sqlite3.Connection) -> dict[str, list[tuple[object, ...]]]:
    tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    return {name: [tuple(row) for row in database.execute(f"PRAGMA table_info({name})")] for name in tables}


@pytest.fixture
def old(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A run folder with a stored record, whose problem lies beside it."""
    shutil.copytree(RECORDS / "problem", tmp_path / "problem")
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copyfile(request.param, folder / FILE)
    with sqlite3.connect(folder / FILE) as database:
        problem = json.loads(database.execute("SELECT value FROM meta WHERE key = 'problem'").fetchone()[0])
        problem["folder"] = str(tmp_path / "problem")
        database.execute("UPDATE meta SET value = ? WHERE key = 'problem'", (json.dumps(problem),))
    database.close()
    return folder


def test_a_record_of_every_earlier_version_is_kept() -> None:
    assert [path.stem for path in STORED] == [f"schema-{number}" for number in range(1, SCHEMA)]


@pytest.mark.parametrize("old", STORED, indirect=True, ids=lambda path: path.stem)
def test_an_old_record_is_shown_and_left_as_it_is(old: Path) -> None:
    before = (old / FILE).read_bytes()
    for verb in (["show"], ["show", "--json"], ["front"], ["runs"]):
        where = old.parent if verb == ["runs"] else old
        result = subprocess.run([str(GE), verb[0], str(where), *verb[1:]], capture_output=True, text=True, timeout=60)
        assert result.returncode == 0, result.stderr
        assert "tiny" in result.stdout or "closeness" in result.stdout
    run = Run(old)
    assert [each.id for each in run.individuals] == [*range(10), 11]
    assert any(each.outcome and each.status.value == "rejected" for each in run.individuals)
    assert run.tests
    lesson = next(each for each in run.individuals if each.origin.lesson)
    assert run.lessons(lesson.origin.steps[0].teacher or 0, lesson.origin.lesson)
    assert run.spending["tokens_cached"] == 0
    assert (old / FILE).read_bytes() == before


@pytest.mark.parametrize("old", STORED, indirect=True, ids=lambda path: path.stem)
def test_an_old_run_goes_on_where_it_stopped(old: Path) -> None:
    before = {each.id: (each.genome.digest, each.scores) for each in Run(old).individuals}
    model = FunctionLLM(scripted_reply, "fake", small=True)
    resumed = session.resume(old, llm=model)
    assert resumed.status == "done"
    after = {each.id: (each.genome.digest, each.scores) for each in resumed.individuals}
    assert after | before == after
    assert len(resumed.individuals) == 1 + 4 * 4
    with sqlite3.connect(old / FILE) as database:
        assert database.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone() == (str(SCHEMA),)


@pytest.mark.parametrize("old", STORED, indirect=True, ids=lambda path: path.stem)
def test_a_migrated_record_has_the_shape_of_a_new_one(old: Path, tmp_path: Path) -> None:
    Store.open(old, write=True).close()
    new = Store.create(tmp_path / "new")
    new.close()
    assert shape(sqlite3.connect(old / FILE)) == shape(sqlite3.connect(new.path))


def test_a_step_that_fails_leaves_the_record_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with sqlite3.connect(tmp_path / "file") as database:
        migrate(database, 0)
    broken = "CREATE TABLE first (a); CREATE TABLE meta (a)"
    monkeypatch.setattr("guided_evolution.migrations.STEPS", (*STEPS, broken))
    before = shape(database)
    with pytest.raises(sqlite3.OperationalError, match="meta already exists"):
        migrate(database, SCHEMA)
    assert shape(database) == before


def test_a_record_of_a_later_version_is_refused_with_advice(tmp_path: Path) -> None:
    store = Store.create(tmp_path)
    store.put_meta(schema=SCHEMA + 1)
    store.close()
    before = (tmp_path / FILE).read_bytes()
    for write in (False, True):
        with pytest.raises(RunError, match=rf"reads up to {SCHEMA}.*pip install --upgrade guided-evolution"):
            Store.open(tmp_path, write=write)
    assert (tmp_path / FILE).read_bytes() == before
    assert (tmp_path / FILE).stat().st_size == len(before)
