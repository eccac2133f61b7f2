"""Every fault of the published implementation has a test that carries its number."""

from __future__ import annotations

import re
from pathlib import Path


def test_all_sixteen_faults_are_tested() -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    numbers = {int(number) for number in re.findall(r"def test_fault_(\d\d)_", text)}
    assert numbers == set(range(1, 17))
