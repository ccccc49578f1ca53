"""Summaries of windows: constant memory, mergeable in any order, nothing but integers.

Invariants:

- Every counter is an int64 sum over rows, so updating and merging are exactly associative and
  commutative: any split over batches, shards and time gives the same bytes.
- Weights are rounded to ``1 / WEIGHT_UNIT``; counters are in that unit. ``squares`` sums squared
  weights, which gives each statistic its effective sample size.
- ``products`` sums products of whole-step normal scores over pairs of columns.
- Of unseen categories the ``KEPT_UNSEEN`` with the smallest hashes are kept with their exact row
  counts: a fair sample of the distinct ones, and all of them while they are few.
"""

import hashlib
from collections.abc import Iterator
from typing import Any, Final, Self

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from monitoring.analysis.drift.bins import CategoryBins
from monitoring.analysis.drift.columns import as_texts, require_columns
from monitoring.analysis.drift.errors import SummaryMismatch, WindowUnusable
from monitoring.analysis.drift.layout import Layout

WEIGHT_UNIT: Final = 1024
MAX_WEIGHT: Final = 10_000.0
BLOCK_ROWS: Final = 16_384  # 20 columns of float32 scores stay in the second-level cache
KEPT_UNSEEN: Final = 32


class _Stored(msgspec.Struct, frozen=True, array_like=True):
    layout: str
    rows: int
    counts: bytes
    squares: bytes
    products: bytes
    score_sums: bytes
    unseen: dict[int, dict[str, int]]


class WindowSummary:
    """Counts of one window's rows in a layout's bins.

    ``counts`` and ``squares`` are flat (layout.slots), ``products`` is (columns, columns) and
    ``score_sums`` (columns).
    """

    __slots__ = (
        "_checked",
        "counts",
        "layout",
        "products",
        "rows",
        "score_sums",
        "squares",
        "unseen",
    )

    def __init__(self, layout: Layout) -> None:
        width = len(layout.columns)
        self.layout = layout
        self._checked: pa.Schema | None = None
        self.rows = 0
        self.counts = np.zeros(layout.slots, np.int64)
        self.squares = np.zeros(layout.slots, np.int64)
        self.products = np.zeros((width, width), np.int64)
        self.score_sums = np.zeros(width, np.int64)
        self.unseen: dict[int, dict[str, int]] = {}

    def update(
        self, rows: pa.RecordBatch | pa.Table, weights: NDArray[np.float64] | None = None
    ) -> None:
        """Count rows; ``weights`` are positive, one a row (1 / inclusion probability).

        Raises WindowUnusable, counting nothing, if a column or weight does not fit.
        """
        if self._checked is None or not self._checked.equals(rows.schema):
            require_columns(rows.schema, self.layout.columns)
            self._checked = rows.schema
        units = None if weights is None else _weight_units(weights, rows.num_rows)
        start = 0
        # Values beyond float32 fall into the outermost cell, which is where they belong.
        with np.errstate(over="ignore", invalid="ignore"):
            for block in _blocks(rows):
                stop = start + block.num_rows
                self._count(block, None if units is None else units[start:stop])
                start = stop

    def _count(self, block: pa.RecordBatch, units: NDArray[np.float64] | None) -> None:
        layout = self.layout
        # Sums stay below 2**24 (float32) or 2**53 (float64), so the matrix product is exact.
        kind = np.float32 if units is None else np.float64
        scores = np.empty((len(layout.columns), block.num_rows), kind)
        for index, column in enumerate(layout.columns):
            array = block.column(block.schema.get_field_index(column.source))
            slots = layout.assign(index, array)
            scores[index] = layout.scores[index][slots]
            size = layout.bins[index].slots
            plain = np.bincount(slots, minlength=size)
            counts, squares = layout.part(self.counts, index), layout.part(self.squares, index)
            if units is None:
                counts += plain * WEIGHT_UNIT
                squares += plain * WEIGHT_UNIT
            else:
                counts += np.bincount(slots, units, size).astype(np.int64)
                squared = np.floor(units * units / WEIGHT_UNIT)
                squares += np.bincount(slots, squared, size).astype(np.int64)
            bins = layout.bins[index]
            if isinstance(bins, CategoryBins) and bins.complete and plain[bins.other]:
                self._keep_unseen(index, array, slots == bins.other)
        unit = WEIGHT_UNIT if units is None else 1
        weighted = scores if units is None else scores * units
        self.products += (weighted @ scores.T).astype(np.int64) * unit
        self.score_sums += weighted.sum(axis=1, dtype=np.float64).astype(np.int64) * unit
        self.rows += block.num_rows

    def _keep_unseen(self, index: int, array: pa.Array, new: NDArray[np.bool_]) -> None:
        counted = pc.value_counts(as_texts(array).filter(pa.array(new)))
        names, counts = counted.field("values"), counted.field("counts")
        fresh = dict(zip(names.to_pylist(), counts.to_pylist(), strict=True))
        self.unseen[index] = _smallest_hashes(self.unseen.get(index, {}), fresh)

    def merge(self, other: Self) -> None:
        """Add another summary of the same baseline; SummaryMismatch if it is of another."""
        if other.layout.identity != self.layout.identity:
            raise SummaryMismatch(
                f"summary of baseline {other.layout.identity} cannot be merged into one of "
                f"baseline {self.layout.identity}"
            )
        self.rows += other.rows
        self.counts += other.counts
        self.squares += other.squares
        self.products += other.products
        self.score_sums += other.score_sums
        for index, names in other.unseen.items():
            self.unseen[index] = _smallest_hashes(self.unseen.get(index, {}), names)

    def to_bytes(self) -> bytes:
        """Serialise for a checkpoint; equal summaries give equal bytes."""
        unseen = {index: dict(sorted(names.items())) for index, names in self.unseen.items()}
        return msgspec.msgpack.encode(
            _Stored(
                layout=self.layout.identity,
                rows=self.rows,
                counts=self.counts.tobytes(),
                squares=self.squares.tobytes(),
                products=self.products.tobytes(),
                score_sums=self.score_sums.tobytes(),
                unseen=dict(sorted(unseen.items())),
            )
        )

    @classmethod
    def from_bytes(cls, layout: Layout, data: bytes) -> Self:
        """Read a checkpoint back; SummaryMismatch if it is damaged or of another baseline."""
        try:
            stored = msgspec.msgpack.decode(data, type=_Stored)
        except msgspec.DecodeError as exc:
            raise SummaryMismatch(f"no window summary, expected its MessagePack: {exc}") from exc
        if stored.layout != layout.identity:
            raise SummaryMismatch(
                f"summary is of baseline {stored.layout}, expected {layout.identity}"
            )
        summary = cls(layout)
        summary.rows = stored.rows
        for name in ("counts", "squares", "products", "score_sums"):
            into: NDArray[np.int64] = getattr(summary, name)
            into[...] = np.frombuffer(getattr(stored, name), np.int64).reshape(into.shape)
        summary.unseen = stored.unseen
        return summary


