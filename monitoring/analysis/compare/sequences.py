"""Intervals that stay right however often one looks: mixture confidence sequences.

The interval holds at all times at once with probability 1 - alpha, so an experiment may be looked
at daily and stopped when the interval leaves zero. Boundary: Robbins' method of mixtures (Robbins
1970, "Statistical methods related to the law of the iterated logarithm"), with estimated variances
as in Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas 2024, "Time-uniform central limit theory and
asymptotic confidence sequences". It is asymptotic: early looks lean on the central limit theorem,
which is why ``MIN_UNITS`` are asked for and variances are shrunk (``moments``).

Any mixture that is fixed beforehand is valid. The usual one, a normal about zero, spends most on
effects too small to be found at the plan. This one lies where the plan looks, on both sides of
zero: it decides a tenth earlier where the plan is right (docs/adr/0007).
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
    """A boundary that is narrowest about when the data reach the planned size.

    ``alpha`` is the chance that the interval ever misses. The plan must be fixed before the first
    look; a wrong plan costs width, never validity.
    """

    alpha: float

    def __post_init__(self) -> None:
        if not 0.0 < self.alpha < 1.0:
            raise ValueError(f"alpha is {self.alpha}; allowed: above 0, below 1")

    @property
    def peak(self) -> float:
        """Centre of the mixture, in standard errors at the plan; its spread there is one.

        The effect whose likelihood ratio is the first to reach 1 / alpha at the plan.
        """
        return math.sqrt(-2.0 * math.log(self.alpha))

    def _log_evidence(self, z: float, progress: float) -> float:
        """Log of the likelihood ratio of N(peak, 1) and N(-peak, 1), half each, against no effect.

        ``z`` is the estimate in standard errors. A martingale without an effect, so by Ville's
        inequality it ever exceeds 1 / alpha with probability alpha at most.
        """
        walk = z * math.sqrt(progress)  # in standard deviations of the plan
        variance = 1.0 + progress
        peak = self.peak
        tilt = abs(peak * walk) / variance
        log_cosh = tilt + math.log1p(math.exp(-2.0 * tilt)) - math.log(2.0)
        quadratic = (walk * walk - peak * peak * progress) / variance
        return (quadratic - math.log(variance)) / 2.0 + log_cosh

    def quantile(self, progress: float) -> float:
        """Half the width in standard errors, where ``progress`` is information over the plan's.

        >>> round(Mixture(alpha=0.05).quantile(1.0), 2)
        2.86
        """
        if progress <= 0.0:
            return math.inf
        wanted = -math.log(self.alpha)
        variance = 1.0 + progress
        # Enough without the last term, which is never negative.
        enough = 2.0 * wanted + math.log(variance) + self.peak**2 * progress / variance
        far = math.sqrt(enough * variance / progress)
        return _edge(0.0, far, lambda z: self._log_evidence(z, progress) >= wanted)

    def interval(self, estimate: float, standard_error: float, progress: float) -> Interval:
        half = self.quantile(progress) * standard_error
        return Interval(low=estimate - half, high=estimate + half)

    def p_value(self, estimate: float, standard_error: float, progress: float) -> float:
        """Return the smallest alpha whose interval excludes zero; valid at any time of looking.

        The mixture stays that of ``alpha``, so that one path gives one sequence of p-values.
        """
        if standard_error <= 0.0 or progress <= 0.0:
            return 1.0
        return math.exp(min(0.0, -self._log_evidence(estimate / standard_error, progress)))


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
