"""The record of a run: one SQLite file. With `database` and `migrations` below, the only modules that know SQL.

Every row is committed before what it records is used: a reply before it is parsed, an outcome before it is
selected on. Reading the rows again is all that resuming takes. Texts of programs are kept once per content.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from guided_evolution.curves import Curve, PartialResult
from guided_evolution.database import connect, open_file
from guided_evolution.errors import RunError
from guided_evolution.genome import Genome, Part
from guided_evolution.individual import Exchange, Individual, Origin, Outcome, Status
from guided_evolution.llm.recorded import Recorded
from guided_evolution.migrations import migrate
from guided_evolution.rows import Asked, Call, exchange_of, outcome_of, partial_of, steps_of

_Parts = dict[tuple[str | None, str, int, str], Part]
FILE = "run.sqlite"
_BYTES = "LENGTH(CAST({} AS BLOB)) + LENGTH(CAST({} AS BLOB))"  # of a text alone, it counts up to the first NUL

BROKEN = "It was left as it is: put a copy of it back, or begin a new run in another folder."


class Store:
    """One run's record, open for reading or writing."""

    def __init__(self, path: Path, database: sqlite3.Connection, *, write: bool) -> None:
        self.path = path
        self._write = write
        self._db = database
        self._spent: dict[str, float] | None = None
        self._lenders: list[tuple[Store, bool]] = []
        self._waits = ("NORMAL", "FULL")

    @classmethod
    def create(cls, folder: Path, **meta: Any) -> Store:
        """Makes a new record in a folder, which is made too; it begins with some facts about the run.

        It appears under its name when it is whole: a process that is killed here leaves no half of one.

        Raises:
            RunError: When the folder already holds one, or can't be written.
        """
        path, new = folder / FILE, folder / f"{FILE}.new"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if path.exists():
                raise RunError(f"{folder} already holds a run. `ge resume {folder}` goes on with it.")
            _unlink(new)
            facts = {"created": time.time(), **meta}
            try:
                with contextlib.closing(sqlite3.connect(new)) as database:
                    database.execute("PRAGMA journal_mode = MEMORY")  # a journal left behind would spoil the next try
                    migrate(database, 0)
                    with database:
                        _put_meta(database, facts)
                    # not later: a process killed in the change of mode leaves a record that only a writer can open
                    database.execute("PRAGMA journal_mode = WAL")
                new.replace(path)
            finally:
                _unlink(new)
            return cls(path, connect(path, write=True), write=True)
        except (OSError, sqlite3.Error) as error:
            raise RunError(f"{folder}: can't write the run's record: {error}") from None

    @classmethod
    def open(cls, folder: str | Path, *, write: bool = False) -> Store:
        """Opens the record in a run's folder.

        One of an earlier version is brought up to this one: in its file when it is opened for writing, else in memory.

        Raises:
            RunError: When there is none, it is broken, or it is of a later version; it is then left as it is.
        """
        path = Path(folder) / FILE
        if not path.is_file():
            raise RunError(f"{folder}: no run here ({FILE} is missing). `ge runs` lists the runs.")
        try:
            return cls(path, open_file(path, write=write), write=write)
        except (OSError, sqlite3.Error) as error:
            raise RunError(f"{path} can't be read as a run's record: {error}. {BROKEN}") from None

    def close(self) -> None:
        """Closes the file; the store can't be used afterwards."""
        with contextlib.suppress(sqlite3.Error):
            if self._write:  # so that the one file holds everything, even while somebody reads
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._db.close()
        for other, _ in self._lenders:
            other.close()

    @property
    def revision(self) -> int:
        """A number that changes when another process has written; asking for it reads no row and takes no lock."""
        return int(self._db.execute("PRAGMA data_version").fetchone()[0])

    @contextlib.contextmanager
    def _writing(self, *, synced: bool = False) -> Iterator[sqlite3.Connection]:
        """A transaction, which a killed process never undoes; a synced one survives a power cut as soon as it ends.

        The log is one sequence, so that what comes before a synced transaction survives with it: it is waited for where
        money or an evaluation would be lost, a few milliseconds each.
        """
        try:
            self._db.execute(f"PRAGMA synchronous = {self._waits[synced]}")
            with self._db:
                yield self._db
        except sqlite3.Error as error:
            raise RunError(
                f"{self.path}: can't write: {error}. Nothing before this was lost: "
                f"once it can be written, `ge resume {self.path.parent}` goes on."
            ) from None

    def _rows(self, query: str, *values: Any) -> list[sqlite3.Row]:
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise RunError(f"{self.path} can't be read: {error}. {BROKEN}") from None

    def _row(self, query: str, *values: Any) -> sqlite3.Row | None:
        return next(iter(self._rows(query, *values)), None)

    # -- facts about the run ------------------------------------------------------------------------------------

    def put_meta(self, **values: Any) -> None:
        """Writes facts about the run; each value is anything JSON can hold."""
        with self._writing() as db:
            _put_meta(db, values)

    def meta(self, key: str, default: Any = None) -> Any:
        """A fact about the run."""
        row = self._row("SELECT value FROM meta WHERE key = ?", key)
        return default if row is None else json.loads(row[0])

    def plans(self) -> dict[str, Any]:
        """How many children each generation was to have and which operators' odds, as facts about the run."""
        rows = self._rows("SELECT key, value FROM meta WHERE key LIKE 'planned %' OR key LIKE 'operators %'")
        return {row["key"]: json.loads(row["value"]) for row in rows}

    # -- individuals --------------------------------------------------------------------------------------------

    def put_individual(self, individual: Individual) -> None:
        """Writes an individual without its outcome and exchanges, which have rows of their own."""
        document: dict[str, Any] = dict(individual.genome.to_json())
        with self._writing() as db:
            for part in document["parts"]:
                text = part.pop("source")
                part["sha"] = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
                db.execute("INSERT OR IGNORE INTO texts VALUES (?, ?)", (part["sha"], text))
            db.execute(
                "INSERT OR REPLACE INTO individuals VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    individual.id,
                    individual.generation,
                    individual.genome.digest,
                    json.dumps(document),
                    json.dumps(individual.origin.parents),
                    json.dumps([asdict(step) for step in individual.origin.steps]),
                    individual.twin,
                    time.time(),
                ),
            )

    def individual(self, number: int, stage: str = "evaluate") -> Individual | None:
        """One individual with its exchanges and the outcome of a stage; None when there is none."""
        row = self._row("SELECT * FROM individuals WHERE id = ?", number)
        return None if row is None else self._read(row, self.exchanges(number), self.outcome(number, stage))

    def individuals(self) -> list[Individual]:
        """All individuals in the order of their ids, without their exchanges."""
        outcomes = {row["individual"]: outcome_of(row) for row in self._outcome_rows("evaluate")}
        rows = self._rows("SELECT * FROM individuals ORDER BY id")
        texts: dict[str, str] = dict(map(tuple, self._rows("SELECT sha, text FROM texts")))
        parts: _Parts = {}
        return [self._read(row, (), outcomes.get(row["id"]), texts, parts) for row in rows]

    def _read(
        self,
        row: sqlite3.Row,
        exchanges: tuple[Exchange, ...],
        outcome: Outcome | None,
        texts: Mapping[str, str] | None = None,
        parts: _Parts | None = None,
    ) -> Individual:
        # relatives share most of their parts: each is made once for all that are read together
        known: _Parts = {} if parts is None else parts
        made = []
        for part in json.loads(row["genome"])["parts"]:
            key = (part.get("name"), part["file"], part["line"], part["sha"])
            if key not in known:
                sha = part.pop("sha")
                part["source"] = texts[sha] if texts is not None else self._text(sha)
                known[key] = Genome.from_json({"parts": [part]}).parts[0]
            made.append(known[key])
        genome = Genome(tuple(made))
        vars(genome)["digest"] = row["digest"]  # known already: parsing every program again is what takes time
        return Individual(
            id=row["id"],
            generation=row["generation"],
            genome=genome,
            origin=Origin(tuple(json.loads(row["parents"])), steps_of(row["steps"]), exchanges),
            outcome=outcome,
            twin=row["twin"],
        )

    def _text(self, sha: str) -> str:
        return str(self._rows("SELECT text FROM texts WHERE sha = ?", sha)[0][0])

    # -- outcomes -----------------------------------------------------------------------------------------------

    def put_outcome(self, number: int, outcome: Outcome, stage: str = "evaluate") -> None:
        """Writes what a stage of an individual gave."""
        self.put_outcomes(number, {stage: outcome})

    def put_outcomes(self, number: int, outcomes: Mapping[str, Outcome], *, aside: str = "") -> None:
        """Writes what several stages of an individual gave, all of it or nothing.

        Args:
            aside: The stage that keeps what "evaluate" held until now, and when that was.
        """
        with self._writing(synced=True) as db:
            if aside:
                query = "UPDATE OR REPLACE outcomes SET stage = ? WHERE individual = ? AND stage = 'evaluate'"
                db.execute(query, (aside, number))
            for stage, outcome in outcomes.items():
                db.execute(
                    "INSERT OR REPLACE INTO outcomes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        number,
                        stage,
                        outcome.status,
                        outcome.reason,
                        json.dumps(dict(outcome.scores)),
                        json.dumps(dict(outcome.metrics)),
                        outcome.feedback,
                        outcome.log_tail,
                        outcome.seconds,
                        outcome.peak_mb,
                        time.time(),
                        outcome.taken_from,
                    ),
                )

    def outcome(self, number: int, stage: str = "evaluate") -> Outcome | None:
        """What a stage of an individual gave; None when it has not run."""
        query = "SELECT * FROM outcomes WHERE individual = ? AND stage = ?"
        row = self._row(query, number, stage)
        return None if row is None else outcome_of(row)

    def borrow(self, other: Store, *, every: bool = False) -> None:
        """Lets what is missing here be taken from another record, which this one then closes.

        These are outcomes, checks and replies.

        Args:
            other: The record, of a run of the same problem.
            every: Take all outcomes, also what another machine may have caused: time-outs and memory; but no replies,
                which a replay gets from its model in their places.
        """
        self._lenders.append((other, every))

    def _borrowed(self, find: Callable[[Store], Outcome | None]) -> Outcome | None:
        for other, every in self._lenders:
            found = find(other)
            if found is not None and (every or found.status in (Status.OK, Status.CRASHED)):
                return replace(found, taken_from=found.taken_from or str(other.path.parent.resolve()))
        return None

    def outcome_of(self, digest: str) -> Outcome | None:
        """The score of a program, under whatever id it was scored, here or where it may be borrowed; else None."""
        row = self._row(
            "SELECT outcomes.* FROM outcomes JOIN individuals ON individuals.id = outcomes.individual"
            " WHERE digest = ? AND stage = 'evaluate' AND status NOT IN (?, ?) ORDER BY individual LIMIT 1",
            digest,
            Status.REJECTED,
            Status.LOST,
        )
        return self._borrowed(lambda other: other.outcome_of(digest)) if row is None else outcome_of(row)

    def measured(self, digest: str, stage: str) -> Outcome | None:
        """What a further stage of a program gave, under whatever id, here or where it may be borrowed; else None."""
        row = self._row(
            "SELECT outcomes.* FROM outcomes JOIN individuals ON individuals.id = outcomes.individual"
            " WHERE digest = ? AND stage = ? ORDER BY individual LIMIT 1",
            digest,
            stage,
        )
        return self._borrowed(lambda other: other.measured(digest, stage)) if row is None else outcome_of(row)

    def outcomes(self, stage: str) -> dict[int, Outcome]:
        """What a stage gave, by individual."""
        return {row["individual"]: outcome_of(row) for row in self._outcome_rows(stage)}

    def _outcome_rows(self, stage: str) -> list[sqlite3.Row]:
        return self._rows("SELECT * FROM outcomes WHERE stage = ?", stage)

    def put_check(self, digest: str, outcome: Outcome) -> None:
        """Writes what the cheap check of a program gave."""
        with self._writing() as db:
            numbers = (json.dumps(dict(outcome.scores)), json.dumps(dict(outcome.metrics)))
            row = (digest, outcome.status, outcome.reason, outcome.log_tail, outcome.seconds, *numbers)
            db.execute("INSERT OR REPLACE INTO checks VALUES (?, ?, ?, ?, ?, ?, ?)", row)

    def check(self, digest: str) -> Outcome | None:
        """What the cheap check of a program gave, here or where it may be borrowed; None when it has not run."""
        row = self._row("SELECT * FROM checks WHERE digest = ?", digest)
        if row is None:
            return self._borrowed(lambda other: other.check(digest))
        return Outcome(
            Status(row["status"]),
            row["reason"],
            json.loads(row["scores"]),
            json.loads(row["metrics"]),
            log_tail=row["log_tail"],
            seconds=row["seconds"],
        )

    # -- learning curves ----------------------------------------------------------------------------------------

    def put_curve(self, digest: str, results: Iterable[PartialResult]) -> None:
        """Writes what the evaluation of a program reported on its way, in place of what was there."""
        rows = [(digest, each.step, each.seconds, json.dumps(dict(each.scores))) for each in results]
        with self._writing() as db:
            db.execute("DELETE FROM partials WHERE digest = ?", (digest,))
            db.executemany("INSERT INTO partials VALUES (?, ?, ?, ?)", rows)

    def curve(self, digest: str) -> tuple[PartialResult, ...]:
        """What the evaluation of a program reported on its way, here or where its outcome may be borrowed."""
        found = [partial_of(row) for row in self._rows("SELECT * FROM partials WHERE digest = ? ORDER BY step", digest)]
        # one that was stopped early elsewhere may have been measured whole in another place
        return tuple(found) or max((other.curve(digest) for other, _ in self._lenders), key=len, default=())

    def curves(self, before: int | None = None) -> dict[str, Curve]:
        """The curves of the programs that were scored or stopped early, by digest.

        Args:
            before: Only programs of generations before this one; None takes all.
        """
        rows = self._rows(
            "SELECT partials.*, status FROM partials JOIN (SELECT DISTINCT digest, status FROM individuals"
            " JOIN outcomes ON outcomes.individual = individuals.id AND stage = 'evaluate'"
            " WHERE status IN (?, ?) AND generation < ?) USING (digest) ORDER BY digest, step",
            Status.OK,
            Status.PRUNED,
            1 << 62 if before is None else before,
        )
        found: dict[str, Curve] = {}
        for row in rows:
            earlier = found[row["digest"]].results if row["digest"] in found else ()
            found[row["digest"]] = Curve((*earlier, partial_of(row)), whole=row["status"] == Status.OK)
        return found

    # -- exchanges ----------------------------------------------------------------------------------------------

    def put_exchange(
        self, number: int, turn: int, exchange: Exchange, *, cut: bool = False, question: str = ""
    ) -> None:
        """Writes a question and its answer; `turn` counts an individual's exchanges from 0.

        Args:
            question: The request's `key`, by which other runs find the answer; empty lends it to nobody.
        """
        values = asdict(exchange)
        columns = [*values, "individual", "turn", "cut", "finished", "question"]
        row = [*values.values(), number, turn, int(cut), time.time(), question]
        with self._writing(synced=True) as db:
            marks = ", ".join("?" * len(columns))
            db.execute(f"INSERT OR REPLACE INTO exchanges ({', '.join(columns)}) VALUES ({marks})", row)
        if self._spent is not None and exchange.taken_from:
            self._spent["taken"] += 1
        elif self._spent is not None:
            self._spent["calls"] += 1
            self._spent["unpriced"] += exchange.usd is None
            for name in ("tokens_in", "tokens_cached", "tokens_out", "usd", "seconds"):
                self._spent[name] += values[name] or 0
            if exchange.tokens_in is None:
                self._spent["uncounted_in"] += _size(exchange.system, exchange.prompt)
            if exchange.tokens_out is None:
                self._spent["uncounted_out"] += _size(exchange.reply, exchange.reasoning)

    def put_verdict(self, number: int, turn: int, verdict: str) -> None:
        """Writes why a reply was not used."""
        with self._writing() as db:
            db.execute("UPDATE exchanges SET verdict = ? WHERE individual = ? AND turn = ?", (verdict, number, turn))

    def asked(self, number: int, turn: int) -> Asked | None:
        """A stored exchange; None when it was never made."""
        query = "SELECT * FROM exchanges WHERE individual = ? AND turn = ?"
        row = self._row(query, number, turn)
        return None if row is None else Asked(exchange_of(row), bool(row["cut"]))

    def lent(self, question: str) -> Asked | None:
        """The answer to a question that a run which lends its record got, marked with that run; None where none has.

        Args:
            question: The request's `key`.
        """
        for other, every in self._lenders:
            found = None if every else other.answer(question)
            if found is not None:
                run = found.exchange.taken_from or str(other.path.parent.resolve())
                return replace(found, exchange=replace(found.exchange, verdict="", taken_from=run))
        return None

    def answer(self, question: str) -> Asked | None:
        """The first answer to a question of this `key` that is recorded here; None when it was never asked."""
        # the second condition is the index's own: without it the index isn't looked at
        query = "SELECT * FROM exchanges WHERE question = ? AND question != '' ORDER BY individual, turn LIMIT 1"
        row = self._row(query, question)
        return None if row is None else Asked(exchange_of(row), bool(row["cut"]))

    def recorded(self) -> list[Recorded]:
        """Every exchange of the run, lessons included, in the order of individuals and turns."""
        rows = self._rows("SELECT * FROM exchanges ORDER BY individual, turn")
        return [Recorded(row["individual"], row["turn"], exchange_of(row), bool(row["cut"])) for row in rows]

    def unasked(self) -> frozenset[int]:
        """The children that came about without a question: by random edits."""
        rows = self._rows(
            "SELECT id, steps FROM individuals WHERE parents != '[]'"
            " AND id NOT IN (SELECT individual FROM exchanges WHERE turn >= 0)"
        )
        # a lesson that wasn't there leaves no question with the child either
        return frozenset(row["id"] for row in rows if all(step.operator != "eot" for step in steps_of(row["steps"])))

    def exchanges(self, number: int) -> tuple[Exchange, ...]:
        """An individual's own exchanges in order."""
        return self._exchanges("individual = ? AND turn >= 0", number)

    def lessons(self, teacher: int) -> tuple[Exchange, ...]:
        """The exchanges that distilled what an elite's changed blocks teach; their turns are negative."""
        return self._exchanges("individual = ? AND turn < 0", teacher)

    def _exchanges(self, where: str, number: int) -> tuple[Exchange, ...]:
        rows = self._rows(f"SELECT * FROM exchanges WHERE {where} ORDER BY turn", number)
        return tuple(exchange_of(row) for row in rows)

    def calls(self) -> list[Call]:
        """Every question of the run in the order of the answers, without the texts."""
        names = ", ".join(Call.__dataclass_fields__)
        rows = self._db.execute(f"SELECT {names} FROM exchanges ORDER BY finished, individual, turn")
        return [Call(*row) for row in rows]

    def finished(self, stage: str) -> dict[int, float]:
        """When a stage of each individual was recorded, in seconds since the epoch."""
        rows = self._db.execute("SELECT individual, finished FROM outcomes WHERE stage = ?", (stage,))
        return dict(map(tuple, rows))

    def spending(self) -> Mapping[str, float]:
        """Sums over what was asked: calls, tokens_in, tokens_cached, tokens_out, usd, unpriced, seconds; and `taken`.

        Taken are the replies from other runs' records, which cost nothing here and count in no other sum. Unpriced are
        the calls of unknown price; tokens_cached counts those that providers told of; uncounted_in and uncounted_out
        are the bytes of prompts and of replies whose tokens nobody told.

        The one process that writes reads them once and then keeps them up: a run looks before every call.
        """
        if self._spent is None or not self._write:
            row = self._rows(
                "SELECT COUNT(*) AS calls, COALESCE(SUM(tokens_in), 0) AS tokens_in,"
                " COALESCE(SUM(tokens_cached), 0) AS tokens_cached,"
                " COALESCE(SUM(tokens_out), 0) AS tokens_out, COALESCE(SUM(usd), 0) AS usd,"
                " COALESCE(SUM(usd IS NULL), 0) AS unpriced, COALESCE(SUM(seconds), 0) AS seconds,"
                f" COALESCE(SUM({_BYTES.format('system', 'prompt')}) FILTER (WHERE tokens_in IS NULL), 0)"
                f" AS uncounted_in, COALESCE(SUM({_BYTES.format('reply', 'reasoning')})"
                " FILTER (WHERE tokens_out IS NULL), 0) AS uncounted_out FROM exchanges"
                " WHERE taken_from = ''"
            )[0]
            taken = self._rows("SELECT COUNT(*) FROM exchanges WHERE taken_from != ''")[0][0]
            self._spent = {**dict(zip(row.keys(), row, strict=True)), "taken": taken}
        return dict(self._spent)


def _size(*texts: str) -> int:
    return sum(len(text.encode()) for text in texts)


def _unlink(path: Path) -> None:
    """Removes a database and what SQLite kept beside it, as far as they are there."""
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _put_meta(database: sqlite3.Connection, values: Mapping[str, Any]) -> None:
    rows = [(key, json.dumps(value)) for key, value in values.items()]
    database.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", rows)
