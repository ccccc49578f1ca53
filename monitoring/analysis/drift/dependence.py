"""How much more a statistic varies from window to window than independent rows would let it.

Traffic repeats itself: neighbouring rows share users, hours and weather. A window of n such rows
tells as much as n / inflation independent ones. The inflation is measured on the baseline's own
blocks of the window's size, with the degrees of freedom of that measurement.

A cycle in the baseline (a day, a year) is not noise: a window that shows part of a cycle does
differ from the baseline. So cycles are taken out of the block statistics before their variation is
measured. What is left of a cycle shows where blocks longer than the window vary significantly less
than blocks of its size; then the longer blocks are believed. ``cycles="expected"`` leaves them in:
then a window passes that looks like some other block of its size.

Columns without evidence of dependence at any block size keep an inflation of exactly 1, and full
power; measuring it would cost degrees of freedom.
"""

from dataclasses import dataclass
from typing import Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import special

from monitoring.analysis.drift.cycles import find_cycles, without_cycles

Floats = NDArray[np.float64]
Cycles = Literal["drift", "expected"]

MAX_MICRO_BLOCKS: Final = 2048
MIN_BLOCKS: Final = 4.0
# Overlapping blocks carry 3/2 of the information of disjoint ones about a variance.
OVERLAP_GAIN: Final = 1.5
# Blocks that overlap more than this tell nothing new.
BLOCKS_A_WIDTH: Final = 8
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
    on which the statistics make sense. ``deviations(width, step)`` gives, for overlapping blocks of
    ``width`` micro-blocks, one every ``step``, their difference from the whole in standard errors
    of independent rows: (blocks, S), 0 where a block or a statistic says nothing.
    """

    @property
    def count(self) -> int: ...
    @property
    def micro_rows(self) -> float: ...
    @property
    def min_rows(self) -> float: ...
    @property
    def groups(self) -> NDArray[np.int64]: ...
    @property
    def excess(self) -> Floats: ...
    def deviations(self, width: int, step: int) -> Floats: ...


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

    def deviations(self, width: int, step: int) -> Floats:
        rows = self.present[width::step] - self.present[:-width:step]
        total = self.sums[width::step] - self.sums[:-width:step]
        all_rows = np.maximum(self.present[-1], 1)
        error = total / np.maximum(rows, 1) - self.sums[-1] / all_rows
        # A block is part of the whole it is compared with, hence the minus.
        expected = self.variance * (1 / np.maximum(rows, 1) - 1 / all_rows)
        return standardised(error, np.where(rows > 0, expected, 0.0))


def standardised(error: Floats, expected: Floats) -> Floats:
    """Divide errors by the square root of their expected squares, 0 where nothing is expected."""
    usable = expected > 0
    return np.divide(
        error,
        np.sqrt(expected, where=usable, out=np.ones_like(error)),
        out=np.zeros_like(error),
        where=usable,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependence:
    """What a baseline's blocks show, measured once for windows of any size.

    ``groups`` are the dependent columns, ``cycles`` in cycles per micro-block, ``dependent`` (S)
    marks the statistics of those columns. ``rows`` (W) are the block sizes that were measured;
    ``factor`` and ``freedom`` (W, S) hold the inflation there for each way to see cycles.
    """

    groups: NDArray[np.int64]
    cycles: Floats
    dependent: NDArray[np.bool_]
    rows: Floats
    factor: dict[Cycles, Floats]
    freedom: dict[Cycles, Floats]


def find_dependence(blocks: Blocks, cycles: Floats | None = None) -> Dependence:
    """Look for serial dependence, and in dependent columns for cycles unless they are given."""
    widths = block_widths(blocks)
    plain = [_measured(blocks, width, np.empty(0)) for width in widths]
    groups = _dependent_groups(blocks, widths, plain)
    mask = np.isin(blocks.groups, groups)
    if not mask.any():
        return Dependence(
            groups=groups,
            cycles=np.empty(0),
            dependent=mask,
            rows=np.empty(0),
            factor={},
            freedom={},
        )
    if cycles is None:
        cycles = find_cycles(blocks.deviations(1, 1)[:, mask], len(groups))
    rest = [_measured(blocks, width, cycles) for width in widths] if len(cycles) else plain
    tables: dict[Cycles, list[Inflation]] = {
        "drift": [_believed(rest[index:]) for index in range(len(widths))],
        "expected": plain,
    }
    return Dependence(
        groups=groups,
        cycles=cycles,
        dependent=mask,
        rows=np.array(widths) * blocks.micro_rows,
        factor={way: np.stack([one.factor for one in found]) for way, found in tables.items()},
        freedom={way: np.stack([one.freedom for one in found]) for way, found in tables.items()},
    )


def block_widths(blocks: Blocks) -> list[int]:
    """Widths from the smallest sensible to a quarter of the baseline, 2**(1/4) apart."""
    narrowest = max(1.0, np.ceil(blocks.min_rows / blocks.micro_rows))
    widest = blocks.count / MIN_BLOCKS
    if widest < narrowest:
        return []
    steps = narrowest * 2 ** np.arange(0, np.log2(widest / narrowest) + 1e-9, 0.25)
    return [int(width) for width in np.unique(np.rint(steps))]


def _measured(blocks: Blocks, width: int, cycles: Floats) -> Inflation:
    """Mean square of the deviations at one width, what cycles explain left out."""
    step = max(1, width // BLOCKS_A_WIDTH)
    deviations = blocks.deviations(width, step)
    # Of shorter cycles a block holds several, and its mean knows nothing.
    visible = cycles[cycles * width < 2]
    rest = without_cycles(deviations, visible * step)
    counted = (deviations != 0).sum(0)
    independent = OVERLAP_GAIN * blocks.count / width - 1
    freedom = max(independent - 2 * len(visible), 1.0)
    lost = max(independent, 1.0) / freedom
    factor = np.where(counted > 0, (rest**2).sum(0) / np.maximum(counted, 1) * lost, 1.0)
    return Inflation(factor=factor, freedom=np.full(len(factor), freedom))


def _dependent_groups(
    blocks: Blocks, widths: list[int], plain: list[Inflation]
) -> NDArray[np.int64]:
    """Find the groups whose statistics vary too much from block to block for chance."""
    found = np.zeros(len(blocks.groups), bool)
    for width, measured in zip(widths, plain, strict=True):
        # Squares of rare events vary more than a normal's; chi-square with fewer degrees.
        shrink = 2 / (2 + np.maximum(blocks.excess, 0) / (width * blocks.micro_rows))
        freedom = measured.freedom * shrink
        p = special.chdtrc(freedom, measured.factor * freedom)
        found |= p < EVIDENCE / len(widths)
    return np.unique(blocks.groups[found])


def _believed(measured: list[Inflation]) -> Inflation:
    """Take the first, narrowest width's inflation, or that of wider blocks if they vary less.

    Then what is left of a cycle averages out over the wider blocks.
    """
    own = measured[0]
    factor, freedom = own.factor, own.freedom
    for wide in measured[1:]:
        ratio = own.factor / np.maximum(wide.factor, 1e-12)
        averages_out = special.fdtrc(own.freedom, wide.freedom, ratio) < CYCLE_EVIDENCE
        take = averages_out & (wide.factor < factor)
        factor = np.where(take, wide.factor, factor)
        freedom = np.where(take, wide.freedom, freedom)
    return Inflation(factor=factor, freedom=freedom)


def inflation(dependence: Dependence, rows: float, cycles: Cycles = "drift") -> Inflation:
    """Inflation (S) of windows of ``rows`` rows, interpolated between the measured sizes.

    Windows above a quarter of the baseline are judged by blocks of that quarter.
    """
    mask = dependence.dependent
    if not mask.any():
        return Inflation(factor=np.ones(len(mask)), freedom=np.full(len(mask), np.inf))
    sizes = np.arange(len(dependence.rows))
    place = np.interp(np.log(max(rows, 1.0)), np.log(dependence.rows), sizes)
    low = int(place)
    high, share = min(low + 1, len(sizes) - 1), place - low
    factor, freedom = dependence.factor[cycles], dependence.freedom[cycles]
    between = (1 - share) * factor[low] + share * factor[high]
    return Inflation(
        factor=np.where(mask, np.maximum(between, 1.0), 1.0),
        freedom=np.where(mask, (1 - share) * freedom[low] + share * freedom[high], np.inf),
    )
