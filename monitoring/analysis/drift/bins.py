"""Bins that a baseline fixes once and every window is counted into.

Invariants:

- A value belongs to exactly one bin, by comparisons with float64 edges: ``edges[i - 1] <= x <
  edges[i]`` is bin ``i``; the outer bins are open to infinity; NaN goes to bin ``missing``.
- A value that many training rows share (an *atom*) has a bin of its own, ``[v, next float)``, so
  ties are counted exactly and a value between two atoms is seen as new.
- The bins below the smallest and from above the largest training value are empty in training.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from monitoring.analysis.drift.columns import as_texts

QUANTILE_BINS: Final = 64
MAX_ATOMS: Final = 30
MAX_CATEGORIES: Final = 10_000
# Of a list that is cut, each category has at least this many rows of those that it is chosen by.
MIN_LISTED_ROWS: Final = 25
# Above 1/64: an atom would otherwise swallow more than a quantile bin of its neighbours.
ATOM_SHARE: Final = 1 / 48
# Half the information about a change of scale lies in the outer 3%, so bins are finer there.
TAIL_SHARES: Final = (1 / 2048, 1 / 1024, 1 / 512, 1 / 256, 1 / 128, 1 / 80)
MIN_TAIL_ROWS: Final = 8
CELLS: Final = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberBins:
    """Edges of one number and a table that finds a value's bin without a search.

    The table's cell is the upper half of the float32 pattern of ``x - center``: 0.8% wide around
    the median, whatever the scale. ``cell_bins`` holds the lowest bin of a cell; ``passes`` exact
    comparisons with the next edge finish the job (edges of one cell at most; binary search instead
    where that would be many). ``upper`` holds the edge above each slot, NaN where there is none.
    """

    edges: NDArray[np.float64]
    upper: NDArray[np.float64]
    center: float
    cell_bins: NDArray[np.uint8]
    passes: int
    discrete: bool

    @property
    def missing(self) -> int:
        return len(self.edges) + 1

    @property
    def slots(self) -> int:
        """Number of counters: the bins and one for missing values."""
        return len(self.edges) + 2

    def assign(self, values: NDArray[np.float64]) -> NDArray[np.uint8]:
        """Find the bin of every value; the caller turns NumPy's overflow warnings off."""
        if self.passes > 4:
            found = np.searchsorted(self.edges, values, side="right").astype(np.uint8)
            found[np.isnan(values)] = self.missing
            return found
        bins = self.cell_bins[_cells(values, self.center)]
        # NaN compares false, which keeps the outer bin and the missing where they are.
        for _ in range(self.passes):
            bins += values >= self.upper[bins]
        return bins


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoryBins:
    """Known categories, most frequent first; then one bin for all others, one for missing.

    ``complete`` says that every training value is listed, so that the bin for others is for
    unseen ones only.
    """

    categories: pa.StringArray
    complete: bool

    @property
    def other(self) -> int:
        return len(self.categories)

    @property
    def missing(self) -> int:
        return len(self.categories) + 1

    @property
    def slots(self) -> int:
        return len(self.categories) + 2

    def assign(self, values: pa.Array) -> NDArray[np.int64]:
        """Find the bin of every value of a string column."""
        known = pc.index_in(values, value_set=self.categories)
        found: NDArray[np.int64] = (
            known.fill_null(self.other).to_numpy(zero_copy_only=False).astype(np.int64)
        )
        if values.null_count:
            found[values.is_null().to_numpy(zero_copy_only=False)] = self.missing
        return found


def _cells(values: NDArray[np.float64], center: float) -> NDArray[np.uint32]:
    offsets = (values - center).astype(np.float32)  # out of range becomes infinite, as it should
    return offsets.view(np.uint32) >> np.uint32(16)


