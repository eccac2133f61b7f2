"""`ge ui` at the terminal."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from dashboards import GE

from guided_evolution.errors import UsageError
from guided_evolution.ui.server import serve


def test_the_verb_serves_says_where_and_ends_quietly(home: Path) -> None:
    process = subprocess.Popen([str(GE), "ui"], cwd=home, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert line.startswith("Showing runs at http://127.0.0.1:")
        address = line.split()[3]
        assert "tiny" in fetch(address)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert process.stderr.read() == ""
    finally:
        process.kill()


def fetch(address: str) -> str:
    import urllib.request

    for _ in range(100):
        try:
            with urllib.request.urlopen(address, timeout=10) as answer:
                return str(answer.read().decode())
        except OSError:
            time.sleep(0.1)
    raise AssertionError("nobody answers")


def test_a_port_that_is_taken_is_one_line(home: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = subprocess.run(
            [str(GE), "ui", "--port", str(port)], cwd=home, capture_output=True, text=True, timeout=60
        )
    assert result.returncode == 2
    assert result.stderr == f"Error: can't serve on 127.0.0.1 port {port}: it is in use; choose another --port\n"


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(UsageError, match=r"can't serve on 192\.0\.2\.1"):
        serve(Path(), "192.0.2.1", None, lambda _: None)
    with pytest.raises(UsageError, match=r"can't serve on no\.such\.host"):
        serve(Path(), "no.such.host.invalid", None, lambda _: None)


def test_wrong_folders_and_a_missing_extra_are_one_line(home: Path, tmp_path: Path) -> None:
    result = subprocess.run([str(GE), "ui", "nowhere"], cwd=home, capture_output=True, text=True, timeout=60)
    assert (result.returncode, "no such folder" in result.stderr) == (2, True)
    blocked = tmp_path / "starlette.py"
    blocked.write_text("raise ModuleNotFoundError(\"No module named 'starlette'\", name='starlette')\n")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    result = subprocess.run([str(GE), "ui"], cwd=home, capture_output=True, text=True, timeout=60, env=environment)
    assert result.stderr == "Error: ge ui needs: pip install 'guided-evolution[ui]'\n"
    assert result.returncode == 2
