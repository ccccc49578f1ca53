"""Made-up traces: shapes of load that are easy to name, for tests and for judging settings."""

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from autoscaling.errors import TraceError
from autoscaling.simulator.arrivals import Trace

Rates = NDArray[np.float64]


def _steps(t: Rates, rng: np.random.Generator) -> Rates:
    """Jump to a new level, 80 to 900 rps, after an exponential stay of 4 minutes on average."""
    rates = np.empty_like(t)
    at = 0
    while at < len(t):
        stay = int(rng.exponential(240)) + 30
        rates[at : at + stay] = np.exp(rng.uniform(np.log(80), np.log(900)))
        at += stay
    return rates


def _ramps(t: Rates, rng: np.random.Generator) -> Rates:
    """Move in straight lines between levels, each within 30 to 300 s."""
    knots = np.cumsum(rng.uniform(30, 300, len(t) // 30 + 2))
    return np.interp(t, knots, rng.uniform(30, 800, len(knots)))


def _diurnal(t: Rates, rng: np.random.Generator) -> Rates:
    """One slow wave over the trace with correlated noise of 8 %."""
    noise = np.empty_like(t)
    value = 0.0
    for i, shock in enumerate(rng.standard_normal(len(t))):
        value = 0.95 * value + 0.025 * shock
        noise[i] = value
    return np.asarray((400 - 320 * np.cos(2 * np.pi * t / len(t))) * np.exp(noise))


def _flash(t: Rates, rng: np.random.Generator) -> Rates:
    """A calm 150 rps with crowds of 3 to 8 times that arrive within 5 to 40 s and fade slowly."""
    rates = np.full_like(t, 150.0)
    for start in np.sort(rng.uniform(400, len(t), len(t) // 900)):
        rise, fade, height = rng.uniform(5, 40), rng.uniform(60, 300), rng.uniform(2, 7)
        since = t - start
        up = np.clip(since / rise, 0, 1) * (since > 0)
        rates += 150.0 * height * up * np.exp(-np.clip(since - rise, 0, None) / fade)
    return rates


def _onoff(t: Rates, rng: np.random.Generator) -> Rates:
    """A regular batch job: 500 rps for 40 s in every 3 minutes above a base of 100 rps."""
    phase = (t + rng.uniform(0, 180)) % 180
    return np.where(phase < 40, 600.0, 100.0)


def _bursty(t: Rates, rng: np.random.Generator) -> Rates:
    """A Markov-modulated load that changes between three levels every 20 s or so."""
    rates = np.empty_like(t)
    level = 200.0
    for i in range(len(t)):
        if rng.random() < 0.05:
            level = float(rng.choice([120.0, 250.0, 450.0]))
        rates[i] = level
    return np.convolve(rates, np.ones(5) / 5, mode="same")


def _quiet(t: Rates, rng: np.random.Generator) -> Rates:
    """A few requests a second, now and then a minute of ten times as many."""
    rates = np.full_like(t, 3.0)
    for start in rng.uniform(300, len(t), len(t) // 600):
        rates[(t >= start) & (t < start + 60)] = 40.0
    return rates


def _selfsimilar(t: Rates, rng: np.random.Generator) -> Rates:
    """Fluctuations of the same size at every scale from 4 s to an hour, as web traffic has them.

    The logarithm of the rate is a sum of first-order noises whose memories double (1/f noise; cf.
    Crovella & Bestavros 1997).
    """
    log_rate = np.full_like(t, np.log(200.0))
    for octave in range(11):
        log_rate += 0.1 * _noise(len(t), 4.0 * 2.0**octave, rng)
    return np.exp(log_rate)


def _minutes(t: Rates, rng: np.random.Generator) -> Rates:
    """A rate known by the minute only, moving by some 12 % from one to the next, in lines."""
    knots = np.arange(0.0, t[-1] + 61.0, 60.0)
    return np.interp(t, knots, 250.0 * np.exp(0.3 * _noise(len(knots), 12.0, rng)))


def _sparse(t: Rates, rng: np.random.Generator) -> Rates:
    """A small service, 20 rps, that a crowd of 5 to 20 times that finds twice an hour."""
    rates = 20.0 * np.exp(0.3 * _noise(len(t), 60.0, rng))
    for start in rng.uniform(300, len(t), max(len(t) // 1800, 1)):
        rise, stay = rng.uniform(10, 90), rng.uniform(30, 300)
        rates *= np.interp(
            t - start, [0, rise, rise + stay, 2 * rise + stay], [1, k := rng.uniform(5, 20), k, 1]
        )
    return rates


def _noise(n: int, memory: float, rng: np.random.Generator) -> Rates:
    """Gaussian noise of variance 1 whose correlation falls by e within ``memory`` values."""
    kept = np.exp(-1.0 / memory)
    shocks = np.sqrt(1.0 - kept * kept) * rng.standard_normal(n)
    shocks[0] = rng.standard_normal()
    values = np.empty(n)
    value = 0.0
    for i, shock in enumerate(shocks):
        value = kept * value + shock
        values[i] = value
    return values


SHAPES: Final[dict[str, Callable[[Rates, np.random.Generator], Rates]]] = {
    "steps": _steps,
    "ramps": _ramps,
    "diurnal": _diurnal,
    "flash": _flash,
    "onoff": _onoff,
    "bursty": _bursty,
    "quiet": _quiet,
    "selfsimilar": _selfsimilar,
    "minutes": _minutes,
    "sparse": _sparse,
}


def make_trace(shape: str, seed: int = 0, duration_s: int = 5400) -> Trace:
    """Make a trace of a named shape; the same arguments make the same trace."""
    if shape not in SHAPES:
        raise TraceError(f"shape = {shape!r} is not allowed: one of {', '.join(SHAPES)}")
    t = np.arange(duration_s, dtype=np.float64)
    rng = np.random.default_rng((seed, list(SHAPES).index(shape)))
    return Trace(name=f"synthetic-{shape}-{seed}", rps=SHAPES[shape](t, rng))
