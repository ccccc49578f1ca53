"""Exact-enough tails: how unusual a difference is, far out and at small counts.

The alarm level of a report over many columns is reached at single p-values near 1e-4, where a
normal or chi-square approximation of skewed, tied or rare values is off by factors. The saddlepoint
approximation keeps its relative error small out there, from the baseline's distribution alone.
"""

from typing import Final

import numpy as np
import scipy  # its parts are loaded when they are used: `stats` takes a second
from numpy.typing import NDArray
from scipy import special

Floats = NDArray[np.float64]

NEWTON_STEPS: Final = 40
MAX_TILT: Final = 300.0  # exponents stay finite; p-values there are below 1e-100
# Below this many standard deviations the formula is 0/0 and the normal approximation is good.
CENTRAL: Final = 0.05
SMALL_COUNT: Final = 10.0
RISE: Final = 0.9
MAX_Z: Final = 37.0  # 2 * norm.sf(37) is the last representable step before zero


def difference_z(
    difference: Floats, scores: Floats, shares: Floats, window_rows: Floats, baseline_rows: Floats
) -> Floats:
    """Normal equivalent of a difference of two sample means of a score (window minus baseline).

    ``scores`` and ``shares`` are (S, bins): under the null both samples draw bins with ``shares``;
    ``difference`` (S), row counts (S) may be effective ones, not whole. Returns (S) signed z, 0
    where the score does not vary.

    Barndorff-Nielsen's r* with the cumulant function of both means, K(t) = n k(t/n) + m k(-t/m);
    see Butler, Saddlepoint Approximations with Applications (2007), chapter 1.
    """
    mean = (shares * scores).sum(1)
    spread = (shares * (scores - mean[:, None]) ** 2).sum(1)
    alive = (spread > 1e-12) & (window_rows > 0) & (baseline_rows > 0)
    z = np.zeros(len(difference))
    if not alive.any():
        return z
    n, m, d = window_rows[alive], baseline_rows[alive], difference[alive]
    # Reflected so that the difference is positive: tilts are positive too.
    centred = (scores - mean[:, None])[alive] * np.where(d < 0, -1.0, 1.0)[:, None]
    z[alive] = np.sign(d) * _positive_z(
        np.abs(d), scores=centred, shares=shares[alive], n=n, m=m, spread=spread[alive]
    )
    return z


def _positive_z(
    d: Floats, *, scores: Floats, shares: Floats, n: Floats, m: Floats, spread: Floats
) -> Floats:
    ratio = n / m
    low = np.zeros(len(d))
    # Both samples' tilts are bounded, so that no exponent overflows.
    high = MAX_TILT / (np.abs(scores).max(1) * np.maximum(1.0, ratio))
    tilt = np.minimum(d / (spread * (1 + ratio)), high)
    for _ in range(NEWTON_STEPS):
        _, up, up_slope = _cumulants(tilt, scores, shares)
        _, down, down_slope = _cumulants(-ratio * tilt, scores, shares)
        error = up - down - d
        low, high = np.where(error < 0, tilt, low), np.where(error > 0, tilt, high)
        step = tilt - error / np.maximum(up_slope + ratio * down_slope, 1e-300)
        inside = (step >= low) & (step <= high)
        moved = np.where(inside, step, (low + high) / 2)
        if np.all(np.abs(moved - tilt) <= 1e-10 * (1e-6 + moved)):
            break
        tilt = moved
    k_up, _, v_up = _cumulants(tilt, scores, shares)
    k_down, _, v_down = _cumulants(-ratio * tilt, scores, shares)
    root = np.sqrt(np.maximum(2 * (n * tilt * d - n * k_up - m * k_down), 0))
    slope = tilt * n * np.sqrt(v_up / n + v_down / m)
    plain = d / np.sqrt(spread * (1 / n + 1 / m))
    central = (root < CENTRAL) | (slope <= 0)
    safe_root, safe_slope = np.where(central, 1, root), np.where(central, 1, slope)
    corrected = safe_root + np.log(safe_slope / safe_root) / safe_root
    return np.clip(np.where(central, plain, corrected), 0.0, MAX_Z)


