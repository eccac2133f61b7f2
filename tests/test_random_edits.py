from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guided_evolution.genome import Genome
from guided_evolution.random_edits import Edited, edited
from guided_evolution.reply import breaks
from guided_evolution.source import canonical, split_lines
from guided_evolution.testing import TINY_SEED

PACKING = '''\
"""Which bin an item goes to."""

import math

import numpy as np


def priority(item, bins):
    """The fuller the better."""
    # what is left over
    left = bins - item
    score = -np.sqrt(left) if item > 0.25 and len(bins) >= 2 else left  # a comment: 1 + 1
    score += math.floor(item * 10)
    print(f"{item + 1:.2f}")
    return np.maximum(score, 0) * min(item, 1)


class Packer:
    size: int = 100

    def pack(self, items, *, sort=True):
        # ünïcödé before code
        naïve = "αβγ" if sort else ""; total = 0x10 + 1_000
        for item in items:
            total += item
        return total, naïve
'''
FOLDER = Path(__file__).parent.parent / "examples"
EXAMPLES = {name: (FOLDER / name / "seed.py").read_text(encoding="utf-8") for name in ("digits", "cifar10")}
PROGRAMS = {"packing": PACKING, "tiny": TINY_SEED, **EXAMPLES}


def edit(text: str, name: str, seed: int) -> tuple[Genome, Edited]:
    genome = Genome.parse({"seed.py": text})
    block = genome.block(name)
    last = block.line + len(split_lines(block.source)) - 1
    found = edited(text, block.line, last, np.random.default_rng(seed))
    assert found is not None
    return genome, found


def every(text: str, name: str, draws: int = 400) -> set[str]:
    return {move for seed in range(draws) for move in edit(text, name, seed)[1].moves}


def block_of(*lines: str, head: str = "") -> str:
    return f"{head}\ndef f(x, y):\n" + "".join(f"    {line}\n" for line in lines)


@given(st.sampled_from(sorted(PROGRAMS)), st.integers(0, 10**6), st.data())
@settings(max_examples=150, deadline=None)
def test_an_edited_block_parses_in_its_place_says_something_else_and_keeps_names_and_signatures(
    program: str, seed: int, data: st.DataObject
) -> None:
    text = PROGRAMS[program]
    block = data.draw(st.sampled_from(Genome.parse({"seed.py": text}).blocks))
    genome, found = edit(text, block.name, seed)
    child = genome.replace(block.name, found.lines)
    compile(child.text("seed.py"), "seed.py", "exec")
    assert canonical(child.text("seed.py")) != canonical(text)
    assert child.digest != genome.digest
    assert child.changed(genome) == (block.name,)
    assert breaks(child.block(block.name).source, block, genome, block) == ""
    assert 1 <= len(found.moves) <= 3
    assert edit(text, block.name, seed)[1] == found, "the same seed makes the same edits"


