"""Has the meaning of an answer changed? A test of labels given scores, and a watch over errors.

The marginals of inputs and scores may stay as they are while the world behind them changes; only
labels show it. The test compares what came true with a calibration learned earlier, in a few smooth
directions (the level of each predicted label, slope and bend over the score; as in Neyman's smooth
test), with the units' own variance and the calibration's doubt in it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from monitoring.analysis.calibration import Calibration, Floats, ScoredRows

ALPHA: Final = 0.01
MIN_ROWS: Final = 50
MIN_LABEL_ROWS: Final = 20  # for a level of its own


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """``expected`` and ``came_true`` are accuracies on the same ``rows`` labelled rows."""

    rows: int
    expected: float
    came_true: float
    p_value: float
    changed: bool


def conditional_change(
    calibration: Calibration, rows: ScoredRows, right: NDArray[np.bool_]
) -> Change | None:
    """Test labelled rows against an earlier calibration; None below ``MIN_ROWS`` rows."""
    if len(rows) < MIN_ROWS:
        return None
    chances = calibration.chances(rows)
    directions = _directions(rows) * rows.weights
    residuals = directions * (right - chances)
    _, codes = np.unique(rows.units, return_inverse=True)
    by_unit = np.stack([np.bincount(codes, weights=line) for line in residuals])
    refits = np.stack([directions @ (line - chances) for line in calibration.refitted(rows)])
    doubt = np.cov(refits, rowvar=False)
    sums = residuals.sum(axis=1)
    statistic = float(sums @ np.linalg.pinv(by_unit @ by_unit.T + doubt) @ sums)
    p_value = float(chi2.sf(statistic, len(directions)))
    return Change(
        rows=len(rows),
        expected=float(np.average(chances, weights=rows.weights)),
        came_true=float(np.average(right, weights=rows.weights)),
        p_value=p_value,
        changed=p_value < ALPHA,
    )


def _directions(rows: ScoredRows) -> Floats:
    """Levels by label, then slope and bend over the scores' ranks; shape (directions, rows)."""
    order = np.argsort(np.argsort(rows.scores, kind="stable"), kind="stable")
    x = 2 * (order + 0.5) / len(rows) - 1
    names, counts = np.unique(rows.labels, return_counts=True)
    levels = [rows.labels == name for name in names[counts >= MIN_LABEL_ROWS]]
    rest = ~np.any(levels, axis=0) if levels else np.ones(len(x), dtype=bool)
    if rest.any():
        levels.append(rest)
    return np.stack([*levels, np.sqrt(3) * x, np.sqrt(5) * (3 * x * x - 1) / 2]).astype(float)


def error_alarms(errors: Iterable[float], *, delta: float = 0.002) -> list[int] | None:
    """Return at which errors, in time order, ADWIN saw their level change; None without river.

    ``errors`` are 0 and 1, or losses scaled to about that. ADWIN (Bifet and Gavaldà 2007) is
    river's (``pip install treeline-serve[concept]``): the one detector of that family that stayed
    quiet on unchanging streams (docs/quality.md).
    """
    try:
        adwin = import_module("river.drift").ADWIN
    except ImportError:
        return None
    detector = adwin(delta=delta)
    alarms = []
    for at, error in enumerate(errors):
        detector.update(error)
        if detector.drift_detected:
            alarms.append(at)
    return alarms
