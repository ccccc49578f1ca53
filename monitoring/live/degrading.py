"""Is a version worse than it should be, by the feedback on one day's answers? Pure.

Each UTC day of answers has a confidence sequence of its own, so it may be looked at every other
second while its feedback comes in. Accuracy and RMSE are held against the bundle's held-out figure,
with the chance in that one; a challenger's click rate against the champion's of the same day, whose
answers are as young; and what has neither against its own first week (``own_past``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from monitoring.analysis.compare.effects import difference_of_arms
from monitoring.analysis.compare.moments import Moments
from monitoring.analysis.compare.sequences import MIN_UNITS, Mixture
from monitoring.analysis.degradation import trained_figure
from monitoring.live.outcomes import ERRORS, Metric
from monitoring.live.own_past import DAYS, LEAST_DAYS, SettledDay, compare, own_past
from monitoring.live.rates import PLAN_UNITS, Rate, interval_of, rate_of, shown

Against = Literal["training", "champion", "own_past"]

DECIDING: Final[tuple[Metric, ...]] = ("accuracy", "rmse", "click")  # the others are shown only
DAYS_PER_MONTH: Final = 30.0
MAX_ALPHA: Final = 0.5


class Settled(msgspec.Struct, frozen=True):
    """The newest day that is held against a version's own past, as it stood an hour later.

    ``week`` is the figure of the last seven days, as far as they are settled; None while fewer than
    five are.
    """

    day_start_s: int
    value: float
    requests: int
    week: float | None = None


class Standing(msgspec.Struct, frozen=True):
    """What a version's newest day says; ``reference`` is what it is held against, if anything.

    ``note`` says why a figure cannot be judged, or is not. With ``own_past`` it is the ``settled``
    day that is judged.
    """

    metric: Metric
    day_start_s: int
    rate: Rate
    reference: float | None
    degraded: bool
    against: Against | None = None
    note: str | None = None
    settled: Settled | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """The newest day of answers with ``MIN_UNITS`` requests to go by.

    ``champion`` is the same day's where this is another's click rate; ``settled`` are the days that
    make the version's own past, and the newest ones.
    """

    start_s: int
    sums: Moments
    champion: Moments | None = None
    settled: Sequence[SettledDay] = ()


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
    trained, trained_on = trained_figure(metric, training)
    if metric not in DECIDING:
        found = _shown_only(metric, day, trained)
    elif trained is not None:
        found = _by_training(metric, day, trained, trained_on, alpha)
    elif day.champion is not None:
        found = _by_champion(metric, day, day.champion, alpha)
    else:
        found = _by_own_past(metric, day, alpha)
    if still_open and found.reference is not None and metric in DECIDING:
        value = now_of(found)
        behind = value > found.reference if metric in ERRORS else value < found.reference
        found = msgspec.structs.replace(found, degraded=found.degraded or behind)
    return found


def now_of(found: Standing) -> float:
    """Return what is held against the reference: a week rather than a day, if there is one."""
    if found.settled is None:
        return found.rate.value
    return found.settled.value if found.settled.week is None else found.settled.week


def _shown_only(metric: Metric, day: Day, trained: float | None) -> Standing:
    note = "shown only: RMSE decides"
    return Standing(metric, day.start_s, rate_of(metric, day.sums), trained, False, note=note)


def _by_training(
    metric: Metric, day: Day, trained: float, trained_on: int | None, alpha: float
) -> Standing:
    interval = interval_of(metric, day.sums, alpha, trained_on)
    worse = interval.low > trained**2 if metric == "rmse" else interval.high < trained
    rate = rate_of(metric, day.sums)
    note = "too skewed for its size to be judged yet" if rate.low is None else None
    return Standing(metric, day.start_s, rate, trained, worse, "training", note)


def _by_champion(metric: Metric, day: Day, champion: Moments, alpha: float) -> Standing:
    rate = rate_of(metric, day.sums)
    if champion.units < MIN_UNITS:
        note = f"the champion has {champion.units} requests of the day; {MIN_UNITS} are needed"
        return Standing(metric, day.start_s, rate, None, False, note=note)
    found = difference_of_arms(champion, day.sums, PLAN_UNITS)
    worse = False
    if found.obstacle is None:
        moment = (found.difference, found.standard_error, found.progress)
        worse = Mixture(alpha=alpha).interval(*moment).high < 0.0
    return Standing(metric, day.start_s, rate, champion.mean, worse, "champion", found.obstacle)


def _by_own_past(metric: Metric, day: Day, alpha: float) -> Standing:
    rate = rate_of(metric, day.sums)
    first, later = own_past(day.settled)
    if len(first) < (LEAST_DAYS if later else DAYS):
        note = (
            f"no reference yet: {len(first)} of the {DAYS} weekdays that make this version's own "
            f"past, each with {MIN_UNITS} requests an hour after its end; {LEAST_DAYS} do once one "
            "comes round again"
        )
        return Standing(metric, day.start_s, rate, None, False, note=note)
    if not later:
        reference = shown(metric, sum(sums.mean for _, sums in first) / len(first))
        note = "no whole day since its own past yet"
        return Standing(metric, day.start_s, rate, reference, False, "own_past", note)
    found = compare(first, later, alpha, metric)
    reference = shown(metric, found.reference)
    week = None if found.week is None else shown(metric, found.week)
    start_s, sums = later[-1]
    settled = Settled(start_s, shown(metric, sums.mean), sums.units, week)
    return Standing(
        metric, day.start_s, rate, reference, found.worse, "own_past", found.note, settled
    )
