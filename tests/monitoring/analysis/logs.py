"""A log with known truths, as tables and as files in the layout of docs/log.md."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from monitoring.analysis.stored import EVENT_SCHEMA
from monitoring.events import FEEDBACK_SCHEMA

START = datetime(2026, 9, 21, tzinfo=UTC)
START_US = int(START.timestamp() * 1e6)
STEP_US = 10_000_000  # ten seconds between requests


def answers(
    version: str,
    rng: np.random.Generator,
    n: int,
    *,
    first: int = 0,
    variant: str = "champion",
    **columns: object,
) -> pa.Table:
    """``n`` answered requests of one row, numbered from ``first``; columns may be replaced."""
    numbers = np.arange(first, first + n)
    confidence = rng.uniform(0.5, 1.0, n)
    good = rng.random(n) < 0.5
    probability = np.where(good, confidence, 1 - confidence)
    values = {
        "event_id": [f"{version}-{i}-0" for i in numbers],
        "request_id": [f"r{i}" for i in numbers],
        "row": np.zeros(n, np.int32),
        "ts": pa.array(START_US + numbers * STEP_US, pa.timestamp("us", tz="UTC")),
        "model": ["credit"] * n,
        "version": [version] * n,
        "feature_set_version": ["1"] * n,
        "variant": [variant] * n,
        "status": np.full(n, 200, np.int16),
        "latency_ms": rng.gamma(4.0, 2.0, n),
        "label": np.where(good, "good", "bad").tolist(),
        "score": confidence,
        "probabilities": np.column_stack((1 - probability, probability)).tolist(),
        "top_k": [None] * n,
        "user_id": [None] * n,
        "session_id": [None] * n,
        "tags": [None] * n,
        "weight": np.ones(n),
        "sampled_by": ["rate"] * n,
        "producer": [version] * n,
        "seq": numbers + 1,
        "node": ["n"] * n,
        "env": ["test"] * n,
    }
    return pa.table({**values, **columns}, schema=EVENT_SCHEMA)


def replaced(rows: pa.Table, **columns: object) -> pa.Table:
    """The same rows with other values in some columns; one value stands for all."""
    for name, values in columns.items():
        field = rows.schema.field(name)
        full = [values] * rows.num_rows if isinstance(values, str) else values
        at = rows.schema.get_field_index(name)
        rows = rows.set_column(at, field, pa.array(full, field.type))
    return rows


def outcomes(
    rows: pa.Table, values: list[str], kind: str, numbers: list[float | None] | None = None
) -> pa.Table:
    """One feedback for each row, an hour after it."""
    n = rows.num_rows
    ts = pa.array(rows["ts"].cast(pa.int64()).to_numpy() + 3_600_000_000)
    return pa.table(
        {
            "event_id": [f"f-{kind}-{i}" for i in range(n)],
            "request_id": rows["request_id"].combine_chunks(),
            "row": pa.nulls(n, pa.int32()),
            "kind": [kind] * n,
            "value": values,
            "number": pa.array(numbers or [None] * n, pa.float64()),
            "ts": ts.cast(pa.timestamp("us", tz="UTC")),
            "outcome_ts": pa.nulls(n, pa.timestamp("us", tz="UTC")),
            "model": ["credit"] * n,
            "producer": ["f"] * n,
            "seq": np.arange(1, n + 1),
            "node": ["n"] * n,
            "env": ["test"] * n,
        },
        schema=FEEDBACK_SCHEMA,
    )


def labels(rows: pa.Table, rng: np.random.Generator, right: np.ndarray | float) -> pa.Table:
    """Labels of which a share ``right`` (one number, or one for each row) agrees."""
    said = np.array(rows["label"].to_pylist())
    other = np.where(said == "good", "bad", "good")
    agrees = rng.random(len(said)) < right
    return outcomes(rows, np.where(agrees, said, other).tolist(), "label")


def clicks(rows: pa.Table, rng: np.random.Generator, rate: float) -> pa.Table:
    clicked = rows.filter(pa.array(rng.random(rows.num_rows) < rate))
    return outcomes(clicked, ["true"] * clicked.num_rows, "click", [1.0] * clicked.num_rows)


def write_log(sink: Path, events: pa.Table, feedback: pa.Table | None = None) -> None:
    """Store tables by version and day, one file each."""
    for version in events["version"].unique().to_pylist():
        own = events.filter(pa.compute.equal(events["version"], version))
        _write_days(own, sink / "events" / "model=credit" / f"version={version}", "hour=00")
    if feedback is not None:
        _write_days(feedback, sink / "feedback", "")


def _write_days(rows: pa.Table, folder: Path, hour: str) -> None:
    days = pa.compute.strftime(rows["ts"], "%Y-%m-%d")
    for day in days.unique().to_pylist():
        path = folder / f"date={day}" / hour / "0-e1-000000.parquet"
        path.parent.mkdir(parents=True)
        pq.write_table(rows.filter(pa.compute.equal(days, day)), path)
