"""For tests of this package and of extensions: a tiny problem, a scripted model, a listener, and conformance cases.

The tiny problem has three blocks and no dependencies; one evaluation takes some tens of milliseconds. The scripted
model is a fake, named as such: it changes one number of the block it is shown.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from guided_evolution.events import Event
from guided_evolution.testing.executors import SECRET_NAME, ExecutorConformance

__all__ = [
    "SECRET_NAME",
    "ExecutorConformance",
    "Recorder",
    "scripted_reply",
    "write_tiny_problem",
]

TINY_SEED = '''\
"""Three numbers that should come close to 7, 11 and 13."""

SCALE = 1


def first():
    """Gives the first number."""
    return 1 * SCALE


def second():
    """Gives the second number."""
    return 2 * SCALE


def third():
    """Gives the third number."""
    return 3 * SCALE
'''

TINY_EVALUATE = """\
import importlib.util


def load(program):
    spec = importlib.util.spec_from_file_location("candidate", program)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def numbers(program):
    module = load(program)
    return [float(module.first()), float(module.second()), float(module.third())]


def check(program):
    numbers(program)


def evaluate(program):
    values = numbers(program)
    distance = sum(abs(value - goal) for value, goal in zip(values, (7, 11, 13)))
    return {"closeness": -distance, "size": sum(abs(value) for value in values), "largest": max(values)}


def test(program):
    return {"closeness": -sum(abs(value - 10) for value in numbers(program))}
"""

TINY_PROBLEM = """\
name = "tiny"
summary = "Three numbers."
[[objective]]
name = "closeness"
goal = "max"
reference = -100
[[objective]]
name = "size"
goal = "min"
reference = 100
[limits]
seconds = 20
memory_mb = 512
[sandbox]
# a module that is there anyway: jobs are forked, at less than half of the processor time of a fresh start
preload = ["ast"]
[evolution]
population = 4
generations = 2
llm = "scripted:model.py"
"""

SCRIPTED_MODEL = '''\
"""A fake model for tests: it changes one number of the block it is shown."""

from guided_evolution.testing import scripted_reply as reply
'''


def write_tiny_problem(folder: Path) -> Path:
    """Writes the tiny problem with its scripted model, and gives the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "problem.toml").write_text(
        TINY_PROBLEM.replace("scripted:model.py", f"scripted:{folder / 'model.py'}"), encoding="utf-8"
    )
    (folder / "seed.py").write_text(TINY_SEED, encoding="utf-8")
    (folder / "evaluate.py").write_text(TINY_EVALUATE, encoding="utf-8")
    (folder / "model.py").write_text(SCRIPTED_MODEL, encoding="utf-8")
    return folder


def scripted_reply(prompt: str) -> str:
    """A fake model's reply: the prompt's last block with one of its numbers changed, or a lesson.

    The same prompt gives the same reply.
    """
    if "Write no code" in prompt:
        return "Lesson: larger numbers come closer to the goal."
    fences = re.findall(r"```python\n(.*?)```", prompt, re.DOTALL)
    if not fences:
        return "ready"
    code = fences[-1]
    draw = hashlib.sha256(prompt.encode()).digest()
    places = list(re.finditer(r"(?<![\w.\"'])\d+(?:\.\d+)?(?![\w\"'])", code))
    if not places:
        return f"I leave it as it is.\n```python\n{code}```"
    place = places[draw[0] % len(places)]
    value = float(place[0]) + 1 + draw[1] % 4
    text = str(int(value)) if value == int(value) else str(value)
    return f"I raise one number.\n```python\n{code[: place.start()]}{text}{code[place.end() :]}```"


class Recorder:
    """A listener that keeps every event.

    Attributes:
        events: What happened, in order.
    """

    def __init__(self) -> None:
        self.events: list[Event] = []

    def on(self, event: Event) -> None:
        """Takes one event; see `Listener.on`."""
        self.events.append(event)
