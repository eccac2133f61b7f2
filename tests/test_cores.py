"""CPU cores handed out to jobs."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from guided_evolution.evaluation import Job
from guided_evolution.executors.cores import Cores
from guided_evolution.executors.local import LocalExecutor


def test_two_jobs_never_share_a_core_while_there_are_enough() -> None:
    cores = Cores((0, 1, 2, 3, 4))
    job = Job("1-evaluate", "evaluate", {}, Path(), threads=2)
    with ExitStack() as stack:
        assert [stack.enter_context(cores.taken(job)).cores for _ in range(3)] == [(0, 1), (2, 3), ()]
    with cores.taken(job) as placed:
        assert placed.cores == (0, 1)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system can't bind a process to cores")
@pytest.mark.parametrize("preload", [(), ("json",)], ids=["fresh", "forked"])
def test_jobs_at_the_same_time_run_on_cores_of_their_own(tmp_path: Path, preload: tuple[str, ...]) -> None:
    ours = sorted(os.sched_getaffinity(0))
    problem = tmp_path / "problem"
    problem.mkdir()
    (problem / "evaluate.py").write_text(
        "import os, time\ndef evaluate(program):\n    time.sleep(1)\n"
        "    return {'x': 1, 'feedback': str(sorted(os.sched_getaffinity(0)))}\n"
    )
    executor = LocalExecutor(len(ours) + 1, tmp_path / "jobs")
    try:
        jobs = [
            Job(f"{number}-evaluate", "evaluate", {"seed.py": ""}, problem, objectives=("x",), preload=preload)
            for number in range(len(ours) + 1)
        ]
        said = [future.result(60).feedback for future in [executor.submit(job) for job in jobs]]
    finally:
        executor.close()
    assert sorted(said) == sorted([*(str([number]) for number in ours), str(ours)])
