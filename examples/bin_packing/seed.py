"""Online bin packing: which bin an item goes to. As written it is best fit, the textbook's heuristic."""

import numpy as np


def tightness(left, capacity):
    """The worth of the space `left` in each bin once the item is in: an array of the length of `left`."""
    return -left / capacity


def opening(item, bins, capacity):
    """The worth of opening a new bin, for the bins that are still empty, and 0 for the others: like `bins`."""
    return np.where(bins == capacity, -0.1, 0.0)


def priority(item, bins, capacity):
    """The worth of each bin that the item fits into; the highest gets it: an array of the length of `bins`."""
    return tightness(bins - item, capacity) + opening(item, bins, capacity)
