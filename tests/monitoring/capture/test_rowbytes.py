import math
import struct
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
Fields = dict[str, Any]

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
floats = st.floats(allow_nan=False)
credit_rows = st.tuples(
    st.none() | st.integers(-(2**63), 2**63 - 1),
    st.none() | floats,
    st.none() | texts,
    st.none() | st.booleans(),
)


def fields(row: Any, **more: Any) -> Fields:
    usual = {
        "ts_us": 1_700_000_000_000_000,
        "request_id": "0f8fad5b-d9cb-469f-a165-70867728950e",
        "status": 200,
        "latency_ms": 1.5,
        "row": row,
        "label": "bad",
        "score": 0.75,
        "probabilities": struct.pack("<2d", 0.25, 0.75),
        "user_id": None,
        "session_id": None,
        "tags": None,
    }
    return {**usual, **more}


def as_event(seq: int, given_fields: Fields) -> PredictionEvent:
    """The same event as MessagePack would carry it."""
    rest = dict(given_fields)
    row, label, score = rest.pop("row"), rest.pop("label"), rest.pop("score")
    labels = None if label is None else [label]
    return PredictionEvent(seq=seq, inputs=[row], labels=labels, scores=[score], **rest)


def as_row(layout: RowLayout, seq: int, given_fields: Fields) -> RowEvent:
    body = layout.encode(**given_fields)
    assert body is not None
    assert is_row(body)
    return RowEvent(seq, memoryview(body))


@given(
    st.lists(
        st.builds(
            fields,
            credit_rows,
            request_id=texts,
            label=st.sampled_from(["good", "bad"]),
            score=floats,
            status=st.integers(0, 599),
            user_id=st.none() | texts,
            session_id=st.none() | texts,
            tags=st.none() | st.dictionaries(texts, texts, min_size=1, max_size=3),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_rows_become_the_columns_that_events_become(events: list[Fields]) -> None:
    layout = row_layout(STREAM)
    rows = [as_row(layout, seq, each) for seq, each in enumerate(events, 1)]
    batch = to_batch(STREAM, rows)
    batch.rows.validate(full=True)
    expected = to_batch(STREAM, [as_event(seq, each) for seq, each in enumerate(events, 1)])
    assert batch == expected


@given(st.lists(st.tuples(*[st.none() | floats] * 9), min_size=1, max_size=5))
def test_a_regression_has_neither_labels_nor_probabilities(values: list[Any]) -> None:
    layout = row_layout(NUMBERS)
    events = [fields(row, label=None, probabilities=None) for row in values]
    batch = to_batch(NUMBERS, [as_row(layout, n, each) for n, each in enumerate(events, 1)])
    assert batch == to_batch(NUMBERS, [as_event(n, each) for n, each in enumerate(events, 1)])


def test_rows_and_events_keep_their_order_in_one_batch() -> None:
    layout = row_layout(STREAM)
    usual = fields((30, 1.5, "car", True))
    mixed = [
        as_row(layout, 1, usual),
        as_event(2, usual),
        as_row(layout, 3, usual),
        as_row(layout, 4, usual),
    ]
    batch = to_batch(STREAM, mixed)
    assert batch.rows.schema.equals(batch_schema(STREAM))
    assert batch.rows.column("seq").to_pylist() == [1, 2, 3, 4]


def test_nan_is_a_number_and_not_missing() -> None:
    row = as_row(row_layout(STREAM), 1, fields((None, math.nan, None, None)))
    (amount,) = to_batch(STREAM, [row]).rows.column("x_amount").to_pylist()
    assert math.isnan(amount)


def test_a_truth_value_that_is_none_becomes_null_and_is_counted() -> None:
    row = as_row(row_layout(STREAM), 1, fields((1, 1.0, "car", 7)))
    batch = to_batch(STREAM, [row])
    assert batch.nulled_values == 1
    assert batch.rows.column("x_owner").to_pylist() == [None]


@pytest.mark.parametrize(
    "odd",
    [
        {"row": (30, 1.5, "car")},
        {"row": ("thirty", 1.5, "car", True)},
        {"row": (2**63, 1.5, "car", True)},
        {"row": (30, 10**400, "car", True)},
        {"row": (30, 1.5, 7, True)},
        {"row": (30, 1.5, "x" * 0xFFFF, True)},
        {"request_id": "half \ud800"},
        {"label": "neither"},
        {"label": ["good"]},
        {"probabilities": None},
        {"probabilities": bytes(8)},
        {"score": None},
        {"status": 2**15},
    ],
)
def test_what_does_not_fit_goes_another_way(odd: Fields) -> None:
    assert row_layout(STREAM).encode(**fields((30, 1.5, "car", True), **{}) | odd) is None


def test_bodies_of_another_layout_are_refused() -> None:
    body = row_layout(STREAM).encode(**fields((30, 1.5, "car", True)))
    assert body is not None
    for wrong in (body[:-1], body + b"x", body[:20]):
        with pytest.raises(ValueError, match=r"layout|buffer size"):
            row_layout(STREAM).to_batch([RowEvent(1, memoryview(wrong))])
