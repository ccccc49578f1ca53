"""Cycles in a baseline: days, weeks and years stand out of its spectrum as lines.

A line is told from noise by its neighbours: serial dependence raises whole stretches of a spectrum,
a cycle a single frequency.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# A cycle that the baseline shows fewer times cannot be told from a slow drift.
MIN_CYCLES: Final = 4
MAX_LINES: Final = 8
# Power over that of the neighbours. Averaging over columns calms the noise: with twenty it stays
# below 2, of a single one the highest of some thousand frequencies can reach 75.
PROMINENCE: Final = 10.0
LONE_PROMINENCE: Final = 100.0
PADDING: Final = 4
NEIGHBOURS: Final = 10


def find_cycles(series: Floats, columns: int) -> Floats:
    """Find the frequencies, in cycles per step, of the lines in the spectra of (steps, S) series.

    Spectra are averaged over the series, which need a common scale and belong to ``columns``
    columns. Strongest first, at most eight.
    """
    steps = len(series)
    least = max(PROMINENCE, LONE_PROMINENCE / max(columns, 1))
    rest = series - series.mean(0)
    found: list[float] = []
    while len(found) < MAX_LINES and steps >= 8 * MIN_CYCLES:
        power = (np.abs(np.fft.rfft(rest, PADDING * steps, axis=0)) ** 2).mean(1)
        prominence = power / _neighbours(power)
        prominence[: PADDING * MIN_CYCLES] = 0.0
        best = int(prominence.argmax())
        if prominence[best] < least:
            break
        frequency = best / (PADDING * steps)
        found.append(frequency)
        rest = without_cycles(rest, np.array([frequency]))
    return np.array(found)


def without_cycles(series: Floats, frequencies: Floats) -> Floats:
    """Subtract the least-squares sinusoids of these frequencies from (steps, S) series."""
    if not len(frequencies):
        return series
    angle = 2 * np.pi * np.arange(len(series))[:, None] * frequencies
    waves = np.hstack([np.cos(angle), np.sin(angle)])
    fitted: Floats = waves @ np.linalg.lstsq(waves, series, rcond=None)[0]
    return series - fitted


def _neighbours(power: Floats) -> Floats:
    """Mean power around each frequency, by its median: a line nearby hardly moves it."""
    places = np.arange(len(power))
    away = [sign * PADDING * step for step in range(2, NEIGHBOURS + 2) for sign in (-1, 1)]
    around = [power[np.clip(places + offset, PADDING, len(power) - 1)] for offset in away]
    mean: Floats = np.median(around, axis=0) / np.log(2) + 1e-300
    return mean
