from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

from guided_evolution.curves import Curve, PartialResult
from guided_evolution.errors import RunError
from guided_evolution.individual import Exchange, Individual, Origin, Outcome, Status, Step
from guided_evolution.problem import Problem
from guided_evolution.store import FILE, Store

EXCHANGE = Exchange("mutate", "fake", "p{}$", "r\0\ud7ff", tokens_in=3, tokens_out=None, usd=None, seconds=1.5)
OUTCOME = Outcome(Status.OK, "", {"closeness": -1.25}, {"epoch": 3.0}, "ok", "log", 2.5, 100.0)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.create(tmp_path / "run")


def test_what_is_written_is_read_back(store: Store, tiny: Problem) -> None:
    genome = tiny.genome().replace("first", "def first():\n    return '{}$%'\n")
    origin = Origin((0, 2), (Step("mate", "first", "mate_accuracy"), Step("eot", "third", lesson="x", teacher=2)))
    store.put_individual(Individual(5, 1, genome, origin, twin=3))
    store.put_exchange(5, 0, EXCHANGE)
    store.put_verdict(5, 0, "too short")
    store.put_outcome(5, OUTCOME)
    store.put_outcome(5, Outcome(Status.TIMED_OUT, "stopped"), "test")
    store.close()
    again = Store.open(store.path.parent)
    read = again.individual(5)
    assert read is not None
    assert (read.genome, read.origin.steps, read.origin.parents) == (genome, origin.steps, origin.parents)
    assert read.genome.files == genome.files
    assert read.twin == 3
    assert read.outcome == OUTCOME
    assert read.origin.exchanges[0].verdict == "too short"
    assert read.origin.exchanges[0].prompt == EXCHANGE.prompt
    assert [each.id for each in again.individuals()] == [5]
    assert again.outcomes("test")[5].status is Status.TIMED_OUT
    assert again.individual(6) is None


def test_programs_that_share_blocks_share_their_texts(store: Store, tiny: Problem) -> None:
    genome = tiny.genome()
    for number in range(50):
        store.put_individual(Individual(number, 0, genome.replace("first", f"def first():\n    return {number}\n")))
    texts = sqlite3.connect(store.path).execute("SELECT COUNT(*) FROM texts").fetchone()[0]
    assert texts <= len(genome.parts) + 50


def test_lessons_are_kept_apart_from_an_individuals_own_exchanges(store: Store, tiny: Problem) -> None:
    store.put_individual(Individual(1, 0, tiny.genome()))
    store.put_exchange(1, 0, EXCHANGE)
    store.put_exchange(1, -2, EXCHANGE)
    assert len(store.exchanges(1)) == 1
    assert len(store.lessons(1)) == 1
    assert store.spending()["calls"] == 2
    assert store.spending()["unpriced"] == 2
    store.put_exchange(1, 1, EXCHANGE)
    assert store.spending() == Store.open(store.path.parent).spending()
    assert store.spending()["calls"] == 3


def test_a_missing_or_broken_record_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no run here"):
        Store.open(tmp_path)
    path = tmp_path / FILE
    path.write_bytes(b"this is no database" * 100)
    with pytest.raises(RunError, match="can't be read"):
        Store.open(tmp_path)
    with pytest.raises(RunError, match="already holds a run"):
        Store.create(tmp_path)
    assert path.read_bytes() == b"this is no database" * 100


def test_a_newer_schema_is_refused(store: Store) -> None:
    store.put_meta(schema=99)
    with pytest.raises(RunError, match="schema 99"):
        Store.open(store.path.parent)


def test_fault_11_a_record_has_its_name_only_when_a_reader_can_open_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: object, **__: object) -> None:
        raise OSError("killed")

    (tmp_path / f"{FILE}.new-wal").write_bytes(b"of one that was killed here before")
    with monkeypatch.context() as patch:
        patch.setattr("guided_evolution.store.connect", dies)
        with pytest.raises(RunError, match="killed"):
            Store.create(tmp_path, name="mine")
    assert [each.name for each in tmp_path.iterdir()] == [FILE]
    # https://www.sqlite.org/fileformat.html: 2 for a write-ahead log, which no reader has to roll back
    assert (tmp_path / FILE).read_bytes()[18:20] == b"\x02\x02"
    with contextlib.closing(Store.open(tmp_path)) as read:
        assert read.meta("name") == "mine"


def test_fault_11_a_killed_writer_leaves_whole_rows_only(store: Store, tiny: Problem) -> None:
    store.put_individual(Individual(1, 0, tiny.genome()))
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    other.execute("INSERT INTO meta VALUES ('half', '1')")
    other.close()  # as a process that dies in the middle of a transaction
    assert Store.open(store.path.parent).meta("half") is None


def test_the_disk_is_waited_for_where_money_or_an_evaluation_would_be_lost(store: Store, tiny: Problem) -> None:
    levels = {"NORMAL": 1, "FULL": 2}

    def level() -> int:
        return int(store._db.execute("PRAGMA synchronous").fetchone()[0])

    store.put_exchange(1, 0, EXCHANGE)
    assert level() == levels["FULL"]
    store.put_individual(Individual(1, 1, tiny.genome()))
    assert level() == levels["NORMAL"]
    store.put_outcome(1, OUTCOME)
    assert level() == levels["FULL"]
    for write in (
        lambda: store.put_meta(seconds=1.0),
        lambda: store.put_check("digest", OUTCOME),
        lambda: store.put_verdict(1, 0, "too short"),
    ):
        write()
        assert level() == levels["NORMAL"]


def test_learning_curves_are_those_of_earlier_generations_that_were_scored_or_stopped(
    store: Store, tiny: Problem
) -> None:
    results = tuple(PartialResult(step, step / 2, {"closeness": -1.0 / step, "loss": 1e-9}) for step in (1, 2, 4))
    fates = [(0, Status.OK), (1, Status.PRUNED), (1, Status.CRASHED), (2, Status.OK), (0, Status.OK)]
    digests = []
    for number, (generation, status) in enumerate(fates):
        genome = tiny.genome().replace("first", f"def first():\n    return {number}\n")
        digests.append(genome.digest)
        store.put_individual(Individual(number, generation, genome))
        store.put_outcome(number, Outcome(status))
        if number != 4:  # one that gave its scores at once
            store.put_curve(genome.digest, results)
    # a proposal that came to nothing has its parent's program, and a twin its outcome
    store.put_individual(Individual(8, 1, tiny.genome().replace("first", "def first():\n    return 3\n")))
    store.put_outcome(8, Outcome(Status.REJECTED))
    store.put_individual(Individual(9, 3, tiny.genome().replace("first", "def first():\n    return 0\n"), twin=0))
    store.put_outcome(9, Outcome(Status.OK))
    store.close()
    again = Store.open(store.path.parent)
    assert again.curve(digests[2]) == results
    assert again.curves(0) == {}
    assert again.curves(1) == {digests[0]: Curve(results)}
    assert again.curves(2) == {digests[0]: Curve(results), digests[1]: Curve(results, whole=False)}
    assert set(again.curves()) == {digests[number] for number in (0, 1, 3)}
    writing = Store.open(store.path.parent, write=True)
    writing.put_curve(digests[0], results[:1])
    assert writing.curve(digests[0]) == results[:1]
    writing.close()
