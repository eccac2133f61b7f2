"""A served model, used from another process as one uses vLLM or Ollama."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from guided_evolution.testing import write_tiny_problem

GE = Path(sys.executable).parent / "ge"
NAME = "qwen2.5-coder-0.5b"


def served(*options: str) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if name != "OPENAI_API_KEY"}
    command = [str(GE), "models", "serve", *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


@pytest.mark.slow
def test_a_run_is_made_with_a_model_that_another_process_serves(tmp_path: Path) -> None:
    subprocess.run([str(GE), "models", "pull", NAME], check=True, capture_output=True, timeout=1200)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = served(NAME, "--port", str(port))
    try:
        assert server.stdout is not None
        line = server.stdout.readline().strip()
        assert line == f"--llm http://127.0.0.1:{port}/v1#{NAME}"
        write_tiny_problem(tmp_path / "tiny")
        command = [str(GE), "run", "tiny", *line.split(), "--initial", "2", "--generations", "0", "--run", "r"]
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=900)
        assert result.returncode == 0, result.stderr
        assert "at an unknown price" in result.stderr
        shown = subprocess.run([str(GE), "show", str(tmp_path / "r"), "--json"], capture_output=True, check=True)
        document = json.loads(shown.stdout)
        assert len(document["individuals"]) == 3
        spent = document["spending"]
        assert spent["calls"] == spent["unpriced"] >= 2
        assert spent["tokens_in"] > 100 * spent["calls"]
        assert spent["tokens_out"] > 0
        one = subprocess.run([str(GE), "show", str(tmp_path / "r"), "1", "--json"], capture_output=True, check=True)
        exchange = json.loads(one.stdout)["individual"]["exchanges"][0]
        assert exchange["model"] == NAME
        assert exchange["usd"] is None
        assert exchange["reply"]
        capped = subprocess.run([*command, "--max-usd", "1"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert capped.returncode == 2
    finally:
        server.send_signal(signal.SIGINT)
        _, errors = server.communicate(timeout=60)
    assert server.returncode == 0
    assert "Traceback" not in errors
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)), "the engine ended with its parent"


def test_a_port_that_is_taken_is_said_before_the_model_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "any.gguf").write_bytes(b"GGUF")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = served(str(tmp_path / "any.gguf"), "--port", str(other.getsockname()[1]))
        _, errors = taken.communicate(timeout=60)
    assert taken.returncode == 2
    assert "can't be used" in errors
    assert "loading" not in errors


def test_a_file_that_is_no_model_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "any.gguf").write_bytes(b"GGUF" + bytes(4000))
    broken = served(str(tmp_path / "any.gguf"))
    _, errors = broken.communicate(timeout=120)
    assert broken.returncode == 1
    assert "can't be loaded" in errors
    assert "Traceback" not in errors
