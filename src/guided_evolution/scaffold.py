"""Writes a new problem folder: one that runs as it is, or one around the user's own file."""

from __future__ import annotations

import re
from pathlib import Path

from guided_evolution.errors import ProblemError, UsageError
from guided_evolution.genome import Genome, read_files

_TOML = """\
name = "{name}"
summary = "{summary}"
seed = ["{seed}"]

[[objective]]
name = "{objective}"
goal = "max"

[limits]                 # of one evaluation
seconds = 60
memory_mb = 2048

[rules]
text = "{rules}"

[evolution]              # defaults of `ge run`; the command line wins
population = 6
generations = 3
"""

_SEED = '''\
"""Packs items of given sizes into bins of capacity 1, one after the other."""


def choose(item, free):
    """Gives the index of the open bin that the item goes to, or -1 for a new bin.

    `free` lists the free space of each open bin; the item fits into some of them or none.
    """
    for index, space in enumerate(free):
        if item <= space:
            return index
    return -1


def order(items):
    """Gives the items in the order in which they are packed."""
    return list(items)
'''

_EVALUATE = '''\
"""Scores a packing: how full the bins are on average over twenty seeded instances, 0 to 1."""

import importlib.util
import random


def load(program):
    spec = importlib.util.spec_from_file_location("candidate", program)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pack(module, items):
    items = tuple(items)
    ordered = list(module.order(items))
    if sorted(ordered) != sorted(items):
        raise ValueError("order() must give the same items back")
    free = []
    for item in ordered:
        index = module.choose(item, tuple(free))
        if index == -1:
            free.append(1.0 - item)
        elif 0 <= index < len(free) and item <= free[index]:
            free[index] -= item
        else:
            raise ValueError(f"choose() put an item of {item:.3f} into bin {index}, where it does not fit")
    return sum(items) / len(free)


def instance(number):
    random_items = random.Random(number)
    return [random_items.uniform(0.05, 0.7) for _ in range(120)]


def check(program):
    pack(load(program), instance(0)[:10])


def evaluate(program):
    module = load(program)
    return {"fullness": sum(pack(module, instance(number)) for number in range(20)) / 20}


def test(program):
    module = load(program)
    return {"fullness": sum(pack(module, instance(number)) for number in range(1000, 1050)) / 50}
'''

_EVALUATE_OWN = '''\
"""Scores a candidate. This file is never changed and never shown to the model."""

import importlib.util


def load(program):
    spec = importlib.util.spec_from_file_location("candidate", program)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check(program):
    """Cheap: fails when the candidate can't even be loaded. Add a small call of your own."""
    load(program)


def evaluate(program):
    """Gives the score. The seed's speed, accuracy or whatever you want to improve goes here."""
    module = load(program)
    raise RuntimeError("say in evaluate.py how a candidate is scored, e.g. return {{'score': module.main()}}")
'''


def write_problem(folder: Path, source: Path | None = None) -> list[str]:
    """Writes a problem folder and gives the names of its blocks.

    Args:
        folder: Where to; it must be new or empty.
        source: The user's own Python file; None writes a small bin-packing problem that runs.

    Raises:
        UsageError: When the folder isn't empty, or can't be written.
        GenomeError: When the user's file can't be cut into blocks.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} exists and isn't an empty folder; choose another.")
    if source is None:
        files = {"seed.py": _SEED}
        evaluate, objective = _EVALUATE, "fullness"
        summary = "It packs items into bins, one after the other; fewer bins are better."
        rules = "Keep function names and arguments. Plain Python and the standard library only."
    else:
        if not source.is_file():
            raise ProblemError(f"{source}: no such file.")
        if source.name == "evaluate.py":
            raise UsageError(f"{source}: a seed can't be called evaluate.py, which is the evaluator's name.")
        files = read_files(source.parent, [source.name])
        evaluate, objective = _EVALUATE_OWN.replace("{{", "{").replace("}}", "}"), "score"
        summary = "Say in one sentence what the program does."
        rules = "Keep class and function names and their arguments."
    genome = Genome.parse(files)
    name = re.sub(r"[^\w-]+", "-", folder.resolve().name)
    seed = next(iter(files))
    toml = _TOML.format(name=name, summary=summary, seed=seed, objective=objective, rules=rules)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in {seed: files[seed], "evaluate.py": evaluate, "problem.toml": toml}.items():
            (folder / path).write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise UsageError(f"{folder}: can't write: {error}") from None
    return [block.name for block in genome.blocks]
