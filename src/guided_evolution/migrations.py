"""The tables of a run's record, as numbered steps: a file of any earlier version is brought up to this one.

A step is never changed once a version with it was released, and a new one is only ever added at the end. A stored
file of every version lies in `tests/records`.
"""

from __future__ import annotations

import json
import sqlite3

_TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE texts (sha TEXT PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE individuals (
  id INTEGER PRIMARY KEY, generation INTEGER NOT NULL, digest TEXT NOT NULL, genome TEXT NOT NULL,
  parents TEXT NOT NULL, steps TEXT NOT NULL, twin INTEGER, created REAL NOT NULL);
CREATE INDEX individuals_digest ON individuals (digest);
CREATE TABLE outcomes (
  individual INTEGER NOT NULL, stage TEXT NOT NULL, status TEXT NOT NULL, reason TEXT NOT NULL,
  scores TEXT NOT NULL, metrics TEXT NOT NULL, feedback TEXT NOT NULL, log_tail TEXT NOT NULL,
  seconds REAL NOT NULL, peak_mb REAL NOT NULL, finished REAL NOT NULL,
  PRIMARY KEY (individual, stage)) WITHOUT ROWID;
CREATE TABLE checks (digest TEXT PRIMARY KEY, status TEXT NOT NULL, reason TEXT NOT NULL, log_tail TEXT NOT NULL,
  seconds REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE exchanges (
  individual INTEGER NOT NULL, turn INTEGER NOT NULL, purpose TEXT NOT NULL, model TEXT NOT NULL,
  system TEXT NOT NULL, prompt TEXT NOT NULL, reply TEXT NOT NULL, reasoning TEXT NOT NULL,
  tokens_in INTEGER, tokens_out INTEGER, usd REAL, seconds REAL NOT NULL, temperature REAL, max_tokens INTEGER,
  cut INTEGER NOT NULL, verdict TEXT NOT NULL, finished REAL NOT NULL,
  PRIMARY KEY (individual, turn)) WITHOUT ROWID;
"""

# prompt tokens that the provider found in its cache; the run whose record an outcome was taken from
_CACHE_AND_REUSE = """
ALTER TABLE exchanges ADD COLUMN tokens_cached INTEGER;
ALTER TABLE outcomes ADD COLUMN taken_from TEXT NOT NULL DEFAULT '';
"""

# what was asked exactly, so that other runs find the reply; the run whose record a reply was taken from
_SHARED_REPLIES = """
ALTER TABLE exchanges ADD COLUMN taken_from TEXT NOT NULL DEFAULT '';
ALTER TABLE exchanges ADD COLUMN question TEXT NOT NULL DEFAULT '';
CREATE INDEX exchanges_question ON exchanges (question) WHERE question != '';
"""

# the learning curve of each program that was evaluated here: what it reported at which step, after how many seconds
_LEARNING_CURVES = """
CREATE TABLE partials (
  digest TEXT NOT NULL, step INTEGER NOT NULL, seconds REAL NOT NULL, scores TEXT NOT NULL,
  PRIMARY KEY (digest, step)) WITHOUT ROWID;
"""

# what a program's check measured: objectives, and other numbers
_CHECKED_SCORES = """
ALTER TABLE checks ADD COLUMN scores TEXT NOT NULL DEFAULT '{}';
ALTER TABLE checks ADD COLUMN metrics TEXT NOT NULL DEFAULT '{}';
"""

STEPS = (_TABLES, _CACHE_AND_REUSE, _SHARED_REPLIES, _LEARNING_CURVES, _CHECKED_SCORES)
SCHEMA = len(STEPS)


def migrate(database: sqlite3.Connection, schema: int) -> None:
    """Applies every step that a record lacks, and writes down that it did, in one transaction.

    Args:
        database: An open connection that may write and is in no transaction.
        schema: The record's version; 0 for an empty file.

    Raises:
        sqlite3.Error: When a step fails; the record is then as it was.
    """
    database.execute("BEGIN IMMEDIATE")
    try:
        for step in STEPS[schema:]:
            for statement in filter(str.strip, step.split(";")):
                database.execute(statement)
        database.execute("INSERT OR REPLACE INTO meta VALUES ('schema', ?)", (json.dumps(SCHEMA),))
        database.execute("COMMIT")
    except BaseException:
        database.rollback()
        raise
