"""How often the best test of one column finds a change, at a column's share of the report's level.

Each is the most powerful test for its change, told which column it is and what changes there, at a
level of 1% over twenty columns: a bound for every report that keeps 1% and does not know (but for a
third of a point that a likelihood ratio over all columns at once would add). A baseline's own noise
counts, as it does for any test.
"""

import numpy as np
from scipy import stats

LEVEL = 0.01 / 20


def location(sigmas: float, n: int, m: int) -> float:
    """Two-sided z-test of a normal's mean, its deviation known."""
    z = sigmas / np.sqrt(1 / n + 1 / m)
    far = stats.norm.isf(LEVEL / 2)
    return float(stats.norm.sf(far - z) + stats.norm.cdf(-far - z))


def variance(ratio: float, n: int, m: int) -> float:
    """F-test of a normal's variance, told that it grows."""
    return float(stats.f.sf(stats.f.isf(LEVEL, n - 1, m - 1) / ratio, n - 1, m - 1))


def rate(before: float, after: float, n: int, m: int) -> float:
    """Exact test of a binomial rate, told which category it is and that it grows.

    The baseline's noise is that of a window smaller by n * m / (n + m) over n.
    """
    rows = round(n * m / (n + m))
    return float(stats.binom.sf(stats.binom.isf(LEVEL, rows, before), rows, after))


def correlation(before: float, after: float, n: int, m: int) -> float:
    """Two-sided test of Fisher's z, told which pair it is."""
    z = abs(np.arctanh(after) - np.arctanh(before)) / np.sqrt(1 / (n - 3) + 1 / (m - 3))
    return float(stats.norm.sf(stats.norm.isf(LEVEL / 2) - z))
