"""Is a version worse than it should be, by the feedback on one day's answers? Pure.

Each UTC day of answers has a confidence sequence of its own, so it may be looked at every other
second while its feedback comes in. Accuracy is held against the bundle's held-out figure, with the
chance in that one; a click rate against the champion's of the same day, whose answers are as young.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from monitoring.analysis.compare.effects import difference_of_arms
from monitoring.analysis.compare.moments import Moments
from monitoring.analysis.compare.sequences import MIN_UNITS, Interval, Mixture, rate_interval
from monitoring.analysis.degradation import trained_figure
from monitoring.live.outcomes import Metric

PLAN_UNITS: Final = 1_000  # where the interval of a difference is narrowest for its size
SHOWN_ALPHA: Final = 0.05
DAYS_PER_MONTH: Final = 30.0
MAX_ALPHA: Final = 0.5


class Rate(msgspec.Struct, frozen=True):
    """A mean over rows with its interval, which holds at every look with 95%.

    Requests are independent, their rows are not: requests of unequal size count for fewer.
    """

    metric: Metric
    value: float
    low: float
    high: float
    requests: int
    rows: int


class Standing(msgspec.Struct, frozen=True):
    """What a version's newest day says; ``reference`` is what it was held against, if anything."""

    metric: Metric
    day_start_s: int
    rate: Rate
    reference: float | None
    degraded: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """The newest day of answers with ``MIN_UNITS`` requests to go by."""

    start_s: int
    sums: Moments
    champion: Moments | None = None  # of the same day, where this is another's click rate


def rate_of(metric: Metric, sums: Moments) -> Rate:
    interval = interval_of(sums, SHOWN_ALPHA)
    return Rate(metric, sums.mean, interval.low, interval.high, sums.units, sums.rows)


def interval_of(sums: Moments, alpha: float, trained_on: int | None = None) -> Interval:
    """Return the interval that holds at every look.

    ``trained_on`` rows of another figure widen it by the chance in that one.
    """
    independent = sums.n**2 / sums.nn  # as many requests of one size would tell as much (Kish)
    if trained_on:
        independent = 1.0 / (1.0 / independent + 1.0 / trained_on)
    return rate_interval(sums.mean, independent, alpha)


def daily_alpha(false_alarms_per_month: float, comparisons: int) -> float:
    """Share the alarms of a month over its days and over what is compared.

    >>> daily_alpha(1.5, 5)
    0.01
    """
    return min(MAX_ALPHA, false_alarms_per_month / DAYS_PER_MONTH / max(1, comparisons))


def standing(
    metric: Metric,
    day: Day,
    training: Mapping[str, float],
    alpha: float,
    *,
    still_open: bool,
) -> Standing:
    """Judge a day. Once degraded, a version stays so until its figure is back at the reference."""
    reference, beyond = None, False
    if metric == "accuracy":
        reference, trained_on = trained_figure("accuracy", training)
        if reference is not None:
            beyond = interval_of(day.sums, alpha, trained_on).high < reference
    elif day.champion is not None and day.champion.units >= MIN_UNITS:
        reference = day.champion.mean
        found = difference_of_arms(day.champion, day.sums, PLAN_UNITS)
        if found.obstacle is None:
            moment = (found.difference, found.standard_error, found.progress)
            beyond = Mixture(alpha=alpha).interval(*moment).high < 0.0
    below = reference is not None and day.sums.mean < reference
    return Standing(
        metric=metric,
        day_start_s=day.start_s,
        rate=rate_of(metric, day.sums),
        reference=reference,
        degraded=beyond or (still_open and below),
    )
