"""Notice a burst within two seconds and guess how high it goes.

The last 2 seconds are compared with the 30 before: a burst differs by more than ``Z`` standard
deviations (at least those of a Poisson process), by more than 10 requests per second, and by more
than all but a few jumps of the last 15 minutes did, so that a load that always jumps is left to
the forecast. Its growth is then extended over the horizon, up to ``HIGHEST`` times its level. Like
an expert of the forecast, the guess is calibrated by how high earlier bursts went.
"""

import math
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from autoscaling.policy.forecast import LIKELY_PEAKS, PEAK_S, highest_mean

Z: Final = 3.5
UNUSUAL: Final = 0.995
JUMPS_KEPT: Final = 900
LEAST_RPS: Final = 10.0
HIGHEST: Final = 2.5
BEFORE_S: Final = 30
AT_LEAST_S: Final = 15
RATIOS_KEPT: Final = 40
#: Before bursts have been seen, guesses are taken to be right.
PRIOR_RATIOS: Final = (1.0,) * 5


@dataclass(frozen=True, slots=True, kw_only=True)
class BurstState:
    """``open`` guesses as (seconds left, guess) and the ratios of the last closed ones.

    ``jumps`` are the last seconds' jumps in standard deviations, newest last, 0 if not known.
    """

    open: tuple[tuple[int, float], ...] = ()
    ratios: tuple[float, ...] = PRIOR_RATIOS
    jumps: NDArray[np.float64] = field(default_factory=lambda: np.zeros(JUMPS_KEPT))


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
    open_guesses = tuple((left - 1, guess) for left, guess in state.open if left > 1)
    known = rates[-(BEFORE_S + 2) :]
    known = known[~np.isnan(known)]
    jump, deviations = _jump(known)
    likely = None
    if (
        jump > LEAST_RPS
        and deviations > Z
        and deviations > (float(np.sort(state.jumps)[int(UNUSUAL * JUMPS_KEPT)]))
    ):
        guess = _guess(known, horizon_s)
        steps = (np.arange(LIKELY_PEAKS) + 0.5) / LIKELY_PEAKS
        likely = guess * np.quantile(ratios, steps)
        open_guesses = (*open_guesses, (horizon_s, guess))
    elif open_guesses:
        # What has come must be served whether or not it was guessed; the guess itself is not held.
        likely = np.full(LIKELY_PEAKS, float(known[-2:].mean()))
    jumps = np.append(state.jumps[1:], deviations)
    return BurstState(open=open_guesses, ratios=ratios, jumps=jumps), likely


def _jump(known: NDArray[np.float64]) -> tuple[float, float]:
    """Return by how much the last 2 s exceed the time before, in rps and in deviations."""
    if len(known) < AT_LEAST_S + 2:
        return 0.0, 0.0
    before = known[:-2]
    level = float(before.sum()) / len(before)
    variance = float(before @ before) / len(before) - level * level
    deviation = math.sqrt(max(level + 2.0, variance) / 2.0)
    jump = float(known[-1] + known[-2]) / 2.0 - level
    return jump, jump / deviation


def _guess(known: NDArray[np.float64], horizon_s: int) -> float:
    now = float(known[-1] + known[-2]) / 2.0
    growth = max(float(known[-1] - known[-3]) / 2.0, 0.0)
    return min(max(float(known[-1]), now) + growth * horizon_s, HIGHEST * now)
