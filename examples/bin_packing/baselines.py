"""Measures first fit, best fit and other plain heuristics on the instances of this problem: `python baselines.py`."""

import numpy as np
from evaluate import CLASSES, EVALUATE, TEST, pack, rng_of


def first_fit(item, bins, capacity):
    """The oldest bin that the item fits into."""
    return -np.arange(len(bins))


def best_fit(item, bins, capacity):
    """The bin with the least space left."""
    return item - bins


def worst_fit(item, bins, capacity):
    """The open bin with the most space left."""
    return np.where(bins == capacity, -1, bins)


BASELINES = (first_fit, best_fit, worst_fit)


def excess(priority, stage):
    """The mean excess over the lower bound in percent, by class of instances."""
    found = {}
    for name, (_, _, *counts) in CLASSES.items():
        packed = [pack(priority, name, rng_of(stage, name, number)) for number in range(counts[stage - EVALUATE])]
        found[name] = float(np.mean([each["excess"] for each in packed]))
    return found


if __name__ == "__main__":
    for priority in BASELINES:
        for stage, title in ((EVALUATE, "validation"), (TEST, "test")):
            found = excess(priority, stage)
            shown = ", ".join(f"{name} {value:.2f} %" for name, value in found.items())
            print(f"{priority.__name__}, {title}: {sum(found.values()) / len(found):.2f} % ({shown})")