@given(st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_comments_docstrings_and_layout_stay(seed: int) -> None:
    _, found = edit(PACKING, "Packer", seed)
    assert "    size: int = " in found.lines
    assert "# ünïcödé before code" in found.lines
    assert "naïve" in found.lines
    _, found = edit(PACKING, "priority", seed)
    assert '"""The fuller the better."""' in found.lines
    assert "  # a comment: 1 + 1" in found.lines
    assert 'f"{item + 1:.2f}"' in found.lines or "pass" in found.lines
    before = [line for line in split_lines(PACKING) if "#" in line]
    assert len([line for line in split_lines(found.lines) if "#" in line]) == len(before) - 1


def test_seeds_differ_and_most_edits_are_single() -> None:
    found = [edit(PACKING, "priority", seed)[1] for seed in range(200)]
    assert len({each.lines for each in found}) > 60
    lengths = [len(each.moves) for each in found]
    assert {1, 2, 3} == set(lengths)
    assert lengths.count(1) > 100


def test_numbers_are_scaled_and_sizes_stay_sizes() -> None:
    moves = every(block_of("return x(64, 1, 0.5, 1_000)"), "f")
    integers = {int(move.split()[2]) for move in moves if move.startswith("64 -> ")}
    assert {32, 48, 63, 65, 96, 128} <= integers
    assert not any(move.startswith("1 -> 0") for move in moves)
    assert "1_000 -> 2_000" in moves
    halves = {float(move.split()[2]) for move in moves if move.startswith("0.5 -> ")}
    assert min(halves) == 0.05
    assert 0.9 <= max(halves) < 1


def test_a_number_that_occurs_several_times_is_also_changed_everywhere() -> None:
    text = block_of("return x(64), y(64)")
    found = [edit(text, "f", seed)[1] for seed in range(200)]
    everywhere = [each for each in found if "64 -> 96 (2 times)" in each.moves and len(each.moves) == 1]
    assert everywhere
    assert all("x(96), y(96)" in each.lines for each in everywhere)
    assert any("64 -> 96" in each.moves for each in found)


@pytest.mark.parametrize(
    ("line", "move"),
    [
        ("return x(flag=True)", "flag=True -> flag=False"),
        ("return x + y", "+ -> *"),
        ("return x * y", "* -> +"),
        ("return (x) - (y)", "- -> +"),
        ("return x < y", "< -> <="),
        ("return x == y", "== -> !="),
        ("return x and y", "and -> or"),
        ("return -x", "- -> +"),
        ("return min(x, y)", "min -> max"),
        ("x += y", "+= -> -="),
        ("x += y", "without x += y"),
        ("y.append(x)", "without y.append(x)"),
        ("return math.floor(x)", "floor -> ceil"),
        ("return np.minimum(x, y)", "minimum -> maximum"),
        ("return x.mean(dim=(2, 3))", "mean -> amax"),
        ("return nn.ReLU(inplace=True)", "ReLU -> SiLU"),
        ("return nn.LeakyReLU(0.1)", "LeakyReLU -> GELU"),
        ("return x(act=nn.ReLU)", "ReLU -> Mish"),
        ("return F.relu(x)", "relu -> gelu"),
        ("return F.relu(x + y)", "without F.relu(x + y)"),
        ("return nn.BatchNorm2d(x)", "BatchNorm2d -> InstanceNorm2d"),
        ("return nn.BatchNorm2d(x)", "BatchNorm2d -> Identity"),
        ("return nn.MaxPool2d(2)", "MaxPool2d -> AvgPool2d"),
        ("return nn.AdaptiveAvgPool2d(1)", "AdaptiveAvgPool2d -> AdaptiveMaxPool2d"),
        ("return torch.optim.SGD(x, lr=0.1, momentum=0.9)", "SGD -> AdamW"),
        ("return nn.Sequential(nn.ReLU(), x(1))", "without x(1)"),
        ("return Relu(x)", "Relu -> elu"),
    ],
)
def test_every_kind_of_edit_is_made(line: str, move: str) -> None:
    head = (
        "import math\nimport numpy as np\nimport torch\nfrom torch import nn\nfrom torch.nn import functional as F\n"
        "from torch.nn.functional import relu as Relu, elu\n"
    )
    assert move in every(block_of(line, head=head), "f")


def test_arguments_that_the_other_one_lacks_are_left_out() -> None:
    head = "import torch\nfrom torch import nn\n"
    text = block_of("return torch.optim.SGD(x, lr=0.1, momentum=0.9, nesterov=y)", head=head)
    lines = {each.lines for each in (edit(text, "f", seed)[1] for seed in range(300)) if "SGD -> AdamW" in each.moves}
    assert any("AdamW(x, lr=" in each and "momentum" not in each for each in lines)
    text = block_of("return nn.LeakyReLU(0.1), nn.BatchNorm2d(8, momentum=0.2)", head=head)
    written = "".join(edit(text, "f", seed)[1].lines for seed in range(300))
    assert "nn.SiLU()" in written
    assert "nn.InstanceNorm2d(8, momentum=0.2)" in written
    assert "nn.Identity()" in written


def test_names_that_mean_something_else_are_left_alone() -> None:
    assert every(block_of("return nn.ReLU(x, 5)", head="import other as nn\n"), "f") >= {"5 -> 10"}
    assert not any("ReLU" in move for move in every(block_of("return nn.ReLU(x, 5)", head="import other as nn\n"), "f"))
    assert not any("->" in move and "+" in move for move in every(block_of('return "a" + x(5)'), "f"))


def test_where_there_is_nothing_to_edit_it_says_so() -> None:
    text = 'def f(x: "int" = None) -> dict[str, 3]:\n    """One."""\n    return x\n'
    ast.parse(text)
    assert edited(text, 1, 3, np.random.default_rng(0)) is None


def test_a_block_in_the_middle_of_a_body_is_edited_where_it_stands() -> None:
    text = "def f(x):\n    y = {\n        'a': 4,\n    }\n    if x:\n        y = 7\n    return y\n"
    for seed in range(40):
        found = edited(text, 3, 3, np.random.default_rng(seed))
        assert found is not None
        assert found.lines.startswith("        'a': ")
        assert found.lines != "        'a': 4,\n"