def _cumulants(tilt: Floats, scores: Floats, shares: Floats) -> tuple[Floats, Floats, Floats]:
    """Cumulant function of one draw's score at ``tilt``, and its first two derivatives."""
    exponents = tilt[:, None] * scores
    top = exponents.max(1)
    mass = shares * np.exp(exponents - top[:, None])
    total = mass.sum(1)
    first = (mass * scores).sum(1) / total
    second = (mass * (scores - first[:, None]) ** 2).sum(1) / total
    return top + np.log(total), first, second


def rate_z(
    window_hits: Floats, window_rows: Floats, baseline_hits: Floats, baseline_rows: Floats
) -> Floats:
    """Normal equivalent of a difference of two rates, for arrays of pairs.

    Fisher's exact test (the smaller side doubled) where a count is small, the saddlepoint
    elsewhere.
    """
    total = window_rows + baseline_rows
    pooled = np.divide(
        window_hits + baseline_hits, total, out=np.zeros_like(total), where=total > 0
    )
    difference = window_hits / np.maximum(window_rows, 1e-9) - baseline_hits / np.maximum(
        baseline_rows, 1e-9
    )
    shares = np.stack([1 - pooled, pooled], axis=1)
    scores = np.broadcast_to(np.array([0.0, 1.0]), shares.shape)
    z = difference_z(difference, scores, shares, window_rows, baseline_rows)
    expected = np.minimum(window_rows, baseline_rows) * np.minimum(pooled, 1 - pooled)
    small = (expected < SMALL_COUNT) & (pooled > 0) & (pooled < 1)
    if small.any():
        z[small] = _fisher_z(
            window_hits[small], window_rows[small], baseline_hits[small], baseline_rows[small]
        )
    return z


def _fisher_z(hits: Floats, rows: Floats, base_hits: Floats, base_rows: Floats) -> Floats:
    k, n, b, m = (np.rint(values) for values in (hits, rows, base_hits, base_rows))
    # Only the tail that the count lies in: each is a sum of as many terms.
    over = k * (n + m) >= n * (k + b)
    tail = np.empty(len(k))
    tail[over] = scipy.stats.hypergeom.sf((k - 1)[over], (n + m)[over], (k + b)[over], n[over])
    tail[~over] = scipy.stats.hypergeom.cdf(k[~over], (n + m)[~over], (k + b)[~over], n[~over])
    return np.where(over, 1.0, -1.0) * normal_from_p(np.minimum(1.0, 2 * tail))


def new_value_z(hits: float, rows: float, prior_hits: float, prior_rows: float) -> float:
    """Normal equivalent of more new values than expected, 0 if there are not more.

    The unknown rate of new values has a Gamma posterior of shape ``prior_hits`` at rate
    ``prior_rows``, so that their number is negative binomial; counts may be effective ones.
    """
    if hits <= 0 or rows <= 0:
        return 0.0
    p = float(special.betainc(hits, prior_hits, rows / (rows + prior_rows)))
    return float(normal_from_p(np.array([min(1.0, p)]))[0])


def normal_from_p(p: Floats) -> Floats:
    """Turn two-sided p-values into the absolute normal value they belong to."""
    return np.asarray(-special.ndtri(np.maximum(p, 1e-300) / 2), np.float64)


def p_from_normal(z: Floats) -> Floats:
    """Two-sided p-values of normal values."""
    return np.asarray(2 * special.ndtr(-np.abs(z)), np.float64)


def p_of_rise(z: Floats) -> Floats:
    """p-values that give a rise nine tenths of the level, and a fall one tenth.

    A category or a missing rate that grows is the commoner fault, and the only one that a small
    share can show; a spread that grows sends rows where training has seen none.
    """
    return np.asarray(special.ndtr(-np.abs(z)) / np.where(z > 0, RISE, 1 - RISE), np.float64)


def studentised(z: Floats, freedom: Floats) -> Floats:
    """Give back the normal equivalent of z values whose scale was estimated.

    A z divided by a scale of ``freedom`` degrees is Student's t; infinite freedom changes nothing.
    """
    if np.isinf(freedom).all():
        return z
    t_tail = scipy.stats.t.logsf(np.abs(z), np.minimum(freedom, 1e6))
    heavy = np.sign(z) * -special.ndtri_exp(t_tail)
    return np.where(np.isfinite(freedom), heavy, z)
