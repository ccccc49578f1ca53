"""A window's figure by its feedback, with an interval that holds at every look. Pure."""

import math
from typing import Final

import msgspec

from monitoring.analysis.compare.effects import difference_of_pairs
from monitoring.analysis.compare.moments import Moments
from monitoring.analysis.compare.sequences import EVERYTHING, Interval, Mixture, rate_interval
from monitoring.live.outcomes import ERRORS, Metric

PLAN_UNITS: Final = 1_000  # where the interval of a mean is narrowest for its size
SHOWN_ALPHA: Final = 0.05


class Rate(msgspec.Struct, frozen=True):
    """A figure over rows with its interval, which holds at every look with 95%.

    Requests are independent, their rows are not: requests of unequal size count for fewer. Ends of
    the interval are None while errors are too few, or too skewed for their number, to bound it.
    """

    metric: Metric
    value: float
    low: float | None
    high: float | None
    requests: int
    rows: int


def rate_of(metric: Metric, sums: Moments) -> Rate:
    interval = interval_of(metric, sums, SHOWN_ALPHA)
    low, value, high = (
        shown(metric, number) if math.isfinite(number) else None
        for number in (interval.low, sums.mean, interval.high)
    )
    return Rate(metric, math.nan if value is None else value, low, high, sums.units, sums.rows)


def shown(metric: Metric, mean: float) -> float:
    """Return the figure that people know of the mean that is summed up: a root, or itself."""
    return math.sqrt(max(mean, 0.0)) if metric == "rmse" else mean


def interval_of(
    metric: Metric, sums: Moments, alpha: float, trained_on: int | None = None
) -> Interval:
    """Return the interval of the mean (of squared errors for RMSE) that holds at every look.

    ``trained_on`` rows of another figure widen it by the chance in that one.
    """
    independent = sums.n**2 / sums.nn  # as many requests of one size would tell as much (Kish)
    chance = 1.0 + independent / trained_on if trained_on else 1.0
    if metric not in ERRORS:
        return rate_interval(sums.mean, independent / chance, alpha)
    found = difference_of_pairs(sums, PLAN_UNITS)
    if found.obstacle is not None:
        return EVERYTHING
    error = found.standard_error * math.sqrt(chance)
    return Mixture(alpha=alpha).interval(found.difference, error, found.progress / chance)
