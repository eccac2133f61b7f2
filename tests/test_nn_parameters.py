"""The honest count: no weight hides from it, and none is counted twice."""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from guided_evolution.nn import loading, parameters

HIDDEN = 1000
GLOBAL_WEIGHT = torch.zeros(HIDDEN)
DEFAULT_WEIGHT = torch.zeros(HIDDEN)
UNUSED_WEIGHT = torch.zeros(7)


class Base(nn.Module):
    """Holds 12 numbers for all to see."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


class InBuffer(Base):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("hidden", torch.zeros(HIDDEN))


class InAttribute(Base):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = torch.zeros(HIDDEN)


class InNestedContainers(Base):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = [{"a": (torch.zeros(HIDDEN // 2),)}, {torch.zeros(HIDDEN // 2)}]


class Plain:
    """No module at all."""


class InPlainObject(Base):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = Plain()
        self.hidden.deep = Plain()
        self.hidden.deep.weight = torch.zeros(HIDDEN)


class Slotted:
    __slots__ = ("weight",)

    def __init__(self) -> None:
        self.weight = torch.zeros(HIDDEN)


class InSlot(Base):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = Slotted()


class InUnregisteredModule(Base):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = [nn.Linear(HIDDEN, 1, bias=False)]


class InClosure(Base):
    def __init__(self) -> None:
        super().__init__()
        weight = torch.zeros(HIDDEN)
        self.hidden = lambda x: x + weight


class InLambdaDefault(Base):
    def __init__(self) -> None:
        super().__init__()
        weight = torch.zeros(HIDDEN)
        self.hidden = lambda x, weight=weight: x + weight


class InForwardDefault(Base):
    def forward(self, x: Tensor, *, weight: Tensor = DEFAULT_WEIGHT) -> Tensor:
        return x + weight.sum()


class InPartial(Base):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = functools.partial(torch.add, torch.zeros(HIDDEN))


class InClassAttribute(Base):
    weight = torch.zeros(HIDDEN)


class InGlobal(Base):
    def forward(self, x: Tensor) -> Tensor:
        return x + GLOBAL_WEIGHT.sum()


def helper(x: Tensor) -> Tensor:
    return next(x + GLOBAL_WEIGHT.sum() for _ in range(1))


class InGlobalOfHelper(Base):
    def forward(self, x: Tensor) -> Tensor:
        return helper(x)


@functools.cache
def cached_weight() -> Tensor:
    return torch.zeros(HIDDEN)


class InCache(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + cached_weight().sum()


class InDecoratedForward(Base):
    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return x + GLOBAL_WEIGHT.sum()


class InArray(Base):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = np.zeros((2, HIDDEN))[1:, ::2]

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


class InParameterAttribute(Base):
    def __init__(self) -> None:
        super().__init__()
        self.linear.weight.hidden = torch.zeros(HIDDEN)


class InRunningMean(Base):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(4, affine=False)
        self.norm.running_mean = torch.zeros(HIDDEN)


class MadeAtFirstUse(Base):
    def forward(self, x: Tensor) -> Tensor:
        if not hasattr(self, "hidden"):
            self.hidden = torch.zeros(HIDDEN)
        return self.linear(x) + self.hidden.sum()


@pytest.mark.parametrize(
    "kind",
    [
        InBuffer,
        InAttribute,
        InNestedContainers,
        InPlainObject,
        InSlot,
        InUnregisteredModule,
        InClosure,
        InLambdaDefault,
        InForwardDefault,
        InPartial,
        InClassAttribute,
        InGlobal,
        InGlobalOfHelper,
        InCache,
        InDecoratedForward,
        InParameterAttribute,
        InRunningMean,
        MadeAtFirstUse,
    ],
)
def test_fault_13_parameter_count_sees_hidden_tensors(kind: Callable[[], nn.Module]) -> None:
    cached_weight.cache_clear()
    assert parameters.count(kind(), torch.zeros(2, 3)) == 12 + HIDDEN


def test_fault_13_parameter_count_sees_numpy_arrays_with_what_they_are_views_of() -> None:
    assert parameters.count(InArray()) == 12 + 2 * HIDDEN


def test_fault_13_parameter_count_sees_globals_of_a_candidates_other_file(tmp_path: Path) -> None:
    (tmp_path / "part.py").write_text("import torch\nWEIGHTS = {'a': torch.zeros(500)}\n")
    (tmp_path / "seed.py").write_text(
        "import part\nfrom torch import nn\n"
        "class Net(nn.Module):\n    def forward(self, x):\n        return x + part.WEIGHTS['a'].sum()\n"
    )
    model = loading.load_program(tmp_path / "seed.py").Net()
    assert parameters.count(model) == 500


def test_globals_that_nothing_uses_do_not_count() -> None:
    assert parameters.count(Base()) == 12
    assert UNUSED_WEIGHT.numel() == 7


def test_module_shared_by_two_layers_counts_once() -> None:
    shared = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    model = nn.Sequential(shared, nn.ReLU(), shared)
    assert parameters.count(model) == 4 * 4 + 4 + 8


def test_tied_weights_and_views_of_one_memory_count_once() -> None:
    model = nn.ModuleList([nn.Linear(5, 5, bias=False), nn.Linear(5, 5, bias=False)])
    assert parameters.count(model) == 50
    model[1].weight = model[0].weight
    assert parameters.count(model) == 25
    model[1].weight = nn.Parameter(model[0].weight.detach().T)
    assert parameters.count(model) == 25


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 30), st.integers(0, 5), st.integers(0, 5), st.integers(0, 3), st.integers(0, 3)),
        max_size=4,
    )
)
def test_overlapping_windows_count_each_element_once(windows: list[tuple[int, int, int, int, int]]) -> None:
    memory = torch.zeros(60)
    model = nn.Module()
    model.windows = [memory.as_strided((h, w), (s, t), o) for o, h, w, s, t in windows]
    used = {o + i * s + j * t for o, h, w, s, t in windows for i in range(h) for j in range(w)}
    assert parameters.count(model) == len(used)


def test_running_statistics_are_free_and_frozen_parameters_are_not() -> None:
    model = nn.Sequential(nn.BatchNorm2d(6), nn.InstanceNorm2d(3, track_running_stats=True))
    assert parameters.count(model) == 12
    model.requires_grad_(False)
    assert parameters.count(model) == 12


def test_complex_numbers_count_as_two() -> None:
    model = nn.Module()
    model.weight = nn.Parameter(torch.zeros(5, dtype=torch.complex64))
    assert parameters.count(model) == 10


def test_lazy_layers_need_an_example() -> None:
    model = nn.LazyLinear(4)
    with pytest.raises(ValueError, match="pass an example"):
        parameters.count(model)
    assert parameters.count(model, torch.zeros(2, 3)) == 16


def test_count_restores_the_mode_and_leaves_statistics_alone() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3))
    model.train()
    parameters.count(model, torch.ones(4, 3))
    assert model.training
    assert torch.equal(model[0].running_mean, torch.zeros(3))


def test_macs_of_a_convolution_and_a_matrix_product() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, groups=1), nn.Flatten(), nn.Linear(8 * 16, 5))
    assert parameters.macs(model, torch.zeros(2, 3, 4, 4)) == 2 * (8 * 3 * 9 * 16 + 8 * 16 * 5)
