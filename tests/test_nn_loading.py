"""Loading a candidate's file, alone or with its other parts."""

import sys
from pathlib import Path

import pytest

from guided_evolution.nn import loading


@pytest.fixture(autouse=True)
def same_path_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))


def write(folder: Path, **files: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, source in files.items():
        (folder / f"{name}.py").write_text(source)
    return folder / "seed.py"


def test_module_has_a_private_name_and_its_own_file(tmp_path: Path) -> None:
    file = write(tmp_path, seed="value = __name__, __file__")
    module = loading.load_program(file)
    assert module.value == (loading.PRIVATE_NAME, str(file))
    assert "seed" not in sys.modules


def test_program_changed_within_a_second_is_read_anew(tmp_path: Path) -> None:
    for number in range(5):
        assert loading.load_program(write(tmp_path, seed=f"value = {number}")).value == number


def test_parts_come_from_the_programs_own_folder(tmp_path: Path) -> None:
    seed = "from part import value\ndef late():\n    import late_part\n    return late_part.value\n"
    for name in ("a", "b"):
        part = f"value = {name!r}"
        module = loading.load_program(write(tmp_path / name, seed=seed, part=part, late_part=part))
        assert module.value == name
        assert module.late() == name
    assert str(tmp_path / "a") not in sys.path


def test_classes_can_look_up_their_module(tmp_path: Path) -> None:
    source = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass A:\n    x: int = 1\n"
    )
    assert loading.load_program(write(tmp_path, seed=source)).A().x == 1


def test_error_in_the_program_is_the_programs_own(tmp_path: Path) -> None:
    with pytest.raises(SyntaxError, match=r"seed\.py, line 2"):
        loading.load_program(write(tmp_path, seed="x = 1\ny = = 2\n"))
    with pytest.raises(FileNotFoundError):
        loading.load_program(tmp_path / "none.py")


def test_missing_name_is_said_to_be_missing(tmp_path: Path) -> None:
    module = loading.load_program(write(tmp_path, seed="def kept(): ..."))
    assert loading.require(module, "kept") is module.kept
    with pytest.raises(AttributeError, match="the program no longer defines make_optimizer"):
        loading.require(module, "make_optimizer")
