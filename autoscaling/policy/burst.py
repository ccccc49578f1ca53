"""Notice a burst within two seconds and guess how high it goes.

The last 2 seconds are compared with the 30 before: a burst differs by more than ``Z`` standard
deviations (at least those of a Poisson process) and by more than 10 requests per second. Its
growth is then extended over the horizon, up to ``HIGHEST`` times its level. Like an expert of the
forecast, the guess is calibrated by how high earlier bursts went compared with their guess.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from autoscaling.policy.forecast import LIKELY_PEAKS, PEAK_S, highest_mean

Z: Final = 3.5
LEAST_RPS: Final = 10.0
HIGHEST: Final = 2.5
BEFORE_S: Final = 30
AT_LEAST_S: Final = 15
RATIOS_KEPT: Final = 40
#: Before bursts have been seen, guesses are taken to be right.
PRIOR_RATIOS: Final = (1.0,) * 5


@dataclass(frozen=True, slots=True, kw_only=True)
class BurstState:
    """``open`` guesses as (seconds left, guess) and the ratios of the last closed ones."""

    open: tuple[tuple[int, float], ...] = ()
    ratios: tuple[float, ...] = PRIOR_RATIOS


def update(
    state: BurstState, rates: NDArray[np.float64], horizon_s: int
) -> tuple[BurstState, NDArray[np.float64] | None]:
    """Look at the rates up to now (newest last, NaN unknown), once a second.

    Returns the likely peaks of the burst in requests per second, ascending, or None without one.
    """
    ratios = state.ratios
    for left, guess in state.open:
        if left <= 1:
            peak = highest_mean(rates[-(max(horizon_s, PEAK_S)) :])
            ratios = (*ratios, peak / guess)[-RATIOS_KEPT:]
    still_open = tuple((left - 1, guess) for left, guess in state.open if left > 1)
    fresh = _guess(rates, horizon_s)
    if fresh is None:
        return BurstState(open=still_open, ratios=ratios), None
    steps = (np.arange(LIKELY_PEAKS) + 0.5) / LIKELY_PEAKS
    likely = fresh * np.quantile(ratios, steps)
    return BurstState(open=(*still_open, (horizon_s, fresh)), ratios=ratios), likely


def _guess(rates: NDArray[np.float64], horizon_s: int) -> float | None:
    known = rates[-(BEFORE_S + 2) :]
    known = known[~np.isnan(known)]
    if len(known) < AT_LEAST_S + 2:
        return None
    before, now = known[:-2], float(known[-2:].mean())
    level = float(before.mean())
    deviation = max(np.sqrt(level / 2.0 + 1.0), float(before.std()) / np.sqrt(2.0))
    jump = now - level
    if jump <= LEAST_RPS or jump <= Z * deviation:
        return None
    growth = max(float(known[-1] - known[-3]) / 2.0, 0.0)
    return min(max(float(known[-1]), now) + growth * horizon_s, HIGHEST * now)
