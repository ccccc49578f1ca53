"""How far labels have come in: a figure from half the labels must say so. Pure.

The delay curve is not bent by youth: the share labelled within a delay is taken over the answers
that are at least that old.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

HOUR_S: Final = 3600.0
DAY_S: Final = 24 * HOUR_S
_DELAYS_H: Final = (1 / 60, 1 / 6, 1, 6, 24, 72, 168, 336, 720, 1440, 2160, 4320)
DELAYS_S: Final = tuple(hours * HOUR_S for hours in _DELAYS_H)
MATURE_SHARE: Final = 0.95
MIN_ROWS: Final = 30  # answers old enough, for a point of the curve


@dataclass(frozen=True, slots=True, kw_only=True)
class DelayPoint:
    """Of ``rows`` answers at least ``delay_s`` old, ``share`` had their label within it."""

    delay_s: float
    share: float
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Maturity:
    """Coverage is the share of answers with a label so far, weighted like the log.

    ``mature_after_s`` is the least delay on the curve by which ``MATURE_SHARE`` of what the curve
    ever reaches is in; None while the curve still rises at its end or has no points. ``mature`` is
    the share of answers older than that: their figures will hardly change any more.
    """

    rows: int
    labelled_rows: int
    coverage: float
    median_delay_s: float | None
    curve: tuple[DelayPoint, ...]
    mature_after_s: float | None
    mature: float | None


def label_maturity(ages_s: Floats, delays_s: Floats, weights: Floats) -> Maturity:
    """Describe labels of answers ``ages_s`` old; ``delays_s`` is NaN where none has come."""
    labelled = ~np.isnan(delays_s)
    total = float(weights.sum())
    curve = tuple(_curve(ages_s, delays_s, weights))
    mature_after_s = _mature_after(curve)
    return Maturity(
        rows=len(ages_s),
        labelled_rows=int(labelled.sum()),
        coverage=float(weights[labelled].sum()) / total if total else math.nan,
        median_delay_s=float(np.median(delays_s[labelled])) if labelled.any() else None,
        curve=curve,
        mature_after_s=mature_after_s,
        mature=None
        if mature_after_s is None
        else float(weights[ages_s >= mature_after_s].sum()) / total,
    )


def _curve(ages_s: Floats, delays_s: Floats, weights: Floats) -> Sequence[DelayPoint]:
    points = []
    for delay_s in DELAYS_S:
        old = ages_s >= delay_s
        if old.sum() < MIN_ROWS:
            break
        in_time: Any = old & (delays_s <= delay_s)
        share = float(weights[in_time].sum() / weights[old].sum())
        points.append(DelayPoint(delay_s=delay_s, share=share, rows=int(old.sum())))
    return points


def _mature_after(curve: Sequence[DelayPoint]) -> float | None:
    """Find where the curve has nearly reached its end, if it ended well before its last point."""
    if len(curve) < 2 or curve[-1].share <= 0.0:
        return None
    enough = MATURE_SHARE * curve[-1].share
    first = next(point for point in curve if point.share >= enough)
    return first.delay_s if first is not curve[-1] else None
