"""A figure held against its own version's first week, where nothing else says what it should be.

Figures of young answers move: clicks and labels are still coming. So days are compared at one age,
each as it has settled (``settling.py``). And days differ by more than chance, weekdays from
weekends at least, so the spread of days is part of both comparisons, each once a day at half the
risk:

- the newest day against the first week, by Student's prediction interval for one more day: sees a
  collapse at once;
- the newest week against the first one, weekday by weekday, by Student's test of paired
  differences: sees what lasts, through any pattern of the week.

The first week is the first settled day of each weekday: five do, where some weekdays have no
traffic, and a missed one is made up for a week later. The spread of days is never taken for less
than the chance within them, which a week without a single error does not show: of a rate that is
the pooled one's with Jeffreys' half an event added, of squared errors the pooled variance. Days
differ by factors, so rates are compared by their log odds and squared errors by their logarithms,
those only where the skewness of both sides lets a mean pass for normal (``compare.effects``).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from monitoring.analysis.compare.effects import difference_of_pairs
from monitoring.analysis.compare.moments import Moments
from monitoring.live.outcomes import ERRORS, Metric
from monitoring.live.rates import PLAN_UNITS
from monitoring.live.store import DAY_S

DAYS: Final = 7  # a whole week
LEAST_DAYS: Final = 5  # of different weekdays, for a spread and for pairs
WEEK_S: Final = DAYS * DAY_S
WEEKDAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

SettledDay = tuple[int, Moments]  # its start in seconds since 1970, and its sums
Pair = tuple[Moments, Moments]  # a weekday's in the first week and in the newest


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Whether the newest day or week is worse, by means (of squared errors for RMSE).

    ``reference`` and ``week`` are over the same weekdays; ``week`` is None before there are
    ``LEAST_DAYS`` of them. ``note`` says what could not be compared.
    """

    worse: bool
    reference: float
    week: float | None
    note: str | None


def own_past(days: Sequence[SettledDay]) -> tuple[list[SettledDay], list[SettledDay]]:
    """Part settled days, in order of time, into the first of each weekday and the later ones."""
    first: dict[int, SettledDay] = {}
    for day in days:
        first.setdefault(_weekday(day), day)
    return list(first.values()), [day for day in days if first[_weekday(day)] is not day]


def compare(
    first: Sequence[SettledDay], later: Sequence[SettledDay], alpha: float, metric: Metric
) -> Comparison:
    """Hold the newest day and week against the first week, of ``LEAST_DAYS`` days at least.

    Wrong with chance ``alpha``, if days of a weekday differ independently of each other.
    """
    past, newest = [sums for _, sums in first], later[-1][1]
    pairs = by_weekday(first, later)
    enough = len(pairs) >= LEAST_DAYS
    obstacle = _obstacle(metric, past, [newest])
    worse = obstacle is None and _day_is_worse(past, newest, alpha / 2, metric)
    if enough and _obstacle(metric, *zip(*pairs.values(), strict=True)) is None:
        worse = worse or _week_is_worse(list(pairs.values()), alpha / 2, metric)
    old = [pair[0] for pair in pairs.values()] if enough else past
    new = [pair[1] for pair in pairs.values()]
    return Comparison(
        worse=worse,
        reference=_mean(old),
        week=_mean(new) if enough else None,
        note=f"the newest day is not judged: {obstacle}" if obstacle else _missing(pairs),
    )


def by_weekday(first: Sequence[SettledDay], later: Sequence[SettledDay]) -> dict[int, Pair]:
    """Pair the first week's days with those of the last seven days, as far as both are settled."""
    newest_s = later[-1][0]
    recent = {_weekday(day): day[1] for day in later if day[0] > newest_s - WEEK_S}
    old = {_weekday(day): day[1] for day in first}
    return {weekday: (old[weekday], recent[weekday]) for weekday in sorted(old.keys() & recent)}


def _weekday(day: SettledDay) -> int:
    return (day[0] // DAY_S + 3) % DAYS  # 1970 began on a Thursday


def _mean(days: Sequence[Moments]) -> float:
    return sum(sums.mean for sums in days) / len(days)


def _missing(pairs: dict[int, Pair]) -> str | None:
    if len(pairs) < LEAST_DAYS:
        return f"the week is compared from {LEAST_DAYS} of its days on; {len(pairs)} can be"
    missing = [name for weekday, name in enumerate(WEEKDAYS) if weekday not in pairs]
    return f"the week is compared without {', '.join(missing)}" if missing else None


def _obstacle(metric: Metric, *sides: Sequence[Moments]) -> str | None:
    """Say why a side's mean of errors is no basis for a verdict; rates are bounded."""
    if metric not in ERRORS:
        return None
    if any(sums.mean <= 0.0 for side in sides for sums in side):
        return "a day has no errors at all"
    found = [difference_of_pairs(sum(side, Moments()), PLAN_UNITS).obstacle for side in sides]
    return next(filter(None, found), None)


def _day_is_worse(past: list[Moments], newest: Moments, alpha: float, metric: Metric) -> bool:
    chances = _chances(metric, [*past, newest])
    levels = np.array([_level(metric, sums) for sums in past])
    spread = float(levels.var(ddof=1))
    of_first = max(spread, float(chances[:-1].mean())) / len(past)
    error = math.sqrt(of_first + max(spread, float(chances[-1])))
    return float(levels.mean()) - _level(metric, newest) > _quantile(alpha, len(past)) * error


def _week_is_worse(pairs: list[Pair], alpha: float, metric: Metric) -> bool:
    losses = np.array([_level(metric, old) - _level(metric, new) for old, new in pairs])
    least = 2.0 * float(_chances(metric, [sums for pair in pairs for sums in pair]).mean())
    error = math.sqrt(max(float(losses.var(ddof=1)), least) / len(pairs))
    return float(losses.mean()) > _quantile(alpha, len(pairs)) * error


def _level(metric: Metric, day: Moments) -> float:
    """Return how good a day is: minus the logarithm of squared errors, the log odds of a rate."""
    if metric in ERRORS:
        return -math.log(day.mean)
    independent = _independent(day)
    return math.log((day.mean * independent + 0.5) / ((1.0 - day.mean) * independent + 0.5))


def _chances(metric: Metric, days: list[Moments]) -> NDArray[np.float64]:
    """Return the variance of each day's level by chance alone, were all days alike."""
    if metric in ERRORS:
        units = np.array([sums.units for sums in days], np.float64)
        relative = sum(sums.squares / sums.mean**2 for sums in days)
        return np.asarray(relative / (units.sum() - len(days)) / units)
    independent = np.array([_independent(sums) for sums in days])
    hits = independent @ np.array([sums.mean for sums in days])
    rate = (hits + 0.5) / (independent.sum() + 1.0)
    return np.asarray(1.0 / (rate * (1.0 - rate) * independent))


def _independent(day: Moments) -> float:
    """Return how many requests of one row would tell as much (Kish)."""
    return day.n**2 / day.nn


def _quantile(alpha: float, days: int) -> float:
    return float(stdtrit(days - 1, 1.0 - alpha))
