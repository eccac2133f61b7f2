"""Packs 26 circles of any size into the unit square, by trying small moves of their centres."""

import numpy as np


def layout(count, rng):
    """The centres to begin with: an array of shape (count, 2) with values from 0 to 1."""
    side = int(np.ceil(np.sqrt(count)))
    places = (np.arange(side) + 0.5) / side
    grid = np.array([(x, y) for x in places for y in places])
    return grid[:count]


def radii(centres):
    """Radii for these centres, so that no circle overlaps another or leaves the square: one for each centre."""
    walls = np.minimum(centres, 1 - centres).min(axis=1)
    apart = np.linalg.norm(centres[:, None] - centres[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    return np.minimum(walls, apart.min(axis=1) / 2)


def step_size(progress):
    """How far a centre moves; progress goes from 0 at the beginning to 1 at the end."""
    return 0.05


def move(centres, size, rng):
    """New centres near the old ones, within the square: an array like `centres`."""
    moved = centres.copy()
    chosen = rng.integers(len(centres))
    moved[chosen] += rng.normal(size=2) * size
    return np.clip(moved, 0.01, 0.99)


def pack(count, steps, rng):
    """The packing: the centres, of shape (count, 2), and the radii, of shape (count,)."""
    centres = layout(count, rng)
    best = radii(centres)
    for step in range(steps):
        moved = move(centres, step_size(step / steps), rng)
        found = radii(moved)
        if found.sum() > best.sum():
            centres, best = moved, found
    return centres, best
