"""Forecast the peak of the request rate over the time a new replica needs.

Several simple experts each forecast the highest 5-second mean of the next ``horizon_s`` seconds.
None of them knows the load; each learns how wrong it tends to be: when the horizon of an old
forecast is over, the ratio of what came to what was forecast is remembered for 15 minutes. Today's
forecast times those ratios is a distribution of the peak (conformal prediction over a sliding
window, cf. Gibbs & Candès 2021). Ratios seen at a similar level count most, since a quiet
service errs differently from a busy one. The expert with the least pinball loss in requests,
decayed, speaks: a missed crowd outweighs a thousand calm seconds.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

PEAK_S: Final = 5  # a peak is the highest mean over this many seconds
MEMORY_S: Final = 900
RATES_KEPT: Final = 180
LONGEST_HORIZON_S: Final = 120
LOSS_KEPT: Final = 0.5 ** (1.0 / 900.0)  # per second: losses weigh half after 15 minutes
LOSS_QUANTILE: Final = 0.85
HEADS_EVERY_S: Final = 4
CLEARLY: Final = 1.15
#: Ratios from levels that differ by a factor of e^0.5 weigh 0.6; from far away FAR_WEIGHT.
SIMILAR: Final = 0.5
FAR_WEIGHT: Final = 0.02
#: The distribution of the peak is handed on as this many equally likely values.
LIKELY_PEAKS: Final = 60
#: Assumed until ratios are known: forecasts of a load never seen miss by up to 40 %.
PRIOR_RATIOS: Final = np.array([0.95, 1.0, 1.0, 1.05, 1.1, 1.2, 1.4])
ENOUGH_RATIOS: Final = 30
EXPERTS: Final = ("mean 5 s", "mean 20 s", "mean 60 s", "trend 10 s", "trend 30 s", "trend 60 s")
MEANS_S: Final = (5, 20, 60)
TRENDS_S: Final = (10, 30, 60)

_N: Final = len(EXPERTS)


def _unknown(*shape: int) -> NDArray[np.float64]:
    return np.full(shape, np.nan)


@dataclass(frozen=True, slots=True, kw_only=True)
class ForecastState:
    """Sliding memory, one value per second, newest last; NaN: not known (yet).

    ``forecasts`` and ``bounds`` [experts, RATES_KEPT] were made in that second; a bound is the
    calibrated upper forecast. ``ratios`` [experts, MEMORY_S] are what came over what was forecast,
    ``levels`` the logarithm of the forecast they belong to. ``loss`` [experts]. ``heads`` [experts]
    is the calibrated head-room, renewed every few seconds; ``second`` counts updates.
    """

    rates: NDArray[np.float64]
    forecasts: NDArray[np.float64]
    bounds: NDArray[np.float64]
    ratios: NDArray[np.float64]
    levels: NDArray[np.float64]
    loss: NDArray[np.float64]
    heads: NDArray[np.float64]
    second: int


def new_state() -> ForecastState:
    """Know nothing."""
    return ForecastState(
        rates=_unknown(RATES_KEPT),
        forecasts=_unknown(_N, RATES_KEPT),
        bounds=_unknown(_N, RATES_KEPT),
        ratios=_unknown(_N, MEMORY_S),
        levels=_unknown(_N, MEMORY_S),
        loss=np.zeros(_N),
        heads=_unknown(_N),
        second=0,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """The best expert's word: likely peaks in requests per second, equally likely, ascending."""

    expert: str
    level_rps: float
    peaks_rps: NDArray[np.float64]


def update(state: ForecastState, rate_rps: float, horizon_s: int) -> ForecastState:
    """Take in one more second's rate, judge the forecast whose horizon ends, forecast anew.

    ``horizon_s`` is at most ``LONGEST_HORIZON_S``.
    """
    rates = _shift(state.rates, rate_rps)
    ratios, levels, loss = state.ratios, state.levels, state.loss
    window = rates[-(horizon_s + PEAK_S - 1) :]
    peak = highest_mean(window)
    made = RATES_KEPT - horizon_s  # where the forecast of ``horizon_s`` ago stands
    if not np.isnan(peak) and not np.isnan(state.bounds[0, made]):
        was = state.forecasts[:, made]
        ratios = _shift(ratios, peak / was)
        levels = _shift(levels, np.log(was))
        miss = peak - state.bounds[:, made]
        pinball = np.where(miss > 0, LOSS_QUANTILE * miss, (LOSS_QUANTILE - 1.0) * miss)
        loss = LOSS_KEPT * loss + (1.0 - LOSS_KEPT) * pinball
    forecasts = _ask_experts(rates, horizon_s)
    heads = state.heads
    if np.isnan(heads).any() or state.second % HEADS_EVERY_S == 0:
        ranked, cumulative = _ranked(ratios, levels, forecasts)
        first = np.argmax(cumulative >= LOSS_QUANTILE * cumulative[:, -1:], axis=1)
        heads = ranked[np.arange(_N), first]
    return ForecastState(
        rates=rates,
        forecasts=_shift(state.forecasts, forecasts),
        bounds=_shift(state.bounds, forecasts * heads),
        heads=heads,
        second=state.second + 1,
        ratios=ratios,
        levels=levels,
        loss=loss,
    )


