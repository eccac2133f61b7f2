"""How large a model really is: no weight escapes the count by not being registered."""

from __future__ import annotations

import gc
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parameter import is_lazy


def count(model: nn.Module, example: Tensor | None = None) -> int:
    """Counts every number that a model holds in tensors or arrays and could have learned.

    These count, each element of memory once however often it is used: parameters, frozen ones included;
    buffers, except a normalisation layer's running statistics; tensors and numpy arrays that a module or
    anything it holds keeps in attributes, containers, closures, default arguments, class attributes or
    caches; globals of the candidate's own modules that its functions name. A complex number counts as two.

    A tensor made afresh in `forward` from constants leaves nothing to find and is out of reach.

    Args:
        model: The model. A module that keeps its last activations pays for them.
        example: A batch that is run through the model first, without gradients and in evaluation mode, so
            that what is only made at the first use is there to be counted.

    Returns:
        The number of elements; 518,230 for ExquisiteNetV2 with 3 channels and 10 classes.

    Raises:
        ValueError: If a lazy layer hasn't seen a batch yet.
    """
    if example is not None:
        training = model.training
        model.eval()
        with torch.no_grad():
            model(example)
        model.train(training)
    found = list(_reachable(model))
    tensors = [thing for thing in found if isinstance(thing, Tensor)]
    arrays = {id(root): root for root in (_root(thing) for thing in found if isinstance(thing, np.ndarray))}
    return _distinct(tensors) + sum(array.size * (1 + np.iscomplexobj(array)) for array in arrays.values())


def _distinct(tensors: list[Tensor]) -> int:
    """Counts the elements of memory that the tensors use, each one once."""
    total = 0
    memories: dict[tuple[int, int], Tensor] = {}
    for tensor in tensors:
        if is_lazy(tensor):
            raise ValueError("a lazy layer has no size before its first batch: pass an example to count")
        if tensor.layout is not torch.strided or tensor.device.type == "meta":
            total += tensor.numel()
            continue
        storage = tensor.untyped_storage()
        size = tensor.element_size()
        used = memories.setdefault((storage.data_ptr(), size), torch.zeros(storage.nbytes() // size, dtype=torch.uint8))
        window = used.as_strided(tensor.size(), tensor.stride(), tensor.storage_offset())
        window.fill_(2 if tensor.is_complex() else 1)
    return total + sum(int(used.sum(dtype=torch.int64)) for used in memories.values())


def _root(array: NDArray[Any]) -> NDArray[Any]:
    """Returns the array that holds the memory of a view."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def macs(model: nn.Module, example: Tensor) -> int:
    """Counts the multiply-accumulates of convolutions and matrix products for one batch.

    Args:
        model: Run once without gradients and in evaluation mode; its mode is restored.
        example: One batch, N x C x H x W; the count is for all N.

    Returns:
        The count; 1,754,496 for ExquisiteNetV2 on one image of 3 x 32 x 32.
    """
    from torch.utils.flop_counter import FlopCounterMode

    training = model.training
    model.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(example)
    model.train(training)
    return int(counter.get_total_flops()) // 2


def _reachable(model: nn.Module) -> Iterator[Tensor | NDArray[Any]]:
    """Yields every tensor and every array of numbers that can be reached from the model."""
    waiting: list[Any] = [model]
    # Objects stay referenced here, so that no number in `seen` is used again for another object.
    seen: dict[int, Any] = {}
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen:
            continue
        seen[id(thing)] = thing
        if isinstance(thing, _NormBase):
            seen.update((id(statistic), statistic) for statistic in _statistics(thing))
        if isinstance(thing, Tensor):
            yield thing
            waiting += vars(thing).values()
        elif isinstance(thing, np.ndarray) and thing.dtype.kind in "biufc":
            yield thing
        else:
            waiting += _held_by(thing)


def _statistics(layer: _NormBase) -> Iterator[Tensor]:
    """Yields the running statistics, as far as they have the size that the layer's own class gives them."""
    sizes = {"running_mean": layer.num_features, "running_var": layer.num_features, "num_batches_tracked": 1}
    for name, size in sizes.items():
        statistic = layer._buffers.get(name)
        if statistic is not None and statistic.numel() == size:
            yield statistic


def _held_by(thing: object) -> list[Any]:
    """Returns what an object refers to, stopping where Python's and the libraries' own state begins."""
    if isinstance(thing, FunctionType):
        return _held_by_function(thing)
    if isinstance(thing, ModuleType):
        return list(vars(thing).values()) if _is_own(thing.__name__) else []
    if isinstance(thing, type):
        return [*vars(thing).values(), *thing.__bases__] if _is_own(thing.__module__) else []
    if isinstance(thing, str | bytes | int | float | complex | CodeType | FrameType):
        return []
    # The collector knows every reference of every kind of object: attributes, slots, cells, caches, partials.
    return [*gc.get_referents(thing), type(thing)]


def _held_by_function(function: FunctionType) -> list[Any]:
    held: list[Any] = [function.__defaults__, function.__kwdefaults__, function.__closure__, vars(function)]
    own = _is_own(str(function.__globals__.get("__name__")))
    names = _names(function.__code__) if own else set()
    return held + [value for name, value in function.__globals__.items() if name in names]


def _names(code: CodeType) -> set[str]:
    """The names that a function uses, those of the functions inside it included."""
    nested = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*(_names(inner) for inner in nested))


def _is_own(module_name: str) -> bool:
    """True for a module that is neither Python's nor an installed package: the candidate's."""
    origin = getattr(sys.modules.get(module_name), "__file__", None)
    if module_name in sys.builtin_module_names or module_name in sys.stdlib_module_names:
        return False
    if origin is None:
        return module_name not in sys.modules
    library = Path(sysconfig.get_path("stdlib"))
    return library not in Path(origin).parents and not {"site-packages", "dist-packages"} & set(Path(origin).parts)
