"""An alarm budget over time: what is promised is a number of false alarms a month, not per look.

A report an hour at 1% each gives seven false alarms a month. Instead, evidence adds up over windows
in an e-detector of the Shiryaev-Roberts kind (Shin, Ramdas and Rinaldo, arXiv:2203.03532): after
each window ``evidence = (evidence + 1) * e``, where e is at most 1 on average without drift, and an
alarm at the threshold starts it from zero. Without drift, evidence minus the number of windows is a
supermartingale; so the expected number of alarms in T windows is at most T / threshold, at any T,
however often one looks. Small drift that lasts is found too, although no window alone shows it.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

MONTH_S: Final = 30 * 86_400.0
SMALLEST_P: Final = 1e-200


@dataclass(frozen=True, slots=True, kw_only=True)
class AlarmBudget:
    """At most ``false_alarms`` are expected in ``period_s``, over ``streams`` judged side by side.

    >>> AlarmBudget(window_s=3600.0).threshold
    720.0
    """

    window_s: float
    false_alarms: float = 1.0
    period_s: float = MONTH_S
    streams: int = 1

    def __post_init__(self) -> None:
        for name in ("window_s", "false_alarms", "period_s", "streams"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; allowed: above 0")

    @property
    def threshold(self) -> float:
        """Evidence at which a stream alarms; at least 1, which a window without news reaches."""
        windows = self.streams * self.period_s / self.window_s
        return max(windows / self.false_alarms, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What has been gathered against "no drift" since the start or the last alarm."""

    value: float = 0.0
    windows: int = 0
    alarm: bool = False


def add_window(evidence: Evidence, p: float | None, budget: AlarmBudget) -> Evidence:
    """Count one more window in; ``p`` is its report's p-value, None without enough data.

    A window without a verdict leaves everything as it is. After an alarm the count starts anew.
    """
    before = Evidence() if evidence.alarm else evidence
    if p is None:
        return Evidence(value=before.value, windows=before.windows)
    value = (before.value + 1) * e_value(p)
    return Evidence(value=value, windows=before.windows + 1, alarm=value >= budget.threshold)


def e_value(p: float) -> float:
    """Turn a p-value into an e-value: of mean at most 1 if the p-value is valid.

    The mixture of all power calibrators (Vovk and Wang, Annals of Statistics 2021, eq. 2).

    >>> round(e_value(1.0), 3), round(e_value(1e-4), 1)
    (0.5, 117.8)
    """
    if p > 1 - 1e-6:
        return 0.5
    log = np.log(max(p, SMALLEST_P))
    return float((1 - p + p * log) / (max(p, SMALLEST_P) * log**2))
