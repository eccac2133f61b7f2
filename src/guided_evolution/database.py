"""The file of a run's record: how it is opened, checked, and brought up to this version."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
from pathlib import Path

from guided_evolution.errors import RunError
from guided_evolution.migrations import SCHEMA, migrate


def open_file(path: Path, *, write: bool) -> sqlite3.Connection:
    """A connection to a record of this or any earlier version.

    To be written, it is looked through first, and one of an earlier version is brought up to this one; to be read,
    that happens to a copy in memory.

    Raises:
        sqlite3.Error, OSError: When it is broken or can't be read; nothing in it was changed.
        RunError: When it is of a later version.
    """
    found = _reading(path)
    schema = _schema(path, found)
    if write:
        whole = found.execute("PRAGMA quick_check(1)").fetchone()[0]
        found.close()
        if whole != "ok":
            raise sqlite3.DatabaseError(whole.replace("\n", " "))
        found = connect(path, write=True)
    elif schema < SCHEMA:
        found = _copy(found)
    if schema < SCHEMA:
        migrate(found, schema)
    return found


def connect(path: Path, *, write: bool) -> sqlite3.Connection:
    """A connection to a record of this version."""
    uri = f"{path.resolve().as_uri()}?mode={'rw' if write else 'ro'}"
    connection = sqlite3.connect(uri, uri=True, timeout=30, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    if write:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")  # what was paid for survives a power cut too
    return connection


def _reading(path: Path) -> sqlite3.Connection:
    if os.access(path.parent, os.W_OK):
        return connect(path, write=False)
    # a folder that can't be written has no room for the index that SQLite keeps beside a file in this mode
    with tempfile.TemporaryDirectory(prefix="ge-record-") as folder:
        for suffix in ("", "-wal"):
            if (part := path.with_name(path.name + suffix)).is_file():
                shutil.copyfile(part, Path(folder) / part.name)
        return _copy(connect(Path(folder) / path.name, write=False))


def _copy(database: sqlite3.Connection) -> sqlite3.Connection:
    copy = sqlite3.connect(":memory:", check_same_thread=False)
    copy.row_factory = sqlite3.Row
    with contextlib.closing(database):
        database.backup(copy)
    return copy


def _schema(path: Path, database: sqlite3.Connection) -> int:
    row = database.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone()
    if row is None or not row[0].isdigit() or row[0] == "0":
        raise sqlite3.DatabaseError("it names no schema")
    schema = int(row[0])
    if schema > SCHEMA:
        raise RunError(
            f"{path} has schema {schema}; this version reads up to {SCHEMA}. "
            "A later guided-evolution wrote it: `pip install --upgrade guided-evolution` reads it."
        )
    return schema