def speak(state: ForecastState, horizon_s: int) -> Forecast | None:
    """Let the best expert speak; None before any rate is known.

    Judgement on a forecast need not wait for its horizon: what has come already exceeds it or not.
    How far the last forecasts are clearly exceeded right now is added to the loss, so an expert
    that has not seen a rise is silenced while the rise goes on.
    """
    now = state.forecasts[:, -1]
    if np.isnan(now).any():
        return None
    recent = state.rates[-PEAK_S:]
    level_rps = float(recent[~np.isnan(recent)].mean())
    bounds = state.bounds[:, -1 - horizon_s : -1]
    noise_rps = 2.0 * np.sqrt(level_rps / PEAK_S)
    exceeded = np.maximum(level_rps - noise_rps - CLEARLY * bounds, 0.0)
    exceeded[np.isnan(exceeded)] = 0.0
    chosen = int(np.argmin(state.loss + exceeded.sum(axis=1) / horizon_s))
    best = slice(chosen, chosen + 1)
    ranked, cumulative = _ranked(state.ratios[best], state.levels[best], now[best])
    asked = (np.arange(LIKELY_PEAKS) + 0.5) / LIKELY_PEAKS * cumulative[0, -1]
    ratios = ranked[0, np.searchsorted(cumulative[0], asked)]
    return Forecast(
        expert=EXPERTS[best.start],
        level_rps=level_rps,
        peaks_rps=now[best.start] * ratios,
    )


def highest_mean(rates: NDArray[np.float64]) -> float:
    """Highest mean over ``PEAK_S`` consecutive seconds; NaN if a rate is not known."""
    sums = np.cumsum(np.concatenate([[0.0], rates]))
    return float((sums[PEAK_S:] - sums[:-PEAK_S]).max()) / PEAK_S


def _shift(memory: NDArray[np.float64], newest: NDArray[np.float64] | float) -> NDArray[np.float64]:
    moved = np.empty_like(memory)
    moved[..., :-1] = memory[..., 1:]
    moved[..., -1] = newest
    return moved


def _ranked(
    ratios: NDArray[np.float64], levels: NDArray[np.float64], forecasts: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sort each expert's ratios and add up their weights; the prior's while few are known."""
    known = len(ratios[0]) - int(np.count_nonzero(np.isnan(ratios[0])))
    if known < ENOUGH_RATIOS:
        prior = np.tile(PRIOR_RATIOS, (len(ratios), 1))
        return prior, np.cumsum(np.ones_like(prior), axis=1)
    ratios, levels = ratios[:, -known:], levels[:, -known:]
    away = (levels - np.log(forecasts)[:, None]) / SIMILAR
    weights = np.exp(-0.5 * away * away) + FAR_WEIGHT
    order = np.argsort(ratios, axis=1)
    lines = np.arange(len(ratios))[:, None]
    return ratios[lines, order], np.cumsum(weights[lines, order], axis=1)


def _ask_experts(rates: NDArray[np.float64], horizon_s: int) -> NDArray[np.float64]:
    """Let every expert forecast; windows that are not full yet use what there is."""
    known = rates[-max(*MEANS_S, *TRENDS_S) :]
    known = known[~np.isnan(known)]
    sums = np.cumsum(known[::-1])
    means = [float(sums[min(w, len(known)) - 1]) / min(w, len(known)) for w in MEANS_S]
    trends = [_trend(known[-w:], means[0], horizon_s) for w in TRENDS_S]
    return np.maximum(means + trends, 0.5)


def _trend(rates: NDArray[np.float64], level: float, horizon_s: int) -> float:
    """Extend the slope as far as it is significant; never below half the level."""
    n = len(rates)
    if n < 8:
        return level
    x = np.arange((1 - n) / 2, n / 2)
    sxx = n * (n * n - 1) / 12.0
    mean = float(rates.sum()) / n
    slope = float(x @ rates) / sxx
    unexplained = float(rates @ rates) - n * mean * mean - slope * slope * sxx
    error = max(unexplained, 0.0) / (n - 2) / sxx
    trust = slope * slope / (slope * slope + 4.0 * error + 1e-12)
    ahead = mean + trust * slope * ((n - 1) / 2 + 0.9 * horizon_s)
    return max(ahead, 0.5 * level)
