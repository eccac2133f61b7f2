from __future__ import annotations

from importlib import metadata

import pytest

from guided_evolution.doctor import findings
from guided_evolution.evaluation import sandbox
from guided_evolution.session import cores


def test_keys_are_named_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    found = findings()
    assert "OPENAI_API_KEY" in found["keys found"]
    assert "sk-very-secret" not in repr(found)
    assert found["cores"] == cores()
    assert found["sandbox"] == str(sandbox.probe())


def test_ray_is_listed_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray")
    assert f"ray {ray.__version__}" in findings()["executors"]
    real = metadata.version

    def version(name: str) -> str:
        if name == "ray":
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(metadata, "version", version)
    assert "ray" not in " ".join(findings()["executors"])
