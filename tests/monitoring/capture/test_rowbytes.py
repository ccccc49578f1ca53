import math
import struct
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitoring.capture.batches import to_batch
from monitoring.capture.rowbytes import RowEvent, RowLayout, is_row, row_layout
from monitoring.events import Feature, PredictionEvent, Stream, batch_schema
from tests.monitoring.capture.streams import STREAM

NUMBERS = Stream(
    model="price",
    version="2",
    feature_set_version="1",
    variant="challenger",
    task="regression",
    features=tuple(Feature(f"f{n}", "float64") for n in range(9)),
)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
floats = st.floats(allow_nan=False)
credit_rows = st.tuples(
    st.none() | st.integers(-(2**63), 2**63 - 1),
    st.none() | floats,
    st.none() | texts,
    st.none() | st.booleans(),
)


def event(row: Any, **more: Any) -> PredictionEvent:
    usual = {
        "seq": 1,
        "ts_us": 1_700_000_000_000_000,
        "request_id": "0f8fad5b-d9cb-469f-a165-70867728950e",
        "status": 200,
        "latency_ms": 1.5,
        "inputs": [row],
        "labels": ["bad"],
        "scores": [0.75],
        "probabilities": struct.pack("<2d", 0.25, 0.75),
    }
    return PredictionEvent(**{**usual, **more})


def as_rows(layout: RowLayout, events: Sequence[PredictionEvent]) -> list[RowEvent]:
    bodies = [layout.encode(each) for each in events]
    assert all(body is not None and is_row(body) for body in bodies)
    return [RowEvent(e.seq, memoryview(body)) for e, body in zip(events, bodies, strict=True)]


@given(
    st.lists(
        st.builds(
            event,
            credit_rows,
            request_id=texts,
            labels=st.sampled_from([["good"], ["bad"]]),
            scores=st.tuples(floats),
            status=st.integers(0, 599),
            user_id=st.none() | texts,
            session_id=st.none() | texts,
            tags=st.none() | st.dictionaries(texts, texts, min_size=1, max_size=3),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_rows_become_the_columns_that_events_become(events: list[PredictionEvent]) -> None:
    batch = to_batch(STREAM, as_rows(row_layout(STREAM), events))
    batch.rows.validate(full=True)
    assert batch == to_batch(STREAM, events)


@given(st.lists(st.tuples(*[st.none() | floats] * 9), min_size=1, max_size=5))
def test_a_regression_has_neither_labels_nor_probabilities(values: list[Any]) -> None:
    events = [event(row, labels=None, probabilities=None) for row in values]
    batch = to_batch(NUMBERS, as_rows(row_layout(NUMBERS), events))
    assert batch == to_batch(NUMBERS, events)


def test_rows_and_events_keep_their_order_in_one_batch() -> None:
    events = [event((30, 1.5, "car", True), seq=seq) for seq in range(1, 5)]
    first, _, third, fourth = as_rows(row_layout(STREAM), events)
    batch = to_batch(STREAM, [first, events[1], third, fourth])
    assert batch.rows.schema.equals(batch_schema(STREAM))
    assert batch.rows.column("seq").to_pylist() == [1, 2, 3, 4]


def test_nan_is_a_number_and_not_missing() -> None:
    rows = as_rows(row_layout(STREAM), [event((None, math.nan, None, None))])
    (amount,) = to_batch(STREAM, rows).rows.column("x_amount").to_pylist()
    assert math.isnan(amount)


def test_a_truth_value_that_is_none_becomes_null_and_is_counted() -> None:
    batch = to_batch(STREAM, as_rows(row_layout(STREAM), [event((1, 1.0, "car", 7))]))
    assert batch.nulled_values == 1
    assert batch.rows.column("x_owner").to_pylist() == [None]


@pytest.mark.parametrize(
    "odd",
    [
        {"inputs": [(30, 1.5, "car")]},
        {"inputs": [("thirty", 1.5, "car", True)]},
        {"inputs": [(2**63, 1.5, "car", True)]},
        {"inputs": [(30, 10**400, "car", True)]},
        {"inputs": [(30, 1.5, 7, True)]},
        {"inputs": [(30, 1.5, "x" * 0xFFFF, True)]},
        {"request_id": "half \ud800"},
        {"inputs": [(30, 1.5, "car", True)] * 2},
        {"inputs": []},
        {"labels": ["neither"]},
        {"labels": [["good"]]},
        {"top_k": [["good"]]},
        {"probabilities": None},
        {"probabilities": bytes(8)},
        {"scores": None},
        {"scores": [None]},
        {"status": 2**15},
    ],
)
def test_what_does_not_fit_goes_another_way(odd: dict[str, Any]) -> None:
    assert row_layout(STREAM).encode(event((30, 1.5, "car", True), **odd)) is None


def test_bodies_of_another_layout_are_refused() -> None:
    body = row_layout(STREAM).encode(event((30, 1.5, "car", True)))
    assert body is not None
    for wrong in (body[:-1], body + b"x", body[:20]):
        with pytest.raises(ValueError, match=r"layout|buffer size"):
            row_layout(STREAM).to_batch([RowEvent(1, memoryview(wrong))])
