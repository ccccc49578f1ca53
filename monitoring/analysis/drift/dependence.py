"""How much more a statistic varies from window to window than independent rows would let it.

Traffic repeats itself: neighbouring rows share users, hours and weather. A window of n such rows
tells as much as n / inflation independent ones. The inflation is measured on the baseline's own
blocks of the window's size, with the degrees of freedom of that measurement.

A cycle in the baseline (a day, a year) is not noise. Where blocks longer than the window vary
significantly less than blocks of its size, the excess averages out over the cycle: a window that
shows part of a cycle does differ from the baseline, and is judged by the variation of whole cycles.

Columns without evidence of dependence at any block size keep an inflation of exactly 1, and full
power; measuring it would cost degrees of freedom.
"""

from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]

MAX_MICRO_BLOCKS: Final = 2048
MIN_BLOCKS: Final = 4.0
# Overlapping blocks carry 3/2 of the information of disjoint ones about a variance.
OVERLAP_GAIN: Final = 1.5
EVIDENCE: Final = 1e-5
CYCLE_EVIDENCE: Final = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Inflation:
    """Variance inflation (S) of statistics, with the degrees of freedom of each (S).

    ``freedom`` is infinite where rows are taken as independent.
    """

    factor: Floats
    freedom: Floats


class Blocks(Protocol):
    """A baseline in time order, cut into ``count`` equal micro-blocks, with S statistics.

    ``groups`` (S) numbers the column a statistic belongs to: dependence is decided per column.
    ``excess`` (S) is the excess kurtosis of one row's contribution, ``min_rows`` the smallest block
    on which the statistics make sense. ``measured(width)`` averages the squared deviations of
    (overlapping) blocks of ``width`` micro-blocks from the whole, in units of what independent rows
    would give: (S), 1 for a statistic that does not vary.
    """

    count: int
    micro_rows: float
    min_rows: float
    groups: NDArray[np.int64]
    excess: Floats

    def measured(self, width: int) -> Floats: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockMeans:
    """Blocks whose statistics are means over rows.

    ``sums`` (count + 1, S) runs over micro-blocks from 0; ``present`` the same for the rows that
    count; ``variance`` (S) is that of one row.
    """

    sums: Floats
    present: Floats
    variance: Floats
    excess: Floats
    groups: NDArray[np.int64]
    micro_rows: float
    min_rows: float = 1.0

    @property
    def count(self) -> int:
        return len(self.sums) - 1

    def measured(self, width: int) -> Floats:
        rows = self.present[width:] - self.present[:-width]
        total = self.sums[width:] - self.sums[:-width]
        all_rows = np.maximum(self.present[-1], 1)
        error = total / np.maximum(rows, 1) - self.sums[-1] / all_rows
        # A block is part of the whole it is compared with, hence the minus.
        expected = self.variance * (1 / np.maximum(rows, 1) - 1 / all_rows)
        return mean_ratio(error**2, np.where(rows > 0, expected, 0.0))


def mean_ratio(squares: Floats, expected: Floats) -> Floats:
    """Average ``squares / expected`` over axis 0 where something is expected; else 1."""
    usable = expected > 0
    ratio = np.divide(squares, expected, out=np.zeros_like(squares), where=usable)
    counted = usable.sum(0)
    return np.where(counted > 0, ratio.sum(0) / np.maximum(counted, 1), 1.0)


def block_widths(blocks: Blocks) -> list[int]:
    """Widths from the smallest sensible to a quarter of the baseline, 2**(1/4) apart."""
    narrowest = max(1.0, np.ceil(blocks.min_rows / blocks.micro_rows))
    widest = blocks.count / MIN_BLOCKS
    if widest < narrowest:
        return []
    steps = narrowest * 2 ** np.arange(0, np.log2(widest / narrowest) + 1e-9, 0.25)
    return [int(width) for width in np.unique(np.rint(steps))]


def _freedom(blocks: Blocks, width: int) -> float:
    return max(OVERLAP_GAIN * blocks.count / width - 1, 1.0)


def dependent(blocks: Blocks) -> NDArray[np.int64]:
    """Find the groups whose statistics vary too much from block to block for chance."""
    widths = block_widths(blocks)
    found = np.zeros(len(blocks.groups), bool)
    for width in widths:
        # Squares of rare events vary more than a normal's; chi-square with fewer degrees.
        shrink = 2 / (2 + np.maximum(blocks.excess, 0) / (width * blocks.micro_rows))
        freedom = _freedom(blocks, width) * shrink
        p = stats.chi2.sf(blocks.measured(width) * freedom, freedom)
        found |= p < EVIDENCE / len(widths)
    return np.unique(blocks.groups[found])


def inflation(blocks: Blocks, groups: NDArray[np.int64], rows: float) -> Inflation:
    """Inflation of windows of ``rows`` rows; ``groups`` are those found ``dependent``.

    Windows above a quarter of the baseline are judged by blocks of that quarter.
    """
    size = len(blocks.groups)
    widths = block_widths(blocks)
    mask = np.isin(blocks.groups, groups)
    if not mask.any() or not widths:
        return Inflation(factor=np.ones(size), freedom=np.full(size, np.inf))
    width = int(np.clip(round(rows / blocks.micro_rows), widths[0], widths[-1]))
    own, own_freedom = blocks.measured(width), _freedom(blocks, width)
    factor, freedom = own, np.full(size, own_freedom)
    for wider in [candidate for candidate in widths if candidate > width]:
        wide, wide_freedom = blocks.measured(wider), _freedom(blocks, wider)
        ratio = own / np.maximum(wide, 1e-12)
        averages_out = stats.f.sf(ratio, own_freedom, wide_freedom) < CYCLE_EVIDENCE
        take = averages_out & (wide < factor)
        factor = np.where(take, wide, factor)
        freedom = np.where(take, wide_freedom, freedom)
    return Inflation(
        factor=np.where(mask, np.maximum(factor, 1.0), 1.0),
        freedom=np.where(mask, freedom, np.inf),
    )
