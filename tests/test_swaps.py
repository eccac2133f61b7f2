from __future__ import annotations

import importlib
import inspect
import math

import pytest

from guided_evolution.swaps import FAMILIES, TRANSPARENT, kept_arguments


@pytest.mark.parametrize("module", ["torch.nn", "torch.nn.functional", "torch.nn.init", "torch.optim"])
def test_the_signatures_are_those_of_the_library(module: str) -> None:
    library = importlib.import_module(module)
    for family in FAMILIES[module]:
        for name, line in family.items():
            try:
                real = inspect.signature(getattr(library, name)).parameters
            except ValueError:
                continue  # one that is written in C tells nothing
            if name == "Identity":
                continue  # it takes anything
            mine = line.replace("!", "").split()
            shown = [each for each in real if each not in ("args", "kwargs")]
            if shown:
                assert set(mine) <= set(shown) or module == "torch.nn.init", (name, mine, shown)
                assert [each for each in shown if each in mine] == mine, (name, mine, shown)
            required = {each.name for each in real.values() if each.default is each.empty and each.kind < 2}
            assert required <= {each.rstrip("!") for each in line.split() if each.endswith("!")}, name


@pytest.mark.parametrize("module", ["torch", "numpy", "math", "builtins"])
def test_every_name_exists(module: str) -> None:
    library = importlib.import_module(module)
    assert [name for family in FAMILIES[module] for name in family if not hasattr(library, name)] == []


def test_a_function_that_can_be_left_out_gives_the_shape_it_takes() -> None:
    import torch
    from torch.nn import functional

    shape = (2, 4, 8, 8, 8)
    for name in TRANSPARENT - {"dropout1d", "dropout2d"}:
        assert getattr(functional, name)(torch.zeros(shape)).shape == shape, name
    assert math.prod(shape) == 4096


def test_which_arguments_stay() -> None:
    assert kept_arguments("a! b c", "a! b d", 3, []) == (2, ())
    assert kept_arguments("a! b", "a! c", 1, ["b"]) == (1, ())
    assert kept_arguments("a b", "c! b", 1, ["b"]) is None
    assert kept_arguments("", "", 3, ["key"]) == (3, ("key",)), "like `min`, which takes any number"
    assert kept_arguments("a", "b", 3, []) is None
