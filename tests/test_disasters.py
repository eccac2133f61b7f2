"""What a person sees when the disk, the record or the clock fails, and that nothing is lost by it."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from guided_evolution import session
from guided_evolution.errors import RunError
from guided_evolution.llm.scripted import FunctionLLM
from guided_evolution.problem import Problem
from guided_evolution.run import Run, list_runs
from guided_evolution.settings import Settings
from guided_evolution.store import FILE, Store
from guided_evolution.testing import scripted_reply, write_tiny_problem

GE = Path(sys.executable).parent / "ge"
SLOW_MODEL = """\
import time
from guided_evolution.testing import scripted_reply

def reply(prompt):
    time.sleep(0.1)
    return scripted_reply(prompt)
"""


def ge(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    result = subprocess.run([str(GE), *map(str, arguments)], capture_output=True, text=True, timeout=120)
    assert result.returncode == code, (result.returncode, result.stdout, result.stderr)
    assert "Traceback" not in result.stderr
    return result


def refusal(*arguments: object, code: int = 1) -> str:
    """The one line with which a command refuses."""
    result = ge(*arguments, code=code)
    assert result.stdout == ""
    lines = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1
    return lines[0]


def story(folder: Path) -> list[tuple[object, ...]]:
    with contextlib.closing(Run(folder)) as run:
        return [
            (each.id, each.genome.digest, each.origin.parents, each.origin.steps, each.status, each.scores, each.twin)
            for each in run.individuals
        ]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A problem with a run that went through."""
    folder = tmp_path_factory.mktemp("home")
    write_tiny_problem(folder / "tiny")
    (folder / "tiny" / "model.py").write_text(SLOW_MODEL)
    ge("run", folder / "tiny", "--run", folder / "whole")
    return folder


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of four mebibytes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(disk)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount a small file system")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def wait_for_individuals(run: Path, count: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(RunError), contextlib.closing(Store.open(run)) as store:
            if len(store.outcomes("evaluate")) >= count:
                return
        time.sleep(0.02)
    raise AssertionError("the run did not get that far")


def write_protect(disk: Path) -> None:
    deadline = time.monotonic() + 30
    command = ["mount", "-o", "remount,ro", str(disk)]
    while subprocess.run(command, capture_output=True).returncode != 0:
        assert time.monotonic() < deadline, "a process of the killed run still writes there"
        time.sleep(0.1)


def fill(file: Path) -> None:
    with file.open("wb", buffering=0) as filler, contextlib.suppress(OSError):
        while filler.write(bytes(4096)):
            pass


@pytest.mark.parametrize("after", [1, 6])
def test_a_full_disk_stops_the_run_with_one_line_and_loses_nothing(home: Path, small_disk: Path, after: int) -> None:
    run = small_disk / "run"
    command = [str(GE), "run", str(home / "tiny"), "--run", str(run)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for_individuals(run, after)
    fill(small_disk / "filler")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1, errors
    assert "Traceback" not in errors
    said = [line for line in errors.splitlines() if line.startswith("Error: ")]
    assert len(said) == 1
    assert "full" in said[0] or "No space left" in said[0]
    assert "ge resume" in said[0]
    before = story(run)
    assert len(before) >= after
    refused = refusal("resume", run)
    assert "full" in refused or "No space left" in refused
    assert story(run) == before
    (small_disk / "filler").unlink()
    ge("resume", run)
    assert story(run) == story(home / "whole")


def test_a_run_on_a_disk_that_cannot_be_written_is_read_and_refused(home: Path, small_disk: Path) -> None:
    shutil.copytree(home / "whole", small_disk / "run")
    write_protect(small_disk)
    for verb in ("resume", "test"):
        assert "can't be written: Read-only file system" in refusal(verb, small_disk / "run")
    assert "can't be written" in refusal("run", home / "tiny", "--run", small_disk / "new")
    shown = ge("show", small_disk / "run", "--json").stdout
    assert '"individuals"' in shown
    assert "closeness" in ge("front", small_disk / "run").stdout


def test_a_run_killed_on_a_disk_that_then_cannot_be_written_is_read_whole(home: Path, small_disk: Path) -> None:
    run = small_disk / "run"
    process = subprocess.Popen(
        [str(GE), "run", str(home / "tiny"), "--run", str(run)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wait_for_individuals(run, 5)
    process.kill()
    process.wait()
    assert (run / f"{FILE}-wal").stat().st_size > 0
    before = story(run)
    write_protect(small_disk)
    assert story(run) == before


def garbage(path: Path) -> None:
    path.write_bytes(b"this is no database " * 500)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def halved(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def short_of_a_page(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4096])


def overwritten(path: Path) -> None:
    draw, content = random.Random(1), bytearray(path.read_bytes())
    for page in range(1, len(content) // 4096):
        content[page * 4096 : page * 4096 + 512] = draw.randbytes(512)
    path.write_bytes(content)


@pytest.mark.parametrize("spoil", [garbage, emptied, halved, short_of_a_page, overwritten])
def test_a_broken_record_is_refused_with_advice_and_never_touched(home: Path, tmp_path: Path, spoil: object) -> None:
    run = tmp_path / "run"
    shutil.copytree(home / "whole", run)
    spoil(run / FILE)
    before = (run / FILE).read_bytes()
    for verb in (["show"], ["front"], ["resume"], ["test"], ["export", "1", "out"]):
        said = refusal(verb[0], run, *verb[1:])
        assert f"{run / FILE} can't be read" in said, verb
        assert "It was left as it is: put a copy of it back, or begin a new run in another folder." in said
        assert (run / FILE).read_bytes() == before
    assert "already holds a run" in refusal("run", home / "tiny", "--run", run)
    assert (run / FILE).read_bytes() == before


def test_a_single_torn_page_is_found_before_anything_is_written(home: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(home / "whole", run)
    content = bytearray((run / FILE).read_bytes())
    page = content.index(b"Three numbers") // 4096
    content[page * 4096 : page * 4096 + 16] = b"\xff" * 16
    (run / FILE).write_bytes(content)
    assert "can't be read" in refusal("resume", run)
    assert (run / FILE).read_bytes() == content


class Jumping:
    """A wall clock that somebody sets back and forth."""

    def __init__(self) -> None:
        self.draw = random.Random(2)

    def __call__(self) -> float:
        return 1.8e9 + self.draw.uniform(-1e8, 1e8)


def test_a_clock_that_jumps_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = Problem.load(write_tiny_problem(tmp_path / "tiny"))
    settings = Settings(population=2, generations=2, max_hours=1.0, workers=1)
    whole = session.start(problem, settings, tmp_path / "runs" / "a", (), FunctionLLM(scripted_reply, "fake"))
    monkeypatch.setattr(time, "time", Jumping())
    run = session.start(problem, settings, tmp_path / "runs" / "b", (), FunctionLLM(scripted_reply, "fake"))
    assert run.stop_reason == "2 generations done", "hours are counted by a clock that nobody can set"
    assert story(run.folder) == story(whole.folder)
    assert 0 < run.seconds < 60
    assert all(0 <= each.outcome.seconds < 60 for each in run.individuals if each.outcome)
    assert all(0 <= call.seconds < 60 for each in run.individuals for call in run.individual(each.id).origin.exchanges)
    os.utime(tmp_path / "runs" / "a" / FILE, (0, 0))
    assert sorted(list_runs(tmp_path / "runs")) == [whole.folder, run.folder]
