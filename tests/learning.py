"""A tiny problem whose evaluation learns in steps, and a model whose children are of all qualities."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from guided_evolution.problem import Problem
from guided_evolution.testing import write_tiny_problem

EVALUATE = """

def evaluate(program):
    import time
    values = numbers(program)
    distance = sum(abs(value - goal) for value, goal in zip(values, (7, 11, 13)))
    for step in range(1, 5):
        yield {"closeness": -distance - 8 / step, "size": 60 + values[0] % 5, "effort": step}
        time.sleep(PAUSE)
    yield {"closeness": -distance, "size": 60 + values[0] % 5, "effort": 5}
"""


def learning_problem(folder: Path, pause: float = 0.0) -> Problem:
    """The tiny problem with an evaluation in five steps, `pause` seconds apart."""
    write_tiny_problem(folder)
    path = folder / "evaluate.py"
    given = path.read_text(encoding="utf-8")
    start, end = given.index("def evaluate("), given.index("def test(")
    text = EVALUATE.lstrip().replace("PAUSE", str(pause))
    path.write_text(f"{given[:start]}{text}\n\n{given[end:]}", encoding="utf-8")
    return Problem.load(folder)


def reply(prompt: str) -> str:
    """The prompt's last block with its first number drawn anew; the same prompt gives the same reply."""
    if "Write no code" in prompt:
        return "Lesson: other numbers come closer to the goal."
    code = re.findall(r"```python\n(.*?)```", prompt, re.DOTALL)[-1]
    draw = hashlib.sha256(prompt.encode()).digest()
    changed = re.sub(r"\d+", str(draw[0] % 40), code, count=1)
    return f"```python\n{changed}```"
