"""Intervals that stay right however often one looks: normal-mixture confidence sequences.

The interval holds at all times at once with probability 1 - alpha, so an experiment may be looked
at daily and stopped when the interval leaves zero. Boundary: Robbins' two-sided normal mixture
(Robbins 1970, "Statistical methods related to the law of the iterated logarithm"), with estimated
variances as in Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas 2024, "Time-uniform central limit
theory and asymptotic confidence sequences". It is asymptotic: early looks lean on the central limit
theorem, which is why ``MIN_UNITS`` are asked for and variances are shrunk (``moments``).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

MIN_UNITS: Final = 100  # per arm; before them an interval is the whole line


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A closed interval; infinite ends where nothing is known yet."""

    low: float
    high: float

    def excludes(self, value: float) -> bool:
        return not self.low <= value <= self.high


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture:
    """A boundary that is narrowest when the data reach the planned size.

    ``alpha`` is the chance that the interval ever misses. The plan must be fixed before the first
    look; a wrong plan costs width, never validity.
    """

    alpha: float

    def __post_init__(self) -> None:
        if not 0.0 < self.alpha < 1.0:
            raise ValueError(f"alpha is {self.alpha}; allowed: above 0, below 1")

    @property
    def tuning(self) -> float:
        """Variance of the mixture at the plan, in units of the estimate's own variance there.

        Solves d(width)/d(tuning) = 0 at the plan; the same paper, eq. 56, to first order.
        """
        doubt = -2.0 * math.log(self.alpha)
        return doubt + math.log1p(doubt)

    def quantile(self, progress: float) -> float:
        """Half the width in standard errors, where ``progress`` is information over the plan's.

        >>> round(Mixture(alpha=0.05).quantile(1.0), 2)
        3.04
        """
        if progress <= 0.0:
            return math.inf
        spread = self.tuning * progress
        return math.sqrt(2 * (1 + 1 / spread) * (math.log1p(spread) / 2 - math.log(self.alpha)))

    def interval(self, estimate: float, standard_error: float, progress: float) -> Interval:
        half = self.quantile(progress) * standard_error
        return Interval(low=estimate - half, high=estimate + half)

    def p_value(self, estimate: float, standard_error: float, progress: float) -> float:
        """Return the smallest alpha whose interval excludes zero; valid at any time of looking.

        The tuning stays that of ``alpha``, so that one path gives one sequence of p-values.
        """
        if standard_error <= 0.0 or progress <= 0.0:
            return 1.0
        spread = self.tuning * progress
        z = estimate / standard_error
        exponent = math.log1p(spread) / 2 - z * z / 2 * spread / (1 + spread)
        return math.exp(min(0.0, exponent))


def rate_interval(rate: float, units: float, alpha: float) -> Interval:
    """Return the interval of a rate that holds at every look, from the first unit on.

    Ville's inequality for Bernoulli likelihoods mixed over a uniform prior (Robbins 1970); valid
    for any values from 0 to 1, of which 0 and 1 vary most (Howard, Ramdas, McAuliffe and Sekhon
    2021, "Time-uniform, nonparametric, nonasymptotic confidence sequences"). ``units`` may be an
    effective number.

    >>> found = rate_interval(0.9, 1_000, 0.05)
    >>> round(found.low, 3), round(found.high, 3)
    (0.862, 0.931)
    """
    hits, misses = rate * units, (1.0 - rate) * units
    mixed = math.lgamma(hits + 1) + math.lgamma(misses + 1) - math.lgamma(units + 2)

    def excluded(value: float) -> bool:
        if not 0.0 < value < 1.0:
            return True
        likely = hits * math.log(value) + misses * math.log1p(-value)
        return mixed - likely >= -math.log(alpha)

    return Interval(
        low=_edge(rate, 0.0, excluded) if rate > 0.0 else 0.0,
        high=_edge(rate, 1.0, excluded) if rate < 1.0 else 1.0,
    )


def _edge(inside: float, outside: float, excluded: Callable[[float], bool]) -> float:
    """Halve the way between a value that is held and one that is excluded."""
    for _ in range(HALVINGS):
        middle = (inside + outside) / 2
        inside, outside = (inside, middle) if excluded(middle) else (middle, outside)
    return outside


HALVINGS: Final = 50
EVERYTHING: Final = Interval(low=-math.inf, high=math.inf)
