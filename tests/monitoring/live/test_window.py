"""Rows split over shards and moments in any way, merged in any order, are one window."""

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from monitoring.agent.aside import counted_schema
from monitoring.live.window import LiveWindow, window_of_bytes
from tests.monitoring.agent.conftest import STREAM
from tests.monitoring.live.worlds import EXPECTED

SCHEMA = counted_schema(STREAM)
ROW = st.fixed_dictionaries(
    {
        "status": st.sampled_from([200, 200, 200, 422, 500]),
        "latency_ms": st.floats(0.0, 20_000.0),
        "label": st.sampled_from(["good", "bad", "what", None]),
        "score": st.none() | st.floats(0.0, 1.0),
        "x_age": st.none() | st.floats(-1e6, 1e6),
        "x_job": st.sampled_from(["clerk", "cook", "baker", None]),
    }
)


def window_of(rows: list[dict]) -> LiveWindow:
    window = LiveWindow()
    lines = [{"ts": 0, "row": 0, "request_id": str(i), **row} for i, row in enumerate(rows)]
    window.update(pa.RecordBatch.from_pylist(lines, schema=SCHEMA), STREAM, EXPECTED)
    return window


@settings(max_examples=60, deadline=None)
@given(
    parts=st.lists(st.lists(ROW, min_size=1, max_size=6), min_size=1, max_size=6), data=st.data()
)
def test_any_split_and_any_order_of_merging_give_the_same_bytes(parts, data):
    whole = window_of([row for part in parts for row in part])
    windows = [window_of(part) for part in parts]
    layout = EXPECTED.profile.layout
    while len(windows) > 1:
        first, second = data.draw(st.permutations(range(len(windows))))[:2]
        into, other = windows[first], windows[second]
        into.merge(window_of_bytes(other.to_bytes(), layout))  # as it comes out of the store
        del windows[second]
    assert windows[0].figures == whole.figures
    assert windows[0].to_bytes() == whole.to_bytes()
