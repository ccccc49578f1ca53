"""Accuracy before labels arrive, with an interval, and whether to believe it.

Confidence-based performance estimation (CBPE; NannyML's name for an old idea): the mean calibrated
chance of being right over the window. The interval covers the accuracy that will come true on this
very window: the calibration's doubt under the window's own mix of scores, and the window's chance.

It holds while scores mean what they meant when the calibration was learned. Nothing in unlabelled
rows can show that they do not. So the last labelled rows are kept out of the calibration and held
against it; the verdict is about them, and about today only as far as today is like them.
"""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from monitoring.analysis.calibration import Calibration, ScoredRows
from monitoring.analysis.concept import Change, conditional_change

LEVEL: Final = 0.95
MAX_UNSEEN: Final = 0.05  # share of the window's weight where no label has ever come from

Applies = Literal["yes", "no", "unchecked"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimated:
    """``low`` to ``high`` should hold the accuracy of ``rows`` rows with probability ``LEVEL``."""

    rows: int
    accuracy: float
    low: float
    high: float
    unseen: float

    def holds(self, accuracy: float) -> bool:
        return self.low <= accuracy <= self.high


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """The estimate is shown whatever ``applies`` says; ``reason`` says it in words."""

    estimated: Estimated | None
    applies: Applies
    reason: str
    check: Change | None = None


def estimate_accuracy(calibration: Calibration, rows: ScoredRows) -> Estimated | None:
    """Estimate the accuracy on a window's rows; None for an empty window."""
    if len(rows) == 0:
        return None
    share = rows.weights / rows.weights.sum()
    chances = calibration.chances(rows)
    accuracy = float(share @ chances)
    _, codes = np.unique(rows.units, return_inverse=True)
    # Rows of one unit may succeed and fail together: the cautious bound adds their deviations.
    deviations = np.bincount(codes, weights=share * np.sqrt(chances * (1 - chances)))
    # Around the fit and not around their mean: what refits are off is a bias we may have as well.
    refits = [share @ line - accuracy for line in calibration.refitted(rows)]
    doubt = float(np.mean(np.square(refits)))
    half = float(norm.ppf((1 + LEVEL) / 2)) * np.sqrt(deviations @ deviations + doubt)
    return Estimated(
        rows=len(rows),
        accuracy=accuracy,
        low=float(max(0.0, accuracy - half)),
        high=float(min(1.0, accuracy + half)),
        unseen=float(share[calibration.unseen(rows)].sum()),
    )


def estimate(
    calibration: Calibration | None,
    window: ScoredRows,
    matured: ScoredRows,
    right: NDArray[np.bool_],
) -> Estimate:
    """Estimate a window, and check the calibration on labelled rows it has not learned from."""
    if calibration is None:
        return Estimate(estimated=None, applies="no", reason="too few labels to calibrate on")
    estimated = estimate_accuracy(calibration, window)
    if estimated is None:
        return Estimate(estimated=None, applies="no", reason="the window is empty")
    check = conditional_change(calibration, matured, right)
    applies, reason = _judged(estimated, check)
    return Estimate(estimated=estimated, applies=applies, reason=reason, check=check)


def _judged(estimated: Estimated, check: Change | None) -> tuple[Applies, str]:
    if check is not None and check.changed:
        return "no", (
            f"calibration broke: on the last {check.rows} labelled rows {check.expected:.3f} was "
            f"expected and {check.came_true:.3f} came true (p = {check.p_value:.2g})"
        )
    if estimated.unseen > MAX_UNSEEN:
        return "no", (
            f"{estimated.unseen:.0%} of the window has scores or labels never seen with a label; "
            f"at most {MAX_UNSEEN:.0%} is taken"
        )
    if check is None:
        return "unchecked", "too few labels since the calibration to check it"
    return "yes", (
        f"calibration held on the last {check.rows} labelled rows: {check.expected:.3f} was "
        f"expected and {check.came_true:.3f} came true"
    )
