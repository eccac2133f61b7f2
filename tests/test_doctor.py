from __future__ import annotations

import pytest

from guided_evolution.doctor import findings
from guided_evolution.session import cores


def test_keys_are_named_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    found = findings()
    assert "OPENAI_API_KEY" in found["keys found"]
    assert "sk-very-secret" not in repr(found)
    assert found["cores"] == cores()
    assert "no jail" in found["sandbox"]
