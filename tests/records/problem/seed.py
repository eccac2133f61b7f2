"""Three numbers that should come close to 7, 11 and 13."""

SCALE = 1


def first():
    """Gives the first number."""
    return 1 * SCALE


def second():
    """Gives the second number."""
    return 2 * SCALE


def third():
    """Gives the third number."""
    return 3 * SCALE
