"""Rows without drift to draw baselines and windows from: independent, dependent, with cycles."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy import stats
from scipy.signal import lfilter

Floats = NDArray[np.float64]
Columns = dict[str, Floats | NDArray[np.str_]]
World = Callable[[np.random.Generator, int], Columns]


def table(columns: Columns) -> pa.Table:
    return pa.table(dict(columns))


def category(rng: np.random.Generator, rows: int, shares: Floats) -> NDArray[np.str_]:
    names = np.array([f"c{i}" for i in range(len(shares))])
    return names[
        np.searchsorted(np.cumsum(shares) / shares.sum(), rng.random(rows)).clip(
            max=len(shares) - 1
        )
    ]


def with_missing(rng: np.random.Generator, values: Floats, share: float) -> Floats:
    return np.where(rng.random(len(values)) < share, np.nan, values)


def numbers_world(rng: np.random.Generator, rows: int) -> Columns:
    """Twenty normals; the first two correlate with 0.3; the third misses 2%."""
    z = rng.standard_normal((20, rows))
    z[1] = 0.3 * z[0] + np.sqrt(1 - 0.09) * z[1]
    columns: Columns = {f"n{i}": z[i] for i in range(20)}
    columns["n2"] = with_missing(rng, z[2], 0.02)
    return columns


def mixed_world(rng: np.random.Generator, rows: int) -> Columns:
    """Fourteen numbers (skewed, heavy-tailed, tied, rare, missing) and six categories."""
    z = rng.standard_normal((10, rows))
    z[1] = 0.3 * z[0] + np.sqrt(1 - 0.09) * z[1]
    tens = np.arange(10.0)
    return {
        "normal": z[0],
        "partner": z[1],
        "missing2": with_missing(rng, z[2], 0.02),
        "missing30": with_missing(rng, np.exp(1.5 * z[3]), 0.3),
        "lognormal": np.exp(z[4]),
        "exponential": rng.exponential(size=rows),
        "student3": rng.standard_t(3, rows),
        "cauchy": rng.standard_cauchy(rows),
        "uniform": rng.random(rows),
        "poisson2": rng.poisson(2, rows).astype(np.float64),
        "zero70": np.where(rng.random(rows) < 0.7, 0.0, np.exp(z[6])),
        "rounded": np.round(z[7], 1),
        "rare3": (rng.random(rows) < 0.03).astype(np.float64),
        "grades": np.floor(rng.beta(2, 5, rows) * 10),
        "cat3": category(rng, rows, np.array([0.6, 0.3, 0.1])),
        "cat10": category(rng, rows, np.full(10, 0.1)),
        "zipf8": category(rng, rows, 1 / (1 + tens[:8])),
        "zipf200": category(rng, rows, 1 / np.arange(1.0, 201.0)),
        "zipf3000": category(rng, rows, np.arange(1.0, 3001.0) ** -0.9),
        "rarecat": category(rng, rows, np.array([0.97, 0.02, 0.005, 0.005])),
    }


def autoregressive(rng: np.random.Generator, series: int, rows: int, rho: float) -> Floats:
    """Stationary AR(1) processes of variance 1, (series, rows), after a long run-in."""
    noise = rng.standard_normal((series, rows + 2000)) * np.sqrt(1 - rho**2)
    return np.asarray(lfilter([1.0], [1.0, -rho], noise, axis=1)[:, 2000:])


def autocorrelated_world(rho: float) -> World:
    """The mixed numbers and categories made of AR(1) processes with correlation ``rho``."""

    def draw(rng: np.random.Generator, rows: int) -> Columns:
        z = autoregressive(rng, 20, rows, rho)
        columns: Columns = {f"n{i}": z[i] for i in range(8)}
        columns["n8"] = np.exp(z[8])
        columns["n9"] = np.round(z[9], 1)
        columns["n10"] = np.where(z[10] < 0.5, 0.0, z[10])
        columns["n11"] = np.where(z[11] > 2.0, np.nan, z[11])
        columns["n12"] = stats.t.ppf(stats.norm.cdf(z[12]), 3)
        columns["n13"] = np.floor(np.exp(z[13]))
        for i in range(14, 20):
            cuts = np.linspace(-1.5, 1.5, i - 10)
            columns[f"c{i}"] = np.array([f"k{j}" for j in range(len(cuts) + 1)])[
                np.searchsorted(cuts, z[i])
            ]
        return columns

    return draw


def cyclic_world(period: int, rho: float) -> World:
    """Columns that follow a day (or year) of ``period`` rows, some strongly, around AR(1) levels.

    Each draw starts at a random hour.
    """

    def draw(rng: np.random.Generator, rows: int) -> Columns:
        angle = 2 * np.pi * (np.arange(rows) + rng.integers(period)) / period
        strength = np.linspace(0, 2, 20)[:, None]
        z = strength * np.cos(angle + np.arange(20)[:, None]) + autoregressive(rng, 20, rows, rho)
        columns: Columns = {f"n{i}": z[i] for i in range(16)}
        columns["n3"] = np.exp(z[3] / 2)
        columns["n4"] = np.round(z[4])
        columns["n5"] = np.where(z[5] > 2.0, np.nan, z[5])
        for i in range(16, 20):
            cuts = np.array([-1.5, 0.0, 2.0])
            columns[f"c{i}"] = np.array(["low", "mid", "high", "top"])[np.searchsorted(cuts, z[i])]
        return columns

    return draw


def sessions_world(mean_rows: float) -> World:
    """Rows come in sessions of geometric length that share a user: no order beyond them."""

    def draw(rng: np.random.Generator, rows: int) -> Columns:
        user = np.cumsum(rng.random(rows) < 1 / mean_rows)
        level = rng.standard_normal((20, user[-1] + 1))[:, user]
        z = np.sqrt(0.6) * level + np.sqrt(0.4) * rng.standard_normal((20, rows))
        columns: Columns = {f"n{i}": z[i] for i in range(14)}
        columns["n7"] = np.exp(z[7])
        columns["n8"] = np.floor(np.exp(level[8]))
        for i in range(14, 20):
            codes = np.searchsorted(np.linspace(-1.5, 1.5, i - 11), level[i])
            columns[f"c{i}"] = np.char.add("k", codes.astype(str))
        return columns

    return draw
