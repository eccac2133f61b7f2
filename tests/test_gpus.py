"""GPUs handed out to jobs: whole, in shares, and never more than there are."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from guided_evolution.errors import RunError
from guided_evolution.evaluation import Job, launch
from guided_evolution.executors.gpus import Gpus, visible


def job(gpus: float, name: str = "1-evaluate") -> Job:
    return Job(name, "evaluate", {}, Path(), gpus=gpus, device="cuda")


def test_a_job_without_gpus_stays_as_it_is() -> None:
    plain = Job("1-check", "check", {}, Path())
    with Gpus(()).taken(plain) as placed:
        assert placed is plain


def test_whole_gpus_go_to_one_job_each() -> None:
    gpus = Gpus(("0", "1", "2"))
    with gpus.taken(job(1)) as first, gpus.taken(job(2)) as second:
        assert first.visible == "0"
        assert second.visible == "1,2"
    with gpus.taken(job(3)) as all_of_them:
        assert all_of_them.visible == "0,1,2"


def test_shares_fill_a_gpu_before_the_next_is_begun() -> None:
    gpus = Gpus(("0", "1"))
    with ExitStack() as stack:
        places = [stack.enter_context(gpus.taken(job(1 / 3))).visible for _ in range(3)]
        assert places == ["0", "0", "0"]
        assert stack.enter_context(gpus.taken(job(1))).visible == "1"


def test_who_waits_goes_on_when_a_gpu_is_released() -> None:
    gpus = Gpus(("a",))
    waits, got = threading.Event(), []

    def second() -> None:
        waits.set()
        with gpus.taken(job(1, "second")) as placed:
            got.append(placed.visible)

    with ThreadPoolExecutor(1) as pool:
        with gpus.taken(job(0.5)):
            future = pool.submit(second)
            waits.wait(5)
            with pytest.raises(TimeoutError):
                future.result(0.2)
            assert got == []
        future.result(5)
    assert got == ["a"]


def test_a_job_that_fails_gives_its_gpu_back() -> None:
    gpus = Gpus(("0",))
    for _ in range(3):
        with pytest.raises(ValueError, match="broken"), gpus.taken(job(1)):
            raise ValueError("broken")


@pytest.mark.parametrize(("names", "have"), [((), "none is found"), (("0",), "there are 1")])
def test_more_than_there_are_is_one_line(names: tuple[str, ...], have: str) -> None:
    with (
        pytest.raises(
            RunError, match=rf"^1-evaluate needs 2 GPU\(s\) \(limits.gpus in problem.toml\), and {have} here$"
        ),
        Gpus(names).taken(job(2)),
    ):
        pass


def test_the_variable_decides_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, names in (("", ()), ("-1", ()), ("3, 1", ("3", "1")), ("GPU-12", ("GPU-12",))):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
        assert visible() == names


def test_a_driver_is_asked_where_nothing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert visible() == ()
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 0\necho 1\n")
    tool.chmod(0o755)
    assert visible() == ("0", "1")
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert visible() == ()


def test_the_job_sees_its_gpus_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6")
    problem = tmp_path / "problem"
    problem.mkdir()
    (problem / "evaluate.py").write_text(
        "import os\ndef evaluate(program):\n    return {'x': 1, 'feedback': os.environ['CUDA_VISIBLE_DEVICES']}\n"
    )
    said = []
    gpus = Gpus()
    with gpus.taken(job(1)):
        for fields in ({"gpus": 2, "device": "cuda"}, {}):
            one = Job("one", "evaluate", {"seed.py": ""}, problem, objectives=("x",), seconds=20, **fields)
            with gpus.taken(one) as placed:
                said.append(launch.run(placed, tmp_path / "job").feedback)
    assert said == ["5,6", ""]
