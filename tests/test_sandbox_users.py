"""The jail of a user without rights, and folders that others can or can't read."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from guided_evolution.evaluation import launch, sandbox
from guided_evolution.locations import CACHE_VARIABLE
from test_sandbox import EVALUATOR

pytestmark = pytest.mark.skipif(sandbox.probe().level != "bwrap", reason=sandbox.probe().detail)


SOMEBODY = 12_345
AS_SOMEBODY = """
import sys
from pathlib import Path
from guided_evolution.evaluation import Job, launch
from guided_evolution.evaluation.forking import ForkServer
folder = Path(sys.argv[1])
source = "import os\\nSAW = [os.getuid(), os.path.exists({home!r})]\\ndef score(): return 1"
server = ForkServer(("json",))
for made in (None, server):
    files = {{"seed.py": source}}
    job = Job("job", "evaluate", files, folder / "problem", objectives=("accuracy",), sandbox="required")
    print(launch.run(job, folder / "jobs" / "job", server=made))
server.close()
"""


def as_somebody(*command: str) -> subprocess.CompletedProcess[str]:
    """Runs a command as a user without any rights or home, with this interpreter's packages."""
    packages = [str(Path(launch.__file__).parents[2]), sysconfig.get_path("platlib")]
    environment = {"PATH": os.defpath, "PYTHONPATH": os.pathsep.join(packages), CACHE_VARIABLE: "/nonexistent"}
    who = {"user": SOMEBODY, "group": SOMEBODY, "extra_groups": []}
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment,
        cwd=tempfile.gettempdir(),
        **who,
    )


def readable_interpreter() -> str:
    """A Python that another user can start and that has our packages; empty where there is none."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for python in (sys.executable, f"/usr/bin/{version}"):
        with suppress(OSError):
            if as_somebody(python, "-c", "import guided_evolution").returncode == 0:
                return python
    return ""


@pytest.mark.skipif(os.geteuid() != 0, reason="root can become somebody else")
def test_an_ordinary_user_has_the_same_jail() -> None:
    python = readable_interpreter()
    if not python:
        pytest.skip("no interpreter here that another user can read")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "problem").mkdir()
        (folder / "problem" / "evaluate.py").write_text(EVALUATOR)
        os.chown(folder, SOMEBODY, SOMEBODY)
        done = as_somebody(python, "-c", AS_SOMEBODY.format(home=str(Path(__file__).parent)), str(folder))
    assert done.stdout.count("Status.OK") == 2, (done.stdout, done.stderr[-800:])
    assert done.stdout.count(f"[{sandbox.NOBODY}, False]") == 2


def test_jobs_that_come_and_go_below_a_problem_do_not_disturb_its_jail(tmp_path: Path) -> None:
    """A run that is kept inside the problem's folder, as `ge run .` keeps it."""
    tmp_path.chmod(0o755)
    problem = tmp_path / "problem"
    problem.mkdir(mode=0o755)
    going = threading.Event()

    def come_and_go() -> None:
        while not going.is_set():
            (problem / "runs" / "a" / "b").mkdir(parents=True)
            shutil.rmtree(problem / "runs")

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        found = {sandbox._open_to_all(problem) for _ in range(2_000)}
    finally:
        going.set()
        thread.join()
    assert found == {True}


def test_a_folder_that_others_cannot_read_is_found_in_the_depth(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    for folder in (tmp_path / "a", tmp_path / "a" / "b"):
        folder.mkdir(mode=0o755)
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert sandbox._open_to_all(tmp_path)
    (tmp_path / "a" / "b" / "key").write_text("")
    (tmp_path / "a" / "b" / "key").chmod(0o600)
    assert not sandbox._open_to_all(tmp_path)