def number_bins(values: NDArray[np.float64]) -> NumberBins:
    """Choose the bins of a number from its training values, NaN left out.

    Few distinct values make one bin each; otherwise bins stand at quantiles, atoms apart. No
    values at all make one open bin, in which everything counts as new.
    """
    present = np.sort(values[~np.isnan(values)])
    if not len(present):
        return _with_table(np.empty(0), 0.0, discrete=False)
    distinct, counts = np.unique(present, return_counts=True)
    if len(distinct) <= MAX_ATOMS:
        atoms, inner = distinct, np.empty(0)
    else:
        heavy = np.flatnonzero(counts >= ATOM_SHARE * len(present))
        atoms = distinct[heavy[np.argsort(counts[heavy])[::-1][:MAX_ATOMS]]]
        inner = np.quantile(present, _shares(len(present)), method="higher")
    outer = [present[0], np.nextafter(present[-1], np.inf)]
    edges = np.unique(np.concatenate([outer, inner, atoms, np.nextafter(atoms, np.inf)]))
    return _with_table(
        edges[np.isfinite(edges)],
        float(np.median(present)),
        discrete=len(distinct) <= MAX_ATOMS,
    )


def _shares(rows: int) -> NDArray[np.float64]:
    tails = np.array([share for share in TAIL_SHARES if share * rows >= MIN_TAIL_ROWS])
    middle = np.linspace(1 / 64, 1 - 1 / 64, QUANTILE_BINS - 2 * len(TAIL_SHARES) + 1)
    # Deciles are edges too, for the effect sizes that are told by deciles.
    return np.unique(np.concatenate([tails, middle, np.arange(1, 10) / 10, 1 - tails]))


def _with_table(edges: NDArray[np.float64], center: float, *, discrete: bool) -> NumberBins:
    center = center if np.isfinite(center) else 0.0
    # Order of cells along the number line: negative patterns run backwards.
    cells = np.arange(CELLS)
    order = np.where(cells < CELLS // 2, cells + CELLS // 2, CELLS - 1 - cells)
    edge_orders = np.sort(order[_cells(edges, center)])
    lowest = np.searchsorted(edge_orders, order, side="left").astype(np.uint8)
    nan_cell = ((cells & 0x7F80) == 0x7F80) & ((cells & 0x7F) != 0)
    lowest[nan_cell] = len(edges) + 1
    crowd = np.unique(edge_orders, return_counts=True)[1]
    return NumberBins(
        edges=edges,
        upper=np.append(edges, [np.nan, np.nan]),
        center=center,
        cell_bins=lowest,
        passes=int(crowd.max(initial=0)),
        discrete=discrete,
    )


def category_bins(values: pa.Array | pa.ChunkedArray) -> CategoryBins:
    """List the training categories, most frequent first.

    Beyond ``MAX_CATEGORIES`` only frequent ones, and all others share the bin for others. Those
    near the cut are on the list because they happened to be frequent, and would seem to fall in any
    window: so even rows choose the list, and odd rows alone are to be counted (``counted_rows``).
    """
    texts = as_texts(values)
    counted = pc.value_counts(texts.drop_null())
    if len(counted) > MAX_CATEGORIES:
        evens = pa.array(np.arange(len(texts)) % 2 == 0)
        counted = pc.value_counts(texts.filter(evens).drop_null())
        return _listed(counted, least=MIN_LISTED_ROWS, complete=False)
    return _listed(counted, least=0, complete=True)


def counted_rows(bins: NumberBins | CategoryBins) -> slice:
    """Rows of the baseline that its counts are made of: the odd ones where even ones chose bins."""
    chosen = isinstance(bins, CategoryBins) and not bins.complete
    return slice(1, None, 2) if chosen else slice(None)


def _listed(counted: pa.StructArray, *, least: int, complete: bool) -> CategoryBins:
    # By count, then by name, so that equal data gives equal bins.
    pairs = sorted(
        zip(counted.field("counts").to_pylist(), counted.field("values").to_pylist(), strict=True),
        key=lambda pair: (-pair[0], pair[1]),
    )
    kept = [name for count, name in pairs[:MAX_CATEGORIES] if count >= least]
    return CategoryBins(categories=pa.array(kept, pa.string()), complete=complete)
