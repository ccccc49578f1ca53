"""Where each bin of each column is counted: what two summaries must share to be merged."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from monitoring.analysis.drift.bins import CategoryBins, NumberBins
from monitoring.analysis.drift.columns import Column, as_numbers, as_texts
from monitoring.analysis.drift.scores import whole_scores

Bins = NumberBins | CategoryBins


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Columns, their bins and scores, and ``offsets`` of their counters in one flat array.

    ``scores[f]`` gives column f's whole-step normal score for every slot, zero for missing.
    ``identity`` is a digest of all that decides which counter a value falls into.
    """

    columns: tuple[Column, ...]
    bins: tuple[Bins, ...]
    scores: tuple[NDArray[np.float32], ...]
    offsets: NDArray[np.int64]
    identity: str

    @property
    def slots(self) -> int:
        return int(self.offsets[-1])

    def part(self, flat: NDArray[np.int64], index: int) -> NDArray[np.int64]:
        """Cut one column's counters out of a flat array."""
        return flat[self.offsets[index] : self.offsets[index + 1]]

    def assign(self, index: int, array: pa.Array) -> NDArray[np.integer]:
        """Find the slot of every value of one column."""
        bins = self.bins[index]
        if isinstance(bins, CategoryBins):
            return bins.assign(as_texts(array))
        return bins.assign(as_numbers(array, self.columns[index].float_bits))


def build_layout(
    columns: Sequence[Column], bins: Sequence[Bins], shares: Sequence[NDArray[np.float64]]
) -> Layout:
    """Lay the columns out; ``shares`` are the baseline's counts per slot, missing last."""
    scores = []
    digest = hashlib.blake2b(digest_size=16)
    for column, column_bins, share in zip(columns, bins, shares, strict=True):
        steps = whole_scores(share[:-1])
        scores.append(np.append(steps, np.float32(0)))
        digest.update(repr((column, column_bins.slots)).encode())
        digest.update(steps.tobytes())
        if isinstance(column_bins, NumberBins):
            digest.update(column_bins.edges.tobytes())
        else:
            digest.update(repr(column_bins.categories.to_pylist()).encode())
    sizes = [column_bins.slots for column_bins in bins]
    return Layout(
        columns=tuple(columns),
        bins=tuple(bins),
        scores=tuple(scores),
        offsets=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        identity=digest.hexdigest(),
    )
