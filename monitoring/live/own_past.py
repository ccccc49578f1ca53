"""A figure held against its own version's first week, where nothing else says what it should be.

Figures of young answers move: clicks and labels are still coming. So days are compared at one age:
each as it stood ``SETTLES_S`` after its end (a day at whose time nobody looked is left out). And
days differ by more than chance, weekdays from weekends at least, so the spread of days is part of
both comparisons, each once a day at half the risk:

- the newest day against the first week, by Student's prediction interval for one more day: sees a
  collapse at once;
- the newest week against the first one, weekday by weekday, by Student's test of paired
  differences: sees what lasts, through any pattern of the week.
"""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from scipy.special import stdtrit

from monitoring.analysis.compare.moments import Moments
from monitoring.analysis.compare.sequences import MIN_UNITS
from monitoring.live.outcome_tables import settle
from monitoring.live.store import DAY_S, Store

DAYS: Final = 7  # a whole week
WEEK_S: Final = DAYS * DAY_S
SETTLES_S: Final = 3_600

SettledDay = tuple[int, Moments]  # its start in seconds since 1970, and its sums


def settle_day(store: Store, now_s: float) -> None:
    """Keep yesterday as it stands, within the hour in which that is due."""
    start_s = (int(now_s) - SETTLES_S) // DAY_S * DAY_S - DAY_S
    if now_s < start_s + DAY_S + 2 * SETTLES_S:
        with store.transaction() as db:
            settle(db, DAY_S, start_s, MIN_UNITS, DAYS)


def falls_short(
    first: Sequence[SettledDay],
    later: Sequence[SettledDay],
    alpha: float,
    *,
    higher_is_better: bool,
) -> bool:
    """Tell whether the newest day or week is worse than the first week lets expect.

    Days come in order, with their starts. Wrong with chance ``alpha``, if days of a weekday differ
    independently of each other.
    """
    past, day = [sums for _, sums in first], later[-1][1]
    sign = 1.0 if higher_is_better else -1.0
    chance = sum(each.squares for each in past) / (sum(each.units for each in past) - len(past))
    means = np.array([each.mean for each in past])
    spread = float(means.var(ddof=1))
    of_first = max(spread, float(np.mean([chance / each.units for each in past]))) / len(past)
    margin = _quantile(alpha / 2) * math.sqrt(of_first + max(spread, chance / day.units))
    if sign * (float(means.mean()) - day.mean) > margin:
        return True
    pairs = by_weekday(first, later)
    if len(pairs) < DAYS:
        return False
    losses = np.array([sign * (old.mean - new.mean) for old, new in pairs])
    least = float(np.mean([chance * (1 / old.units + 1 / new.units) for old, new in pairs]))
    error = math.sqrt(max(float(losses.var(ddof=1)), least) / len(pairs))
    return float(losses.mean()) > _quantile(alpha / 2) * error


def by_weekday(
    first: Sequence[SettledDay], later: Sequence[SettledDay]
) -> list[tuple[Moments, Moments]]:
    """Pair the first week's days with those of the last seven days, as far as both are settled."""
    newest_s = later[-1][0]
    recent = {start_s // DAY_S % DAYS: s for start_s, s in later if start_s > newest_s - WEEK_S}
    old = {start_s // DAY_S % DAYS: sums for start_s, sums in first}
    return [(old[weekday], recent[weekday]) for weekday in sorted(old.keys() & recent.keys())]


def _quantile(alpha: float) -> float:
    return float(stdtrit(DAYS - 1, 1.0 - alpha))
