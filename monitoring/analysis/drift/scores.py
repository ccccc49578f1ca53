"""Scores of bins: what turns counts into means, and means into tests."""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import special

Floats = NDArray[np.float64]

COMPONENTS: Final = 4
# Scores of the association matrix are whole fifths of a sigma up to 3, so that sums of products
# are integers (exact in any order); the rounding costs 0.3% of the variance.
STEP: Final = 0.2
MAX_STEPS: Final = 15
# What is left of a polynomial after the others is noise of one rare bin below this.
DEGENERATE: Final = 1e-3


def normal_scores(shares: Floats) -> Floats:
    """Mean of a standard normal within each bin, bins ordered and holding ``shares`` of it.

    An empty bin takes the value at its place; an empty outer bin that of its neighbour. No mass at
    all gives zeros.

    >>> normal_scores(np.array([0.5, 0.0, 0.5])).round(3)
    array([-0.798,  0.   ,  0.798])
    """
    total = shares.sum()
    if total <= 0:
        return np.zeros(len(shares))
    upper = np.minimum(np.cumsum(shares / total), 1.0)
    lower = np.concatenate([[0.0], upper[:-1]])
    density = np.exp(-0.5 * special.ndtri(np.stack([lower, upper])) ** 2) / np.sqrt(2 * np.pi)
    filled = shares > 0
    scores = np.empty(len(shares))
    scores[filled] = (density[0] - density[1])[filled] / (upper - lower)[filled]
    first, last = scores[filled][0], scores[filled][-1]
    place = special.ndtri(lower[~filled])
    scores[~filled] = np.clip(place, first, last)
    return scores


def whole_scores(shares: Floats) -> NDArray[np.float32]:
    """Normal scores in whole steps, for the association matrix."""
    steps = np.rint(normal_scores(shares) / STEP)
    return np.clip(steps, -MAX_STEPS, MAX_STEPS).astype(np.float32)


def smooth_components(shares: Floats) -> Floats:
    """Orthonormal functions of the bin, mean 0 and variance 1 under ``shares``: (K, bins).

    Neyman's smooth test, with normal scores first (as good as the t-test for a normal's location,
    never worse otherwise: Chernoff and Savage 1958), their square second, and the third and fourth
    power of the rank for shape. Fewer than four where the bins carry fewer.
    """
    normal = normal_scores(shares)
    weight = shares / max(shares.sum(), 1e-300)
    rank = 2 * (np.cumsum(weight) - weight / 2) - 1
    functions = [np.ones(len(shares)), normal, normal**2, rank**3, rank**4]
    basis: list[Floats] = []
    for function in functions[: COMPONENTS + 1]:
        size = np.sqrt((weight * function**2).sum())
        rest = function.copy()
        for _ in range(2):  # Gram-Schmidt twice is enough (Kahan)
            for known in basis:
                rest -= (weight * rest * known).sum() * known
        left = np.sqrt((weight * rest**2).sum())
        if left > DEGENERATE * max(size, 1e-12):
            basis.append(rest / left)
    return np.array(basis[1:]).reshape(-1, len(shares))
