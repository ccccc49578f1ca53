"""The baseline profile a bundle carries: ``baseline.parquet``.

Training rows as the log would have stored them, for drift detection to resample later: columns
``x_<feature>`` in the log's types, ``label`` (the true label: text, or float64 for regression),
``predicted`` (text, null for regression), ``score`` (probability of the predicted class, or the
predicted value) and ``probabilities`` (null for regression).

Invariants:

- Rows keep the order of the training data. Up to 50,000 rows all are kept; of more, 25 runs of
  2,000 neighbouring rows, evenly spaced: rows are rarely independent, and what drift detection
  measures on such blocks is lost in a shuffled sample.
- The schema's metadata holds a ``BaselineProfile`` as JSON under ``treeline``. Its statistics are
  those of all training rows, the ones that were not kept included.
"""

from typing import Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from monitoring.analysis.stored import table_of_bytes
from monitoring.events import ARROW_TYPES, FEATURE_PREFIX
from serve_app.errors import BundleInvalid
from serve_app.model.manifest import FeatureSpec, Task
from serve_app.model.predictions import Predictions

MAX_ROWS: Final = 50_000
BLOCK_ROWS: Final = 2_000
TOP_CATEGORIES: Final = 50
QUANTILES: Final = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
METADATA_KEY: Final = b"treeline"


class FeatureStatistics(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One feature over all training rows; ``count`` leaves the missing out.

    Numbers have ``mean``, ``std`` (of the sample, ddof 1; None below two values) and ``quantiles``
    at ``QUANTILES``; bools and texts their most frequent values with counts, most frequent first.
    """

    count: int
    missing: int
    mean: float | None = None
    std: float | None = None
    quantiles: dict[str, float] = {}
    top_categories: tuple[tuple[str, int], ...] = ()


class BaselineProfile(msgspec.Struct, frozen=True, kw_only=True):
    """What the file says about itself; ``block_rows`` neighbouring rows stand together."""

    total_rows: int
    block_rows: int
    features: dict[str, FeatureStatistics]


def kept_rows(total_rows: int) -> NDArray[np.int64]:
    """Indexes of the training rows to keep, ascending.

    >>> len(kept_rows(50_000)), len(kept_rows(50_001)), kept_rows(1_000_000)[[0, 2_000, -1]]
    (50000, 50000, array([     0,  41583, 999999]))
    """
    if total_rows <= MAX_ROWS:
        return np.arange(total_rows, dtype=np.int64)
    blocks = MAX_ROWS // BLOCK_ROWS
    # Spaced by more than BLOCK_ROWS, so rounding down can't make two blocks overlap.
    starts = np.linspace(0, total_rows - BLOCK_ROWS, blocks).astype(np.int64)
    return (starts[:, None] + np.arange(BLOCK_ROWS)).ravel()


def baseline_schema(features: tuple[FeatureSpec, ...], task: Task) -> pa.Schema:
    return pa.schema(
        [
            *(pa.field(FEATURE_PREFIX + f.name, ARROW_TYPES[f.dtype]) for f in features),
            pa.field("label", pa.string() if task == "classification" else pa.float64()),
            pa.field("predicted", pa.string()),
            pa.field("score", pa.float64()),
            pa.field("probabilities", pa.list_(pa.float32())),
        ]
    )


def build_baseline(
    columns: pa.Table,
    labels: pa.Array,
    predictions: Predictions,
    features: tuple[FeatureSpec, ...],
    task: Task,
) -> pa.Table:
    """Keep what the module's invariants say of all training rows, statistics in the metadata."""
    total = columns.num_rows
    rows = kept_rows(total)
    schema = baseline_schema(features, task)
    probabilities = predictions.probabilities
    table = pa.table(
        [
            *(columns.column(feature.name).take(rows) for feature in features),
            labels.take(pa.array(rows)),
            _taken_labels(predictions, rows),
            pa.array(predictions.scores[rows], pa.float64()),
            pa.nulls(len(rows), schema.field("probabilities").type)
            if probabilities is None
            else pa.array(list(probabilities[rows].astype(np.float32)), pa.list_(pa.float32())),
        ],
        schema=schema,
    )
    profile = BaselineProfile(
        total_rows=total,
        block_rows=min(total, MAX_ROWS) if total <= MAX_ROWS else BLOCK_ROWS,
        features={f.name: describe_column(columns.column(f.name)) for f in features},
    )
    return table.replace_schema_metadata({METADATA_KEY: msgspec.json.encode(profile)})


def describe_column(column: pa.ChunkedArray) -> FeatureStatistics:
    """Statistics of one column; empty columns have counts only."""
    count, missing = len(column) - column.null_count, column.null_count
    if count == 0:
        return FeatureStatistics(count=0, missing=missing)
    if pa.types.is_boolean(column.type) or pa.types.is_string(column.type):
        counted = pc.value_counts(column.drop_null()).to_pylist()
        # By count, then by value, so that equal data gives equal bytes.
        ordered = sorted(((str(c["values"]), c["counts"]) for c in counted), key=_frequent_first)
        return FeatureStatistics(
            count=count, missing=missing, top_categories=tuple(ordered[:TOP_CATEGORIES])
        )
    values = column.drop_null().to_numpy().astype(np.float64)
    quantiles = np.quantile(values, QUANTILES)
    return FeatureStatistics(
        count=count,
        missing=missing,
        mean=float(values.mean()),
        std=float(values.std(ddof=1)) if count > 1 else None,
        quantiles={str(q): float(v) for q, v in zip(QUANTILES, quantiles, strict=True)},
    )


def encode_baseline(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def decode_baseline(data: bytes, features: tuple[FeatureSpec, ...], task: Task) -> pa.Table:
    """Read the file and hold it against the manifest; BundleInvalid when they do not agree."""
    try:
        table = table_of_bytes(data, checksums=True)
    except (pa.ArrowException, OSError) as exc:
        raise BundleInvalid(f"baseline.parquet is not readable: {exc}") from exc
    expected = baseline_schema(features, task)
    if not table.schema.remove_metadata().equals(expected):
        differing = [f.name for f in expected if f not in list(table.schema)]
        raise BundleInvalid(
            "baseline.parquet does not have the columns the manifest asks for: "
            f"{', '.join(differing) or 'their order or number differs'}"
        )
    read_profile(table)
    return table


def read_profile(table: pa.Table) -> BaselineProfile:
    """Read the statistics out of a baseline's metadata."""
    metadata = (table.schema.metadata or {}).get(METADATA_KEY)
    if metadata is None:
        raise BundleInvalid("baseline.parquet has no 'treeline' metadata")
    try:
        return msgspec.json.decode(metadata, type=BaselineProfile)
    except msgspec.DecodeError as exc:
        raise BundleInvalid(f"baseline.parquet: metadata 'treeline': {exc}") from exc


def baseline_inputs(table: pa.Table) -> pa.Table:
    """Feature columns of a baseline under the features' own names, in order."""
    names = [name for name in table.column_names if name.startswith(FEATURE_PREFIX)]
    return table.select(names).rename_columns([n.removeprefix(FEATURE_PREFIX) for n in names])


def _taken_labels(predictions: Predictions, rows: NDArray[np.int64]) -> pa.Array:
    if predictions.labels is None:
        return pa.nulls(len(rows), pa.string())
    return pa.array([predictions.labels[row] for row in rows], pa.string())


def _frequent_first(counted: tuple[str, int]) -> tuple[int, str]:
    value, count = counted
    return -count, value
