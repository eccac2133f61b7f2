"""How an online bin-packing heuristic is scored: bins above the lower bound in percent, and size of the program.

The instances are drawn here, after the two families that FunSearch was measured on (Romera-Paredes et al., Nature,
2024): sizes uniform on 20 to 100 with capacity 150, as the sets "u" of Beasley's OR-Library, and sizes of a Weibull
distribution (shape 3, scale 45) with capacity 100. An item is drawn when the one before it has been placed, so there
is nothing to look ahead at.
"""

import numpy as np
from numpy.random import default_rng

from guided_evolution import programs

IMPORTS = ("math", "numpy")
# Class of instances: capacity, items of one instance, instances of `evaluate` and of `test`.
CLASSES = {"uniform": (150, 500, 16, 60), "weibull": (100, 2000, 4, 15)}
NUMBERS = {"uniform": 1, "weibull": 2}
EVALUATE, TEST, CHECK = 1, 2, 3


def check(program):
    """Packs a few dozen items of each class; the size is known then."""
    code = programs.read(program, IMPORTS)
    for name in CLASSES:
        pack(heuristic(code), name, rng_of(CHECK, name, 0), items=60)
    return {"size": code.size}


def evaluate(program, context):
    """Packs the validation instances."""
    return score(program, EVALUATE)


def test(program, context):
    """Packs other instances of the same classes, more of them, which nothing was selected on."""
    return score(program, TEST)


def score(program, stage):
    code = programs.read(program, IMPORTS)
    results = {
        name: [pack(heuristic(code), name, rng_of(stage, name, number)) for number in range(counts[stage - EVALUATE])]
        for name, (_, _, *counts) in CLASSES.items()
    }
    excess = {name: float(np.mean([each["excess"] for each in found])) for name, found in results.items()}
    return {
        "excess": sum(excess.values()) / len(excess),
        "size": code.size,
        **{f"excess_{name}": value for name, value in excess.items()},
        "feedback": feedback(excess, results),
    }


def heuristic(code):
    """The program's `priority`, of a copy that remembers no other instance."""
    module = code.load()
    programs.require(module, "priority")
    return module.priority


def rng_of(stage, name, number):
    return default_rng([stage, NUMBERS[name], number])


def draw(name, rng):
    """The next item of an instance, from 1 to the capacity."""
    if name == "uniform":
        return int(rng.integers(20, 101))
    return int(np.clip(np.rint(45 * rng.weibull(3)), 1, 100))


def pack(priority, name, rng, items=None):
    """Packs one instance, and gives its excess over the lower bound in percent and the gaps that were left."""
    capacity, usual, *_ = CLASSES[name]
    free, seen = np.zeros(0, np.int64), []
    for _ in range(items or usual):
        item = draw(name, rng)
        seen.append(item)
        fits = np.flatnonzero(free >= item)
        # a copy: what the program does to it changes nothing here
        chosen = choose(priority, item, np.append(free[fits], capacity), capacity)
        if chosen == len(fits):
            free = np.append(free, capacity - item)
        else:
            free[fits[chosen]] -= item
    bound = lower_bound(seen, capacity)
    gaps = free[free < min(seen)]
    return {
        "bins": len(free),
        "bound": bound,
        "excess": 100 * (len(free) - bound) / bound,
        "too_small": int(gaps.sum()),
        "wasted": int(free.sum()),
    }


def choose(priority, item, bins, capacity):
    """The position of the bin with the highest priority, the first one of equals.

    An infinite priority is an answer ("always here", "never here"), as `1 / (bins - item)` gives for a perfect fit.
    """
    count = len(bins)
    with np.errstate(all="ignore"):
        answer = priority(item, bins, capacity)
    if answer is None:
        raise TypeError("priority returned nothing (None)")
    try:
        values = np.array(answer, dtype=np.float64, subok=False)
    except (TypeError, ValueError) as error:
        raise TypeError(f"priority returned a {type(answer).__name__} that is no array of numbers") from error
    if values.shape != (count,):
        shape = "x".join(map(str, values.shape)) or "one number"
        raise ValueError(f"priority returned {shape} for {count} bins, expected an array of length {count}")
    if np.isnan(values).any():
        raise ValueError(f"priority returned NaN for an item of {item} and a bin with {bins_text(bins, values)} free")
    return int(np.argmax(values))


def bins_text(bins, values):
    place = int(np.flatnonzero(np.isnan(values))[0])
    return str(bins[place]) if np.shape(bins) == np.shape(values) else "some space"


def lower_bound(items, capacity):
    """Bins that any packing needs: the bound L2 of Martello and Toth (1990), never below the sum over the capacity."""
    sizes = np.sort(np.asarray(items, np.int64))
    best = -(-int(sizes.sum()) // capacity)
    for small in np.unique(sizes[2 * sizes <= capacity]):
        huge = int((sizes > capacity - small).sum())
        large = sizes[(sizes <= capacity - small) & (2 * sizes > capacity)]
        rest = int(sizes[(sizes >= small) & (2 * sizes <= capacity)].sum())
        room = len(large) * capacity - int(large.sum())
        best = max(best, huge + len(large) + max(0, -(-(rest - room) // capacity)))
    return max(best, int((2 * sizes > capacity).sum()))


def feedback(excess, results):
    """Which class is worse, and how much of the wasted space lies in gaps that no item fits into."""
    worst = max(excess, key=excess.get)
    parts = [f"{name} {value:.2f} %" for name, value in excess.items()]
    wasted = sum(each["wasted"] for each in results[worst])
    small = sum(each["too_small"] for each in results[worst])
    share = 100 * small / wasted if wasted else 0.0
    return (
        f"Bins above the lower bound: {', '.join(parts)}. Worst on {worst}: {share:.0f} % of the space it wastes lies "
        "in gaps smaller than every item."
    )
