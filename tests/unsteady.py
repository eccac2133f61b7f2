"""Problems whose scores can't be believed at once."""

from __future__ import annotations

from pathlib import Path

from guided_evolution.problem import Problem
from guided_evolution.testing import write_tiny_problem

_RETURN = '    return {"closeness": -distance, "size": sum(abs(value) for value in values), "largest": max(values)}'

_CLOCK = """\
    import time
    value = -1 if values == [1, 2, 3] else time.time_ns() % 1_000_003
    return {"closeness": float(value), "size": sum(abs(each) for each in values)}"""

# what a program scored the first time is counted beside the evaluator: sandbox="off" lets it
_LUCK = """\
    import hashlib, pathlib
    count = pathlib.Path(__file__).parent / hashlib.sha256(pathlib.Path(program).read_bytes()).hexdigest()
    known = count.exists()
    count.touch()
    if values[0] != 1 and not known:
        return {"closeness": 1000.0, "size": 0.0}
    if values[0] != 1 and FAILS:
        raise ValueError("not this time")
"""


def clock_problem(folder: Path) -> Problem:
    """The tiny problem, the closeness of all but the seed read off a clock."""
    return _changed(folder, _CLOCK)


def lucky_problem(folder: Path, *, fails: bool = False) -> Problem:
    """The tiny problem, in which whoever changes the first block beats everything, the first time it is evaluated.

    Afterwards it scores what it deserves, or it fails. It needs sandbox="off".
    """
    return _changed(folder, _LUCK.replace("FAILS", str(fails)) + _RETURN)


def _changed(folder: Path, ending: str) -> Problem:
    write_tiny_problem(folder)
    text = (folder / "evaluate.py").read_text()
    assert _RETURN in text
    (folder / "evaluate.py").write_text(text.replace(_RETURN, ending))
    return Problem.load(folder)
