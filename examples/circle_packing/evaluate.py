"""How a packing of 26 circles in the unit square is scored: sum of the radii, proven, and size of the program.

Numbers of the program are taken as the exact fractions that they are. All radii are multiplied with the largest
factor up to 1, rounded down, at which no circle overlaps another or leaves the square; what is scored is that packing,
checked once more without any tolerance. An overlap of one unit in the last place costs one such unit and no more, a
careless one costs what it is worth, and nothing is gained by claiming more than there is.
"""

import math
import operator
from fractions import Fraction

import numpy as np
from numpy.random import default_rng
from numpy.random import seed as seed_all

from guided_evolution import programs

COUNT, STEPS, CHECK_STEPS = 26, 3000, 3
IMPORTS = ("collections", "functools", "heapq", "itertools", "math", "numpy")
SCALE = 1 << 64
"""The factor is a multiple of 1 / SCALE."""
LOOSE = Fraction(1, 1000)


def check(program):
    """Packs with a few steps; the size is known then."""
    code = programs.read(program, IMPORTS)
    packing_of(code, steps=CHECK_STEPS, seed=0)
    return {"size": code.size}


def evaluate(program, context):
    """Packs once; the same program and seed give the same packing."""
    code = programs.read(program, IMPORTS)
    centres, radii = packing_of(code, STEPS, context.seed)
    scaled, factor, limiting = shrunk(centres, radii)
    return {
        "sum_radii": at_most(sum(scaled)),
        "size": code.size,
        "shrunk_by": float(1 - factor),
        "smallest": float(min(scaled)),
        "largest": float(max(scaled)),
        "feedback": feedback(centres, scaled, factor, limiting),
    }


def packing_of(code, steps, seed):
    """The program's centres and radii as exact fractions.

    Raises:
        TypeError, ValueError: When they are no finite numbers, of another shape, or can't be circles of the square.
    """
    module = code.load()
    programs.require(module, "pack")
    seed_all(seed)  # for programs that draw from it against the rules
    with np.errstate(all="ignore"):
        answer = module.pack(COUNT, steps, default_rng(seed))
    if not isinstance(answer, tuple | list) or len(answer) != 2:
        raise TypeError(f"pack returned a {type(answer).__name__}, expected the pair (centres, radii)")
    centres, radii = numbers("centres", answer[0], (COUNT, 2)), numbers("radii", answer[1], (COUNT,))
    for number, ((x, y), radius) in enumerate(zip(centres, radii, strict=True)):
        if not (0 < x < 1 and 0 < y < 1):
            raise ValueError(f"the centre of circle {number}, ({x:g}, {y:g}), is not inside of the square")
        if radius <= 0:
            raise ValueError(f"the radius of circle {number} is {radius:g}, and has to be above 0")
    exact = [(Fraction(x), Fraction(y)) for x, y in centres]
    if len(set(exact)) < COUNT:
        raise ValueError("two circles have the same centre")
    return exact, [Fraction(radius) for radius in radii]


def numbers(name, value, shape):
    """A copy of an array as plain floats, of this shape and finite."""
    try:
        array = np.array(value, dtype=np.float64, subok=False)
    except (TypeError, ValueError) as error:
        raise TypeError(f"the {name} are a {type(value).__name__} that is no array of numbers") from error
    if array.shape != shape:
        raise ValueError(f"the {name} have the shape {array.shape}, expected {shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"the {name} hold a number that is not finite")
    return array.tolist()


def shrunk(centres, radii):
    """The radii times the largest factor up to 1 that makes them a packing; the factor, and what limits it.

    Args:
        centres: Pairs of fractions inside of the unit square, all different.
        radii: Positive fractions.
    """
    factor, limiting = Fraction(1), ""
    for number, ((x, y), radius) in enumerate(zip(centres, radii, strict=True)):
        room = min(x, y, 1 - x, 1 - y)
        if factor * radius > room:
            factor, limiting = floor(room / radius), f"circle {number} leaves the square"
    for one, other, square, reach in pairs(centres, radii):
        if factor * factor * reach * reach > square:
            factor = floor_root(square / (reach * reach))
            limiting = f"circles {one} and {other} overlap"
    scaled = [factor * radius for radius in radii]
    if fault := violation(centres, scaled):
        raise ArithmeticError(f"the shrunk packing is not valid: {fault}")
    if not factor:
        raise ValueError(f"nothing is left of the packing: {limiting} by far")
    return scaled, factor, limiting


def violation(centres, radii):
    """What keeps circles from being a packing of the unit square, found without rounding; empty when nothing does."""
    for number, ((x, y), radius) in enumerate(zip(centres, radii, strict=True)):
        if radius > min(x, y, 1 - x, 1 - y):
            return f"circle {number} leaves the square"
    for one, other, square, reach in pairs(centres, radii):
        if reach * reach > square:
            return f"circles {one} and {other} overlap"
    return ""


def pairs(centres, radii):
    """Each pair of circles: their numbers, the square of their distance, and the sum of their radii."""
    for one in range(len(centres)):
        for other in range(one):
            across, up = map(operator.sub, centres[one], centres[other])
            yield other, one, across * across + up * up, radii[one] + radii[other]


def floor(value):
    """The largest multiple of 1 / SCALE that is not above a fraction."""
    return Fraction(math.floor(value * SCALE), SCALE)


def floor_root(value):
    """The largest multiple of 1 / SCALE whose square is not above a fraction."""
    return Fraction(math.isqrt(math.floor(value * SCALE * SCALE)), SCALE)


def at_most(value):
    """The nearest float that is not above a fraction."""
    near = float(value)
    return near if Fraction(near) <= value else math.nextafter(near, -math.inf)


def feedback(centres, radii, factor, limiting):
    """What made the packing shrink, and which circles touch nothing and could grow."""
    parts = []
    if limiting and 1 - factor > Fraction(1, 10**9):
        parts.append(f"All radii were multiplied by {float(factor):.4f}, because {limiting}.")
    slack = [min(x, y, 1 - x, 1 - y) - radius for (x, y), radius in zip(centres, radii, strict=True)]
    for one, other, square, reach in pairs(centres, radii):
        gap = Fraction(math.sqrt(square)) - reach
        slack[one], slack[other] = min(slack[one], gap), min(slack[other], gap)
    loose = [str(number) for number, gap in enumerate(slack) if gap > LOOSE]
    if loose:
        parts.append(f"{len(loose)} of {len(radii)} circles touch nothing and could grow: {', '.join(loose)}.")
    smallest = min(range(len(radii)), key=radii.__getitem__)
    x, y = map(float, centres[smallest])
    parts.append(f"The smallest radius is {float(radii[smallest]):.4f}, of the circle at ({x:.2f}, {y:.2f});")
    parts.append(f"the largest is {float(max(radii)):.4f}.")
    return " ".join(parts)
