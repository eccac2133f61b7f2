from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

import guided_evolution as ge
from guided_evolution.errors import UsageError
from guided_evolution.llm.ensemble import split_weight
from guided_evolution.problem import Problem


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ("local", ("local", 1.0)),
        ("openai:gpt-5-mini=2", ("openai:gpt-5-mini", 2.0)),
        ("http://h/v1?a=b#m", ("http://h/v1?a=b#m", 1.0)),
        ("http://h/v1?a=1#m=0.5", ("http://h/v1?a=1#m", 0.5)),
    ],
)
def test_a_weight_is_what_follows_the_last_equals_sign(spec: str, parts: tuple[str, float]) -> None:
    assert split_weight(spec) == parts


@pytest.mark.parametrize("spec", ["local=0", "local=-1", "local=inf", "local=nan"])
def test_a_weight_is_positive(spec: str) -> None:
    with pytest.raises(UsageError, match="must be positive"):
        split_weight(spec)


def test_each_child_talks_to_one_model_drawn_by_weight(tiny: Problem, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.py").write_text("from guided_evolution.testing import scripted_reply as reply\n")
    specs = [f"scripted:{tmp_path}/a.py", f"scripted:{tmp_path}/b.py=4"]
    runs = [ge.evolve(tiny, llm=specs, folder=tmp_path / name, population=8, generations=3) for name in ("x", "y")]
    used = []
    for run in runs:
        assert run.settings["llm"] == specs
        asked = [{each.model for each in run.individual(child.id).origin.exchanges} for child in run.individuals[1:]]
        assert all(len(models) <= 1 for models in asked)
        used.append([tuple(models) for models in asked])
    assert used[0] == used[1]
    counts = Counter(models[0] for models in used[0] if models)
    assert counts["scripted:b.py"] > counts["scripted:a.py"] > 0
