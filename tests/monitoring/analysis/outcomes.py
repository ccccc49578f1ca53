"""Small tables of answers and feedback, as the log holds them."""

from datetime import UTC, datetime, timedelta

import pyarrow as pa

from monitoring.events import FEEDBACK_SCHEMA

T0 = datetime(2026, 9, 21, 14, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def answers(*keys: tuple[str, int]) -> pa.Table:
    """Answers (request, row), one second apart from ``T0`` on."""
    return pa.table(
        {
            "request_id": pa.array([request for request, _ in keys], pa.string()),
            "row": pa.array([row for _, row in keys], pa.int32()),
            "ts": pa.array([at(i) for i in range(len(keys))], pa.timestamp("us", tz="UTC")),
        }
    )


def said(
    request: str,
    value: str,
    *,
    row: int | None = None,
    ts: float = 100.0,
    outcome_ts: float | None = None,
    kind: str = "label",
    number: float | None = None,
) -> dict[str, object]:
    return {
        "request_id": request,
        "row": row,
        "kind": kind,
        "value": value,
        "number": number,
        "ts": at(ts),
        "outcome_ts": None if outcome_ts is None else at(outcome_ts),
    }


def feedback(*lines: dict[str, object]) -> pa.Table:
    full = [
        {"event_id": f"p-{i}", "model": "m", "producer": "p", "seq": i, "node": "", "env": ""}
        | line
        for i, line in enumerate(lines, 1)
    ]
    return pa.Table.from_pylist(full, schema=FEEDBACK_SCHEMA)
