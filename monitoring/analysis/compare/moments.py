"""What has to be remembered of an arm: sums over its units. Constant size, exactly mergeable.

A *unit* is what the traffic was split by (a request, a session); its rows belong together. The mean
of an arm is a ratio of two sums, values over weights, and its variance is that of the units'
linearised residuals: right for clustered rows and for weighted ones (a stored row stands for
``weight`` answered rows).
"""

import math
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# The arms' common variance counts as so many units of each arm: a small arm of a rare event that
# has not seen one yet would else claim to know its rate exactly.
PRIOR_UNITS: Final = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """Sums over units of value sums ``x`` and weight sums ``n``, and of their products."""

    units: int = 0
    rows: int = 0
    # Whole numbers stay whole, however long: the live windows' sums are exact.
    x: float = 0
    n: float = 0
    xx: float = 0
    xn: float = 0
    nn: float = 0
    xxx: float = 0
    xxn: float = 0
    xnn: float = 0
    nnn: float = 0

    def __add__(self, other: "Moments") -> "Moments":
        """Join two disjoint sets of units."""
        return Moments(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in _SUMS})

    @property
    def mean(self) -> float:
        """Weighted mean per row; NaN without rows."""
        return self.x / self.n if self.n > 0.0 else math.nan

    @property
    def squares(self) -> float:
        """Sum over units of (x - mean n)^2, per squared mean weight of a unit."""
        mean = self.mean
        total = self.xx - 2 * mean * self.xn + mean**2 * self.nn
        return max(0.0, total) * (self.units / self.n) ** 2

    @property
    def cubes(self) -> float:
        """Sum over units of (x - mean n)^3, per cubed mean weight of a unit."""
        mean = self.mean
        total = self.xxx - 3 * mean * self.xxn + 3 * mean**2 * self.xnn - mean**3 * self.nnn
        return total * (self.units / self.n) ** 3


_SUMS: Final = fields(Moments)


def unit_moments(values: Floats, weights: Floats, units: NDArray[Any]) -> Moments:
    """Sum up rows: ``values`` and ``weights`` per row, ``units`` the ids that rows share."""
    if len(values) == 0:
        return Moments()
    _, codes = np.unique(units, return_inverse=True)
    x = np.bincount(codes, weights=values * weights)
    n = np.bincount(codes, weights=weights)
    return Moments(
        units=len(n),
        rows=len(values),
        x=float(x.sum()),
        n=float(n.sum()),
        xx=float(x @ x),
        xn=float(x @ n),
        nn=float(n @ n),
        xxx=float(x @ (x * x)),
        xxn=float(x @ (x * n)),
        xnn=float(x @ (n * n)),
        nnn=float(n @ (n * n)),
    )
