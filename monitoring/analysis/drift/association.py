"""Correlations of normal scores between columns: changes that move no single column.

Scores come from the marginal bins, so the statistic does not care for scale, skew or outliers, and
needs of a window only its integer sums of products.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from monitoring.analysis.drift.dependence import (
    Cycles,
    Dependence,
    Inflation,
    find_dependence,
    inflation,
    standardised,
)
from monitoring.analysis.drift.layout import Layout
from monitoring.analysis.drift.summary import WEIGHT_UNIT, WindowSummary
from monitoring.analysis.drift.tails import p_from_normal, studentised

Floats = NDArray[np.float64]

MIN_ROWS: Final = 50
# Products of two rare values have tails that Fisher's z does not tame at fewer rows per kurtosis.
ROWS_PER_KURTOSIS: Final = 2.0
CHUNK_ROWS: Final = 16_384


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockCorrelations:
    """Fisher z of all pairs on blocks of the baseline; see ``dependence.Blocks``.

    ``sums`` and ``squares`` (count + 1, F) and ``products`` (count + 1, P) of scores run over
    micro-blocks from 0.
    """

    sums: Floats
    squares: Floats
    products: Floats
    edges: NDArray[np.int64]
    fisher: Floats
    variance: Floats
    excess: Floats
    groups: NDArray[np.int64]
    min_rows: float = MIN_ROWS

    @property
    def count(self) -> int:
        return len(self.sums) - 1

    @property
    def micro_rows(self) -> float:
        return float(self.edges[-1]) / self.count

    def deviations(self, width: int, step: int) -> Floats:
        rows = (self.edges[width::step] - self.edges[:-width:step]).astype(np.float64)
        fisher, usable = _fisher(
            self.sums[width::step] - self.sums[:-width:step],
            self.squares[width::step] - self.squares[:-width:step],
            self.products[width::step] - self.products[:-width:step],
            rows,
        )
        expected = self.variance * (1 / rows - 1 / self.edges[-1])[:, None]
        return standardised(fisher - self.fisher, np.where(usable, expected, 0.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Association:
    """The baseline's correlations; P pairs above the diagonal.

    ``fisher`` (P), ``variance`` (P) of one row's influence on it, ``kurtosis`` (P) the product of
    both columns', ``dependence`` names the pairs whose correlation varies more than by chance.
    """

    rows: int
    fisher: Floats
    variance: Floats
    kurtosis: Floats
    alive: NDArray[np.bool_]
    dependence: Dependence


def fit_association(
    layout: Layout, slots: Sequence[NDArray[np.integer]], edges: NDArray[np.int64], cycles: Floats
) -> Association:
    """Measure the correlations of a baseline's columns, whole and by micro-block.

    ``slots[f]`` are the bins of column f's rows in time order; ``edges`` (count + 1) the rows at
    which micro-blocks start, and the number of rows; ``cycles`` those found in the columns' means.
    """
    width, rows = len(slots), int(edges[-1])
    pair = np.triu_indices(width, 1)
    sums, squares = np.zeros((len(edges), width)), np.zeros((len(edges), width))
    products = np.zeros((len(edges), len(pair[0])))
    for block, (start, stop) in enumerate(pairwise(edges), 1):
        scores = _scores(layout, slots, start, stop)
        product = scores @ scores.T
        sums[block] = sums[block - 1] + scores.sum(1)
        squares[block] = squares[block - 1] + product.diagonal()
        products[block] = products[block - 1] + product[pair]
    mean = sums[-1] / rows
    spread = np.sqrt(np.maximum(squares[-1] / rows - mean**2, 0))
    mixed, cubes = _fourth_moments(layout, slots, mean, spread)
    fisher, alive = _fisher(sums[-1:], squares[-1:], products[-1:], np.array([float(rows)]))
    variance = _influence_variance(np.tanh(fisher[0]), mixed, cubes, pair)
    fourth = np.diag(mixed)
    kurtosis = fourth[pair[0]] * fourth[pair[1]]
    blocks = BlockCorrelations(
        sums=sums,
        squares=squares,
        products=products,
        edges=edges,
        fisher=fisher[0],
        variance=np.where(alive[0], variance, 0.0),
        excess=kurtosis,
        groups=np.arange(len(pair[0])),
    )
    return Association(
        rows=rows,
        fisher=fisher[0],
        variance=variance,
        kurtosis=kurtosis,
        alive=alive[0] & (variance > 0),
        dependence=find_dependence(blocks, cycles),
    )


def _influence_variance(
    r: Floats, mixed: Floats, cubes: Floats, pair: tuple[NDArray[np.intp], ...]
) -> Floats:
    """Variance of z_i z_j - r (z_i**2 + z_j**2) / 2, on Fisher's scale, for each pair (i, j)."""
    fourth = np.diag(mixed)
    variance: Floats = (
        mixed[pair] * (1 + r**2 / 2)
        + r**2 / 4 * (fourth[pair[0]] + fourth[pair[1]])
        - r * (cubes[pair] + cubes.T[pair])
    ) / (1 - r**2) ** 2
    return variance


