"""Events as one Arrow batch of rows, column by column.

A value that does not fit its column is coerced where that loses nothing a reader would miss (a
whole number in a float column, a number in a text column) and else stored as null and counted: one
odd value never costs an event.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from typing import Any, Final

import numpy as np
import pyarrow as pa

from monitoring.capture.rowbytes import RowEvent, row_layout
from monitoring.events import ARROW_TYPES, Dtype, PredictionEvent, Stream, batch_schema

_LABELS: Final = pa.list_(pa.string())
_TAGS: Final = pa.map_(pa.string(), pa.string())
_INTS: Final = {16: pa.int16(), 64: pa.int64()}
_INT64: Final = range(-(2**63), 2**63)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Rows of a delivery, and how many of their values had to become null."""

    rows: pa.RecordBatch
    nulled_values: int


def to_batch(stream: Stream, events: Sequence[PredictionEvent | RowEvent]) -> Batch:
    """One line per row in the schema of ``batch_schema(stream)``; no events, no lines."""
    runs = [list(run) for _, run in groupby(events, type)]
    if not runs:
        return _from_events(stream, ())
    parts = [
        _from_rows(stream, run) if type(run[0]) is RowEvent else _from_events(stream, run)
        for run in runs
    ]
    if len(parts) == 1:
        return parts[0]
    nulled = sum(part.nulled_values for part in parts)
    table = pa.Table.from_batches([part.rows for part in parts]).combine_chunks()
    return Batch(rows=table.to_batches()[0], nulled_values=nulled)


def _from_rows(stream: Stream, events: Sequence[Any]) -> Batch:
    rows, nulled = row_layout(stream).to_batch(events)
    return Batch(rows=rows, nulled_values=nulled)


def _from_events(stream: Stream, events: Sequence[Any]) -> Batch:
    counts = [len(event.inputs) for event in events]
    single = sum(counts) == len(counts) and all(counts)

    def spread(values: list[Any]) -> list[Any]:
        if single:
            return values
        return [v for v, n in zip(values, counts, strict=True) for _ in range(n)]

    def per_event(name: str, dtype: pa.DataType) -> pa.Array:
        return pa.array(spread([getattr(event, name) for event in events]), dtype)

    def per_row(name: str, dtype: pa.DataType) -> pa.Array:
        lists = (getattr(event, name) for event in events)
        padded = (_padded(v, n) for v, n in zip(lists, counts, strict=True))
        return pa.array(list(chain.from_iterable(padded)), dtype)

    def required(name: str, bits: int) -> pa.Array:
        """Whole numbers that must not be null: what is too large becomes the largest."""
        values, dtype = spread([getattr(event, name) for event in events]), _INTS[bits]
        try:
            return pa.array(values, dtype)
        except (pa.ArrowException, OverflowError):
            top = 2 ** (bits - 1)
            return pa.array([max(-top, min(value, top - 1)) for value in values], dtype)

    tags = spread([list(e.tags.items()) if e.tags else None for e in events])
    features, nulled = _features(stream, events)
    columns = [
        required("seq", 64),
        pa.array(_row_numbers(counts), pa.int32()),
        required("ts_us", 64).cast(pa.timestamp("us", tz="UTC")),
        per_event("request_id", pa.string()),
        required("status", 16),
        per_event("latency_ms", pa.float64()),
        per_row("labels", pa.string()),
        per_row("scores", pa.float64()),
        _probabilities(events, counts),
        per_row("top_k", _LABELS),
        per_event("user_id", pa.string()),
        per_event("session_id", pa.string()),
        pa.array(tags, _TAGS),
        *features,
    ]
    rows = pa.RecordBatch.from_arrays(columns, schema=batch_schema(stream))
    return Batch(rows=rows, nulled_values=nulled)


def _row_numbers(counts: list[int]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """0, 1, … within each event."""
    lengths = np.asarray(counts, dtype=np.int64)
    starts = np.cumsum(lengths) - lengths
    return np.arange(lengths.sum()) - np.repeat(starts, lengths)


def _padded(values: list[Any] | None, rows: int) -> list[Any]:
    """Exactly one value per row; a failed request has none."""
    if values is None:
        return [None] * rows
    return values if len(values) == rows else [*values, *([None] * rows)][:rows]


def _probabilities(events: Sequence[PredictionEvent], counts: list[int]) -> pa.Array:
    """Lists of float32, null where an event has none or not a whole number of them per row."""
    width = np.zeros(len(events), dtype=np.int64)
    chunks = []
    for at, (event, rows) in enumerate(zip(events, counts, strict=True)):
        data = event.probabilities
        if data and len(data) % (8 * rows) == 0:
            width[at] = len(data) // (8 * rows)
            chunks.append(data)
    widths = np.repeat(width, counts)
    offsets = np.zeros(len(widths) + 1, dtype=np.int32)
    np.cumsum(widths, out=offsets[1:])
    values = np.frombuffer(b"".join(chunks), dtype="<f8").astype(np.float32)
    return pa.ListArray.from_arrays(offsets, pa.array(values), mask=pa.array(widths == 0))


def _features(stream: Stream, events: Sequence[PredictionEvent]) -> tuple[list[pa.Array], int]:
    rows = list(chain.from_iterable(event.inputs for event in events))
    columns, nulled = _transposed(rows, len(stream.features))
    arrays = []
    for feature, values in zip(stream.features, columns, strict=True):
        array, odd = _column(feature.dtype, values)
        arrays.append(array)
        nulled += odd
    return arrays, nulled


def _transposed(rows: list[Sequence[Any]], width: int) -> tuple[Iterable[Sequence[Any]], int]:
    """Columns of the rows; where a row has not one value per feature, none of it can be placed."""
    if not rows:
        return [()] * width, 0
    nulled = 0
    if any(len(row) != width for row in rows):
        nulled = sum(len(row) for row in rows if len(row) != width)
        rows = [row if len(row) == width else [None] * width for row in rows]
    return zip(*rows, strict=True), nulled


def _column(dtype: Dtype, values: Sequence[Any]) -> tuple[pa.Array, int]:
    try:
        return pa.array(values, ARROW_TYPES[dtype]), 0
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        fitted = [_fitted(_FITS[dtype], value) for value in values]
        nulled = sum(
            new is None and old is not None for old, new in zip(values, fitted, strict=True)
        )
        return pa.array(fitted, ARROW_TYPES[dtype]), nulled


def _fitted(fit: Callable[[Any], Any], value: Any) -> Any:
    try:
        return None if value is None else fit(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _as_float(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _as_int(value: Any) -> int | None:
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return int(value) if whole and int(value) in _INT64 else None


def _as_bool(value: Any) -> bool | None:
    return bool(value) if value in (0, 1) else None


def _as_text(value: Any) -> str | None:
    return str(value) if isinstance(value, str | int | float) else None


_FITS: Final[dict[Dtype, Callable[[Any], Any]]] = {
    "float64": _as_float,
    "int64": _as_int,
    "bool": _as_bool,
    "string": _as_text,
}
