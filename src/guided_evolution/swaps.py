"""Functions and classes that may stand for one another: what random edits swap, with the arguments that each takes.

A signature is a line of parameter names in their order; those with a "!" must be given. Parameters that no other member
of a family knows are left out where they come last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Family = Mapping[str, str]


def _alike(names: str, signature: str) -> Family:
    return dict.fromkeys(names.split(), signature)


def _each_size(family: Family) -> list[Family]:
    return [{name.replace("*", str(size)): line for name, line in family.items()} for size in (1, 2, 3)]


_MAX_POOL = "kernel_size! stride padding dilation return_indices ceil_mode"
_AVG_POOL = "kernel_size! stride padding ceil_mode count_include_pad"
_NORM = "num_features! eps momentum affine track_running_stats"
_ADAM = "params! lr betas eps weight_decay"

_LAYERS: list[Family] = [
    {
        **_alike("ReLU ReLU6 SELU SiLU Mish Hardswish", "inplace"),
        **_alike("ELU CELU", "alpha inplace"),
        **_alike("Tanh Sigmoid Identity", ""),
        "LeakyReLU": "negative_slope inplace",
        "GELU": "approximate",
        "Softplus": "beta threshold",
    },
    {**_alike("Dropout Dropout1d Dropout2d Dropout3d AlphaDropout", "p inplace"), "Identity": ""},
    *_each_size({"MaxPool*d": _MAX_POOL, "AvgPool*d": _AVG_POOL}),
    *_each_size(_alike("AdaptiveAvgPool*d AdaptiveMaxPool*d", "output_size!")),
    *_each_size({**_alike("BatchNorm*d InstanceNorm*d", _NORM), "Identity": ""}),
]

_FUNCTIONS: list[Family] = [
    {
        **_alike("relu relu6 selu silu mish hardswish", "input! inplace"),
        **_alike("elu celu", "input! alpha inplace"),
        **_alike("gelu tanh sigmoid softplus", "input!"),
        "leaky_relu": "input! negative_slope inplace",
    },
    _alike("dropout alpha_dropout dropout1d dropout2d dropout3d", "input! p training inplace"),
    *_each_size(
        {
            "max_pool*d": "input! kernel_size! stride padding dilation ceil_mode return_indices",
            "avg_pool*d": "input! kernel_size! stride padding ceil_mode count_include_pad",
        }
    ),
    *_each_size(_alike("adaptive_avg_pool*d adaptive_max_pool*d", "input! output_size!")),
]

_OPTIMIZERS: list[Family] = [
    {
        "SGD": "params! lr momentum dampening weight_decay nesterov",
        "RMSprop": "params! lr alpha eps weight_decay momentum centered",
        "Adam": f"{_ADAM} amsgrad",
        "AdamW": f"{_ADAM} amsgrad",
        "NAdam": f"{_ADAM} momentum_decay",
        **_alike("RAdam Adamax", _ADAM),
    }
]

_INITIALS: list[Family] = [
    _alike("kaiming_normal_ kaiming_uniform_", "tensor! a mode nonlinearity"),
    _alike("xavier_normal_ xavier_uniform_ orthogonal_", "tensor! gain"),
    _alike("normal_ trunc_normal_", "tensor! mean std"),
]

_ARRAYS: list[Family] = [
    _alike("minimum maximum", "x1! x2!"),
    _alike("floor ceil rint", "x!"),
    _alike("sqrt cbrt log1p", "x!"),
    _alike("sin cos", "x!"),
    _alike("exp expm1", "x!"),
    *[_alike(names, "a! axis") for names in ("argmin argmax", "min max mean median", "amin amax", "any all")],
]

_JAX = _alike("relu relu6 leaky_relu elu selu gelu silu sigmoid tanh softplus", "x!")

FAMILIES: Mapping[str, Sequence[Family]] = {
    "torch.nn": _LAYERS,
    "torch.nn.functional": _FUNCTIONS,
    "torch.nn.init": _INITIALS,
    "torch.optim": _OPTIMIZERS,
    "torch": [
        _alike("relu selu tanh sigmoid", "input!"),
        _alike("minimum maximum", "input! other!"),
        _alike("floor ceil round", "input!"),
        _alike("sin cos", "input!"),
        _alike("amax amin mean", "input! dim! keepdim"),
        _alike("argmin argmax", "input! dim keepdim"),
    ],
    "numpy": _ARRAYS,
    "jax.numpy": _ARRAYS,
    "jax.nn": [_JAX],
    "flax.linen": [_JAX],
    "math": [
        _alike("floor ceil", "x!"),
        _alike("sqrt cbrt log1p", "x!"),
        _alike("sin cos", "x!"),
        _alike("exp expm1", "x!"),
    ],
    "builtins": [_alike("min max", ""), _alike("any all", "iterable!")],
    # methods of what isn't a module: tensors, mostly
    "": [_alike("mean amax amin", "dim! keepdim"), _alike("argmin argmax", "dim keepdim"), _alike("relu tanh", "")],
}
"""Module to the families in it; methods are under the empty name."""

TRANSPARENT = frozenset({*_FUNCTIONS[0], *_FUNCTIONS[1]})
"""Functions of `torch.nn.functional` whose value has the shape of their first argument: they can be left out."""


def kept_arguments(old: str, new: str, positional: int, keywords: Sequence[str]) -> tuple[int, tuple[str, ...]] | None:
    """Which arguments of a call stay when another member of the family is called; None when it lacks one.

    Args:
        old: The signature that the call was written for, and `new` the other one.
        positional: How many arguments are given by their place.
        keywords: The names of the others.

    Returns:
        How many of the first stay, those that have the same place in both; and the names that both know.
    """
    mine, theirs = (line.replace("!", "").split() for line in (old, new))
    if positional > len(mine):
        # a function like `min`, which takes any number: its family all do
        return (positional, tuple(keywords)) if old == new else None
    kept = 0
    while kept < positional and kept < len(theirs) and mine[kept] == theirs[kept]:
        kept += 1
    names = tuple(name for name in keywords if name in theirs) if old != new else tuple(keywords)
    given = {*theirs[:kept], *names}
    required = {name.rstrip("!") for name in new.split() if name.endswith("!")}
    return (kept, names) if required <= given else None
