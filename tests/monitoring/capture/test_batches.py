import struct

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from monitoring.capture.batches import to_batch
from monitoring.events import (
    DeliveryHeader,
    PredictionEvent,
    batch_schema,
    decode_delivery,
    encode_delivery,
)
from tests.monitoring.capture.streams import STREAM

TS_US = 1_700_000_000_000_000


def event(seq: int, rows: int = 1, **more: object) -> PredictionEvent:
    fields = {
        "ts_us": TS_US,
        "request_id": f"r{seq}",
        "status": 200,
        "latency_ms": 2.5,
        "inputs": [[30 + n, 1.5, "car", True] for n in range(rows)],
        "labels": ["good"] * rows,
        "scores": [0.75] * rows,
        "probabilities": struct.pack("<2d", 0.75, 0.25) * rows,
        "top_k": [["good", "bad"]] * rows,
        "tags": {"channel": "web"},
    }
    return PredictionEvent(seq, **{**fields, **more})  # type: ignore[arg-type]


def test_one_line_per_row_in_the_schema_of_the_stream() -> None:
    batch = to_batch(STREAM, [event(1), event(2, rows=3), event(3)])
    assert batch.nulled_values == 0
    assert batch.rows.schema.equals(batch_schema(STREAM))
    batch.rows.validate(full=True)
    columns = batch.rows.to_pydict()
    assert columns["seq"] == [1, 2, 2, 2, 3]
    assert columns["row"] == [0, 0, 1, 2, 0]
    assert columns["x_age"] == [30, 30, 31, 32, 30]
    assert columns["probabilities"] == [[0.75, 0.25]] * 5
    assert columns["top_k"] == [["good", "bad"]] * 5
    assert columns["tags"] == [[("channel", "web")]] * 5
    assert columns["ts"][0].timestamp() * 1e6 == TS_US


def test_a_failed_request_has_inputs_and_no_outputs() -> None:
    failed = event(
        1, rows=2, status=500, labels=None, scores=None, probabilities=None, top_k=None, tags=None
    )
    columns = to_batch(STREAM, [failed, event(2)]).rows.to_pydict()
    for name in ("label", "score", "probabilities", "top_k", "tags"):
        assert columns[name][:2] == [None, None]
        assert columns[name][2] is not None
    assert columns["x_purpose"] == ["car"] * 3


def test_regression_and_no_events() -> None:
    columns = to_batch(STREAM, [event(1, labels=None, probabilities=None)]).rows.to_pydict()
    assert columns["label"] == [None]
    assert columns["score"] == [0.75]
    assert to_batch(STREAM, []).rows.num_rows == 0
    assert to_batch(STREAM, []).rows.schema.equals(batch_schema(STREAM))


def test_odd_values_are_coerced_or_nulled_and_counted() -> None:
    rows = [
        [30.0, 5, "car", True],
        [30.5, "much", 12, 1],
        ["x", True, ["list"], "yes"],
        [2**70, 2**70, 1.5, None],
    ]
    batch = to_batch(STREAM, [event(1, rows=4, inputs=rows)])
    columns = batch.rows.to_pydict()
    assert columns["x_age"] == [30, None, None, None]
    assert columns["x_amount"] == [5.0, None, 1.0, float(2**70)]
    assert columns["x_purpose"] == ["car", "12", None, "1.5"]
    assert columns["x_owner"] == [True, True, None, None]
    assert batch.nulled_values == 6


def test_rows_of_a_wrong_width_and_outputs_of_a_wrong_length_keep_the_event() -> None:
    odd = event(1, rows=2, inputs=[[1, 2.0], [30, 1.0, "car", True]], labels=["good"])
    odd.probabilities = b"12345"
    odd.status = 2**40
    odd.scores = [0.1, 0.2, 0.3]
    batch = to_batch(STREAM, [odd])
    columns = batch.rows.to_pydict()
    assert columns["x_age"] == [None, 30]
    assert columns["label"] == ["good", None]
    assert columns["score"] == [0.1, 0.2]
    assert columns["probabilities"] == [None, None]
    assert columns["status"] == [2**15 - 1] * 2
    assert batch.nulled_values == 2


values = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5))


@settings(deadline=None)
@given(st.lists(st.lists(st.lists(values, max_size=5), min_size=1, max_size=3), max_size=4))
def test_no_input_costs_a_row(inputs: list[list[list[object]]]) -> None:
    events = [event(n, rows=len(rows), inputs=rows) for n, rows in enumerate(inputs, start=1)]
    batch = to_batch(STREAM, events).rows
    batch.validate(full=True)
    assert batch.num_rows == sum(len(rows) for rows in inputs)


def test_a_delivery_carries_it() -> None:
    batch = to_batch(STREAM, [event(1), event(2)]).rows
    header = DeliveryHeader(
        producer="p", first=1, last=2, events=2, dropped={}, stream=STREAM, policy_id="x",
        node="n", env="e",
    )  # fmt: skip
    read_header, read = decode_delivery(encode_delivery(header, batch))
    assert read_header == header
    assert read.equals(batch)
    assert isinstance(read, pa.RecordBatch)
    assert np.asarray(read.column("seq")).tolist() == [1, 2]
