"""Counts of one window that need no baseline: constant memory, whole numbers, mergeable.

Every counter is a sum over events or rows, so any split over batches, shards and time, merged in
any order, gives the same figures.
"""

from typing import Final, TypeVar

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from monitoring.agent.sampling import outside
from monitoring.agent.settings import InputLimits
from monitoring.events import FEATURE_PREFIX, Stream

LATENCY_BOUNDS_MS: Final = (
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0),
    *(100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0, 10_000.0),
)
OK_STATUS: Final = 200
SCORE_BINS: Final = 50
OTHER: Final = "other"
# A regression's predictions fall into buckets 5% wide, so quantiles are right to 2.5%; values
# nearer to zero than SMALLEST count as zero. At most 2 * 2,000 buckets.
WIDTH: Final = float(np.log(1.05))
SMALLEST: Final = 1e-12
MAX_BUCKET: Final = 2_000

_Key = TypeVar("_Key", str, int)


class FeatureCounts(msgspec.Struct):
    """Answered rows of one feature that training would not have shown."""

    missing: int = 0
    outside: int = 0  # below the least or above the greatest training value
    unseen: int = 0  # a category that training did not have


class WindowFigures(msgspec.Struct):
    """``rows``, ``labels``, ``scores`` and ``features`` are of answered requests (status 200).

    ``latency`` counts events per bucket of ``LATENCY_BOUNDS_MS``, the last for everything above.
    ``scores`` counts rows per bin: of a classifier's confidence in fiftieths, of a regressor's
    prediction in ``score_bucket``s.
    """

    events: int = 0
    rows: int = 0
    statuses: dict[int, int] = {}
    latency: list[int] = msgspec.field(default_factory=lambda: [0] * (len(LATENCY_BOUNDS_MS) + 1))
    latency_us: int = 0
    labels: dict[str, int] = {}
    scores: dict[int, int] = {}
    features: dict[str, FeatureCounts] = {}

    def update(
        self, batch: pa.RecordBatch, stream: Stream, limits: dict[str, InputLimits]
    ) -> pa.RecordBatch:
        """Count a batch of ``counted_schema`` columns; return its answered rows."""
        status = _numpy(batch.column("status"))
        first = _numpy(batch.column("row")) == 0
        latency_ms = _numpy(batch.column("latency_ms"))[first]
        self.events += len(latency_ms)
        _add_counts(self.statuses, status[first])
        places = np.searchsorted(LATENCY_BOUNDS_MS, latency_ms, side="left")
        counted = np.bincount(places, minlength=len(self.latency))
        self.latency = [have + int(new) for have, new in zip(self.latency, counted, strict=True)]
        self.latency_us += int(np.rint(latency_ms * 1000.0).sum())
        answered = batch if (status == OK_STATUS).all() else batch.filter(status == OK_STATUS)
        self.rows += answered.num_rows
        self._count_answers(answered, stream)
        self._count_inputs(answered, stream, limits)
        return answered

    def _count_answers(self, rows: pa.RecordBatch, stream: Stream) -> None:
        score = _numpy(rows.column("score"))
        score = score[~np.isnan(score)]
        if stream.task == "regression":
            _add_counts(self.scores, score_buckets(score))
            return
        _add_counts(self.scores, np.clip(score * SCORE_BINS, 0, SCORE_BINS - 1).astype(np.int64))
        counted = pc.value_counts(rows.column("label").drop_null())
        for value, count in zip(
            counted.field("values").to_pylist(), counted.field("counts").to_pylist(), strict=True
        ):
            label = value if value in stream.classes else OTHER
            self.labels[label] = self.labels.get(label, 0) + count

    def _count_inputs(
        self, rows: pa.RecordBatch, stream: Stream, limits: dict[str, InputLimits]
    ) -> None:
        for feature in stream.features:
            column = rows.column(FEATURE_PREFIX + feature.name)
            counts = self.features.setdefault(feature.name, FeatureCounts())
            counts.missing += column.null_count
            limit = limits.get(feature.name)
            if limit is not None:
                found = int(outside(column, limit).sum())
                if pa.types.is_string(column.type):
                    counts.unseen += found
                else:
                    counts.outside += found

    def merge(self, other: "WindowFigures") -> None:
        self.events += other.events
        self.rows += other.rows
        self.latency_us += other.latency_us
        self.latency = [a + b for a, b in zip(self.latency, other.latency, strict=True)]
        _merge_counts(self.statuses, other.statuses)
        _merge_counts(self.labels, other.labels)
        _merge_counts(self.scores, other.scores)
        for name, counts in other.features.items():
            have = self.features.setdefault(name, FeatureCounts())
            have.missing += counts.missing
            have.outside += counts.outside
            have.unseen += counts.unseen

    def sort(self) -> None:
        """Put counts by key in order of their keys."""
        self.statuses = dict(sorted(self.statuses.items()))
        self.labels = dict(sorted(self.labels.items()))
        self.scores = dict(sorted(self.scores.items()))
        self.features = dict(sorted(self.features.items()))


def score_buckets(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Find the bucket of each number: 0 around zero, one more for each 5% further out, by sign.

    >>> score_buckets(np.array([0.0, 1.0, 1.06, -1.0]))
    array([   0,  567,  568, -567])
    """
    size = np.maximum(np.abs(values), SMALLEST)
    steps = np.minimum(np.ceil(np.log(size / SMALLEST) / WIDTH), MAX_BUCKET)
    return (np.sign(values) * steps).astype(np.int64)


def bucket_value(bucket: int) -> float:
    """Return the middle of a bucket, in which no number is more than 2.5% away."""
    if bucket == 0:
        return 0.0
    size = SMALLEST * float(np.exp(WIDTH * (abs(bucket) - 0.5)))
    return size if bucket > 0 else -size


def _numpy(column: pa.Array) -> NDArray[np.generic]:
    values: NDArray[np.generic] = column.to_numpy(zero_copy_only=False)
    return values


def _add_counts(into: dict[int, int], values: NDArray[np.generic]) -> None:
    found, counts = np.unique(values, return_counts=True)
    for value, count in zip(found.tolist(), counts.tolist(), strict=True):
        into[value] = into.get(value, 0) + count


def _merge_counts(into: dict[_Key, int], counts: dict[_Key, int]) -> None:
    for key, count in counts.items():
        into[key] = into.get(key, 0) + count
