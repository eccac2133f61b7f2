from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

import guided_evolution as ge
from guided_evolution import view
from guided_evolution.errors import UsageError
from guided_evolution.problem import Problem
from guided_evolution.run import Run
from guided_evolution.settings import Settings

GE = Path(sys.executable).parent / "ge"
GOOD = "from guided_evolution.testing import scripted_reply as reply\n"
# it breaks what it is shown, so that every child fails its check
BAD = """\
from guided_evolution.testing import scripted_reply
def reply(prompt):
    return scripted_reply(prompt).replace("return", "raise ValueError #")
"""
SIZES = {"population": 8, "generations": 5, "p_eot": 0.0}


@pytest.fixture
def specs(tmp_path: Path) -> list[str]:
    (tmp_path / "good.py").write_text(GOOD)
    (tmp_path / "bad.py").write_text(BAD)
    return [f"scripted:{tmp_path}/bad.py", f"scripted:{tmp_path}/good.py"]


def makers(run: Run) -> list[tuple[int, str]]:
    """The generation of each child and the model that made it."""
    found = []
    for child in run.individuals[1:]:
        models = {exchange.model for exchange in run.individual(child.id).origin.exchanges}
        assert len(models) == 1, "one model leads the whole conversation"
        found.append((child.generation, models.pop()))
    return found


def test_the_model_whose_children_earn_something_gets_most_of_them(
    tiny: Problem, tmp_path: Path, specs: list[str]
) -> None:
    run = ge.evolve(tiny, llm=specs, folder=tmp_path / "run", llm_choice="adaptive", **SIZES)
    made = makers(run)
    first = Counter(model for generation, model in made if generation == 0)
    later = Counter(model for generation, model in made if generation >= 3)
    assert first["scripted:bad.py"] >= 2, "it begins with the weights"
    assert later["scripted:good.py"] >= 2 * later["scripted:bad.py"]
    choices = view.run_document(run)["models"]
    assert [each["generation"] for each in choices] == [0, 1, 2, 3, 4, 5]
    assert [row["share"] for row in choices[0]["models"]] == [0.5, 0.5]
    for choice in choices:
        past = Counter(model for generation, model in made if generation < choice["generation"])
        assert [row["tried"] for row in choice["models"]] == [past["scripted:bad.py"], past["scripted:good.py"]]
    bad, good = choices[-1]["models"]
    assert bad["earned"] == 0
    assert good["earned"] >= len([each for each in run.front if 0 < each.generation < 5])
    assert good["share"] > 0.8
    assert good["usd"] == 0
    assert choices[-1]["cost"] == "seconds", "nobody was paid"


def test_weighted_learns_nothing_and_keeps_no_record_of_it(tiny: Problem, tmp_path: Path, specs: list[str]) -> None:
    plain = ge.evolve(tiny, llm=specs, folder=tmp_path / "a", **SIZES)
    named = ge.evolve(tiny, llm=specs, folder=tmp_path / "b", llm_choice="weighted", **SIZES)
    assert makers(plain) == makers(named)
    assert plain.model_choices == []
    later = Counter(model for generation, model in makers(plain) if generation >= 3)
    assert min(later.values()) >= 5


def test_with_one_model_it_changes_nothing(tiny: Problem, tmp_path: Path, specs: list[str]) -> None:
    sizes = {**SIZES, "generations": 1}
    runs = [
        ge.evolve(tiny, llm=specs[1], folder=tmp_path / choice, llm_choice=choice, **sizes)
        for choice in ("weighted", "adaptive")
    ]
    digests = [[each.genome.digest for each in run.individuals] for run in runs]
    assert digests[0] == digests[1]
    assert runs[1].model_choices == []


def test_there_are_two_ways_to_choose() -> None:
    with pytest.raises(UsageError, match='llm_choice must be "weighted" or "adaptive"'):
        Settings(llm_choice="best")


def test_a_resumed_run_chooses_the_same_models(tiny: Problem, tmp_path: Path, specs: list[str]) -> None:
    for name in ("good", "bad"):
        script = tmp_path / f"{name}.py"
        script.write_text(f"import time\n{script.read_text()}\nonce = reply\n" + SLOWLY)
    options = ["--llm", specs[0], "--llm", specs[1], "--llm-choice", "adaptive", "--population", "8"]
    command = [str(GE), "run", str(tiny.folder), *options, "--generations", "3", "--llm-parallel", "2", "--run"]
    killed = subprocess.Popen(
        [*command, str(tmp_path / "killed")], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    wait_for_children(tmp_path / "killed", 19)
    killed.send_signal(signal.SIGKILL)
    killed.wait(30)
    before = Run(tmp_path / "killed")
    kept, made = before.model_choices, makers(before)
    before.close()
    assert len(kept) >= 3
    assert len(made) < 32
    subprocess.run([str(GE), "resume", str(tmp_path / "killed")], check=True, capture_output=True, timeout=120)
    after = Run(tmp_path / "killed")
    assert after.model_choices[: len(kept)] == kept
    assert set(made) <= set(makers(after))
    assert len(makers(after)) == 32
    shown = subprocess.run([str(GE), "show", str(after.folder)], capture_output=True, text=True, check=True)
    assert "share of each generation" in shown.stdout
    document = subprocess.run([str(GE), "show", str(after.folder), "--json"], capture_output=True, check=True)
    # the shares decided: the same streams over the recorded shares give the models that were asked
    for choice in json.loads(document.stdout)["models"]:
        drawn = [
            drawn_model(choice["models"], n) for n in range(1 + 8 * choice["generation"], 9 + 8 * choice["generation"])
        ]
        assert drawn == [model for generation, model in makers(after) if generation == choice["generation"]]


SLOWLY = """\
def reply(prompt):
    time.sleep(0.1)
    return once(prompt)
"""


def drawn_model(rows: list[dict[str, object]], number: int) -> object:
    from guided_evolution.randomness import stream

    shares = [row["share"] for row in rows]
    return rows[int(stream(0, "model", number).choice(len(rows), p=shares))]["model"]


def wait_for_children(folder: Path, count: int) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        if (folder / "run.sqlite").exists():
            run = Run(folder)
            scored = sum(each.outcome is not None for each in run.individuals)
            run.close()
            if scored > count:
                return
        time.sleep(0.1)
    raise AssertionError("the run did not get that far")


def test_a_steady_run_counts_every_child_once_also_those_that_come_late(
    tiny: Problem, tmp_path: Path, specs: list[str]
) -> None:
    options = {**SIZES, "llm_choice": "adaptive", "schedule": "steady", "llm_parallel": 3, "workers": 2}
    run = ge.evolve(tiny, llm=specs, folder=tmp_path / "run", **options)
    choices = view.run_document(run)["models"]
    for choice in choices[1:]:
        before = [child for child in run.individuals[1:] if child.generation < choice["generation"]]
        tried = sum(row["tried"] for row in choice["models"])
        assert tried == len(before) - len(choice["late"])
    assert any(choice["late"] for choice in choices[1:]), "some were still on their way"
