"""The real thing, small: a real model, a real network, real training, through the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GE = Path(sys.executable).parent / "ge"


@pytest.mark.slow
def test_a_local_model_evolves_a_network(tmp_path: Path) -> None:
    command = [str(GE), "run", str(ROOT / "examples" / "digits"), "--llm", "local:qwen2.5-coder-0.5b", "--json"]
    sizes = ["--population", "2", "--initial", "3", "--generations", "1", "--run", str(tmp_path / "run")]
    result = subprocess.run([*command, *sizes], capture_output=True, text=True, timeout=1200)
    assert result.returncode == 0, result.stderr
    front = json.loads(result.stdout)["front"]
    show = [str(GE), "show", str(tmp_path / "run")]
    shown = subprocess.run([*show, "--json"], capture_output=True, text=True, check=True)
    document = json.loads(shown.stdout)
    individuals = {each["id"]: each for each in document["individuals"]}
    assert document["status"] == "done"
    assert len(individuals) == 1 + 3 + 2
    seed = individuals[0]["scores"]
    assert seed["parameters"] == 518_126
    assert seed["accuracy"] > 0.9
    assert any(
        each["scores"]["accuracy"] >= seed["accuracy"] and each["scores"]["parameters"] <= seed["parameters"]
        for each in front
    )
    assert document["spending"]["calls"] >= 5
    assert document["spending"]["usd"] == 0
    for number in range(1, len(individuals)):
        detail = subprocess.run([*show, str(number), "--json"], capture_output=True, text=True, check=True)
        shown_one = json.loads(detail.stdout)["individual"]
        exchanges = shown_one["exchanges"]
        assert exchanges or [step["category"] for step in shown_one["steps"]] == ["swap"], "taken, nobody asked"
        assert all(exchange["prompt"] and exchange["model"].endswith("0.5b") for exchange in exchanges)