def merged(layout: Layout, *summaries: WindowSummary) -> WindowSummary:
    """Add summaries up into a new one; without any, an empty window."""
    total = WindowSummary(layout)
    for summary in summaries:
        total.merge(summary)
    return total


def _blocks(rows: pa.RecordBatch | pa.Table) -> Iterator[pa.RecordBatch]:
    batches: Any = rows.to_batches(BLOCK_ROWS) if isinstance(rows, pa.Table) else [rows]
    for batch in batches:
        for start in range(0, batch.num_rows, BLOCK_ROWS):
            yield batch.slice(start, BLOCK_ROWS)


def _weight_units(weights: NDArray[np.float64], rows: int) -> NDArray[np.float64]:
    if weights.shape != (rows,):
        raise WindowUnusable(f"weights have shape {weights.shape}, expected ({rows},)")
    units = np.rint(np.asarray(weights, np.float64) * WEIGHT_UNIT)
    bad = ~((units >= 1) & (units <= MAX_WEIGHT * WEIGHT_UNIT))
    if bad.any():
        raise WindowUnusable(
            f"weight {weights[bad][0]!r} is outside [{1 / WEIGHT_UNIT}, {MAX_WEIGHT:g}]"
        )
    return units


def _smallest_hashes(left: dict[str, int], right: dict[str, int]) -> dict[str, int]:
    """Bottom-k sketch: what a kept name has counted, it has counted from its first row on."""
    total = dict(left)
    for name, count in right.items():
        total[name] = total.get(name, 0) + count
    return {name: total[name] for name in sorted(total, key=_hash)[:KEPT_UNSEEN]}


def _hash(name: str) -> bytes:
    return hashlib.blake2b(name.encode(), digest_size=8).digest()
