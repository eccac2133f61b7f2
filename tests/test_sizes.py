"""`ge front RUN --sizes`: the front's named members against the seed, through the command line."""

from __future__ import annotations

import json
from pathlib import Path

from guided_evolution.individual import Outcome, Status
from guided_evolution.problem import Objective, Problem
from guided_evolution.store import Store
from test_cli import ge
from test_view import pair, recorded, sized


def test_names_come_with_the_change_of_every_objective(tiny: Problem, tmp_path: Path) -> None:
    """The published models: seed, L, M, S and T."""
    published = [(92.52, 518_230), (93.34, 518_230), (93.16, 294_873), (88.83, 119_254), (87.45, 39_190)]
    recorded(tmp_path / "run", sized(tiny), [pair(*each) for each in published]).close()
    lines = ge("front", "run", "--sizes", cwd=tmp_path).stdout.splitlines()
    rows = {line.split()[0]: line for line in lines[1:]}
    assert list(rows) == ["T", "S", "M", "L", "seed"]
    assert rows["M"].split() == ["M", "2", "93.16", "+0.7", "%", "294,873", "-43.1", "%"]
    assert rows["T"].split()[-2:] == ["-92.4", "%"]
    assert rows["seed"].split() == ["seed", "0", "92.52", "518,230"]
    document = json.loads(ge("front", "run", "--sizes", "--json", cwd=tmp_path).stdout)
    assert [(each["name"], each["id"]) for each in document["sizes"]] == [("T", 4), ("S", 3), ("M", 2), ("L", 1)]
    assert document["sizes"][2]["objectives"][1]["value"] == 294_873
    assert "sizes" not in json.loads(ge("front", "run", "--json", cwd=tmp_path).stdout)


def test_what_was_tested_is_compared_on_held_out_data_too(tiny: Problem, tmp_path: Path) -> None:
    recorded(tmp_path / "run", sized(tiny), [pair(0.8, 1000), pair(0.9, 500)]).close()
    store = Store.open(tmp_path / "run", write=True)
    for number, accuracy in ((0, 0.75), (1, 0.72)):
        store.put_outcome(number, Outcome(Status.OK, scores={"accuracy": accuracy}, seconds=1.0), "test")
    store.close()
    head, *rows = ge("front", "run", "--sizes", cwd=tmp_path).stdout.splitlines()
    assert "test accuracy ↑" in head
    assert rows[0].split() == ["T", "1", "0.9", "+12.5", "%", "500", "-50.0", "%", "0.72", "-4.0", "%"]
    assert rows[-1].split() == ["seed", "0", "0.8", "1,000", "0.75"]


def test_a_seed_of_zero_has_no_share(tiny: Problem, tmp_path: Path) -> None:
    recorded(tmp_path / "run", sized(tiny), [pair(0, 1000), pair(0.25, 500)]).close()
    row = ge("front", "run", "--sizes", cwd=tmp_path).stdout.splitlines()[1]
    assert row.split() == ["T", "1", "0.25", "+0.25", "500", "-50.0", "%"]


def test_without_one_to_raise_and_one_to_lower_there_are_no_names(tiny: Problem, tmp_path: Path) -> None:
    problem = sized(tiny, Objective("accuracy", "max"), Objective("size", "max"))
    recorded(tmp_path / "run", problem, [pair(0.5, 100), pair(0.9, 200)]).close()
    for more in ([], ["--json"]):
        result = ge("front", "run", "--sizes", *more, cwd=tmp_path, code=2)
        assert "sizes need exactly one objective to raise and one to lower" in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1


def test_an_empty_result_says_why(tiny: Problem, tmp_path: Path) -> None:
    recorded(tmp_path / "run", sized(tiny), [pair(0.5, 100), pair(0.9, 200)]).close()
    assert "has at most the seed's size, so none is named" in ge("front", "run", "--sizes", cwd=tmp_path).stdout