@dataclass(frozen=True, slots=True, kw_only=True)
class PairDifferences:
    """Per pair of columns: difference of correlations, and its p-value (NaN: not testable)."""

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    baseline_r: Floats
    window_r: Floats
    p: Floats
    inflation: Inflation


def compare_association(
    association: Association, window: WindowSummary, cycles: Cycles = "drift"
) -> PairDifferences:
    """Test every pair's correlation in a window against the baseline's."""
    width = len(window.layout.columns)
    counts = window.layout.part(window.counts, 0).sum() / WEIGHT_UNIT
    squares = window.layout.part(window.squares, 0).sum() / WEIGHT_UNIT
    effective = counts**2 / squares if squares else 0.0
    first, second = np.triu_indices(width, 1)
    products = window.products / WEIGHT_UNIT
    fisher, usable = _fisher(
        window.score_sums[None] / WEIGHT_UNIT,
        products.diagonal()[None],
        products[first, second][None],
        np.array([max(counts, 1.0)]),
    )
    spread = inflation(association.dependence, effective, cycles)
    rows = effective / spread.factor
    testable = association.alive & usable[0] & (rows >= MIN_ROWS)
    testable &= rows >= association.kurtosis / ROWS_PER_KURTOSIS
    noise = association.variance * (1 / np.maximum(rows - 3, 1) + spread.factor / association.rows)
    difference = np.where(testable, fisher[0] - association.fisher, 0.0)
    z = studentised(difference / np.sqrt(np.where(testable, noise, 1.0)), spread.freedom)
    return PairDifferences(
        first=first,
        second=second,
        baseline_r=np.tanh(association.fisher),
        window_r=np.tanh(fisher[0]),
        p=np.where(testable, p_from_normal(z), np.nan),
        inflation=spread,
    )


def _fisher(
    sums: Floats, squares: Floats, products: Floats, rows: Floats
) -> tuple[Floats, NDArray[np.bool_]]:
    """Fisher z of the pairs above the diagonal for (B) blocks, and where it is defined: (B, P).

    ``sums`` and ``squares`` of scores are (B, F), ``products`` (B, P).
    """
    mean = sums / rows[:, None]
    spread = np.sqrt(np.maximum(squares / rows[:, None] - mean**2, 0))
    first, second = np.triu_indices(sums.shape[1], 1)
    covariance = products / rows[:, None] - mean[:, first] * mean[:, second]
    scale = spread[:, first] * spread[:, second]
    usable = scale > 1e-9
    r = np.divide(covariance, scale, out=np.zeros_like(scale), where=usable)
    # Copies of one column correlate perfectly; a bound keeps their z finite and comparable.
    return np.arctanh(np.clip(r, -0.999, 0.999)), usable


def _scores(
    layout: Layout, slots: Sequence[NDArray[np.integer]], start: int, stop: int
) -> NDArray[np.float64]:
    return np.stack(
        [table[column[start:stop]] for table, column in zip(layout.scores, slots, strict=True)]
    ).astype(np.float64)


def _fourth_moments(
    layout: Layout, slots: Sequence[NDArray[np.integer]], mean: Floats, spread: Floats
) -> tuple[Floats, Floats]:
    """Means of z_i**2 z_j**2 and of z_i**3 z_j over standardised scores: (F, F) each."""
    width, rows = len(slots), len(slots[0])
    squares, cubes = np.zeros((width, width)), np.zeros((width, width))
    scale = np.where(spread > 0, spread, 1.0)
    for start in range(0, rows, CHUNK_ROWS):
        z = (_scores(layout, slots, start, start + CHUNK_ROWS) - mean[:, None]) / scale[:, None]
        squares += z**2 @ (z**2).T
        cubes += z**3 @ z.T
    return squares / rows, cubes / rows
