from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from guided_evolution import programs


def read(folder: Path, source: str, imports: tuple[str, ...] = ("math", "numpy")) -> programs.Program:
    file = folder / "seed.py"
    file.write_text(source)
    return programs.read(file, imports)


@pytest.mark.parametrize(
    ("source", "size"),
    [
        ("x = 1", 3),  # the assignment, the name, the constant
        ("x = 0.123456789", 5),
        ("def f(a):\n    return a", 5),  # the function, its arguments, the argument, the return, the name
        ("", 0),
    ],
)
def test_the_size_counts_nodes_and_long_constants_more(tmp_path: Path, source: str, size: int) -> None:
    assert read(tmp_path, source).size == size


def test_comments_docstrings_and_formatting_count_nothing(tmp_path: Path) -> None:
    plain = read(tmp_path, "class A:\n    def f(self, a):\n        return a + 1\n")
    wordy = read(
        tmp_path,
        '"""A module."""\n# a comment\nclass A:\n    """A class."""\n\n'
        '    def f(self,\n          a):\n        """A function."""\n        return (a\n                + 1)\n',
    )
    assert wordy.size == plain.size


def test_what_is_not_counted_is_not_there(tmp_path: Path) -> None:
    module = read(tmp_path, '"""Some code."""\ndef f():\n    """Only this."""\ndef g(): return 1\n').load()
    assert module.__doc__ is None and module.f.__doc__ is None
    assert (module.f(), module.g()) == (None, 1)


@given(st.text(alphabet="abc+ ", min_size=1, max_size=300))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_code_put_into_a_text_saves_nothing_worth_having(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, f"x = {text!r}").size >= 2 + len(text) / programs.CHARACTERS_OF_A_NODE


def test_each_load_is_a_copy_that_remembers_nothing(tmp_path: Path) -> None:
    program = read(tmp_path, "seen = []\ndef f(x):\n    seen.append(x)\n    return len(seen)\n")
    first = program.load()
    assert (first.f(1), first.f(1)) == (1, 2)
    assert program.load().f(1) == 1
    sys.modules.pop(programs.PRIVATE_NAME)


def test_dataclasses_and_comprehensions_work(tmp_path: Path) -> None:
    source = "from dataclasses import dataclass\n@dataclass\nclass A:\n    x: int = 3\n"
    source += "def f(): return [A().x for _ in [1]]\n"
    assert read(tmp_path, source, ("dataclasses",)).load().f() == [3]


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("import os", "the module os"),
        ("import math, sys", "the module sys"),
        ("import numpy.ctypeslib", r"the module numpy\.ctypeslib"),
        ("from numpy import load", "`load`"),
        ("from . import evaluate", r"the module \."),
        ("import evaluate", "the module evaluate"),
        ("x = 1\nexec('y = 2')", "`exec`"),
        ("f = eval", "`eval`"),
        ("open('/etc/passwd')", "`open`"),
        ("__import__('os')", "`__import__`"),
        ("getattr(f, 'x')", "`getattr`"),
        ("f.__globals__", r"`\.__globals__`"),
        ("numpy._core", r"`\._core`"),
        ("g.gi_frame.f_back", r"`\.(f_back|gi_frame)`"),
        ("numpy.lib.sys", r"`\.sys`"),
        ("numpy.fromfile('x')", r"`\.fromfile`"),
    ],
)
def test_what_leads_out_of_the_program_is_refused_with_its_line(tmp_path: Path, source: str, named: str) -> None:
    with pytest.raises(ValueError, match=rf"the program uses {named}, which is not allowed here \(seed\.py:\d\)"):
        read(tmp_path, source)


@pytest.mark.parametrize("source", ["import numpy as np", "from numpy.linalg import norm", "import math", "x = print"])
def test_what_a_plain_function_needs_is_allowed(tmp_path: Path, source: str) -> None:
    read(tmp_path, source).load()


def test_an_error_names_the_programs_file_and_line(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        read(tmp_path, '"""Text."""\n\ndef f():\n    """More."""\n    return 1 / 0\n').load().f()
    assert caught.traceback[-1].path == tmp_path / "seed.py"
    assert caught.traceback[-1].lineno == 4  # counted from 0


def test_a_missing_function_is_named(tmp_path: Path) -> None:
    module = read(tmp_path, "f = 3\ndef g(): pass\n").load()
    programs.require(module, "g")
    with pytest.raises(AttributeError, match="the program no longer defines a function f"):
        programs.require(module, "g", "f")
