import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitoring.analysis.drift import WindowSummary, fit_baseline, merged
from monitoring.analysis.drift.errors import SummaryMismatch, WindowUnusable
from monitoring.analysis.drift.summary import KEPT_UNSEEN, MAX_WEIGHT, WEIGHT_UNIT
from tests.monitoring.analysis.drift.samples import changed, table

RNG = np.random.default_rng(5)
PROFILE = fit_baseline(table(RNG, 2_000))
WINDOW = changed(table(RNG, 60), "colour", [f"new{i % 45}" if i % 2 else "red" for i in range(60)])
WEIGHTS = RNG.uniform(1, 40, 60)


def summarised(rows: pa.Table, weights: np.ndarray | None = None) -> WindowSummary:
    summary = WindowSummary(PROFILE.layout)
    summary.update(rows, weights)
    return summary


@given(
    order=st.permutations(range(60)),
    cuts=st.lists(st.integers(0, 60), max_size=5),
    weighted=st.booleans(),
    data=st.data(),
)
def test_any_split_in_any_order_gives_the_same_bytes(order, cuts, weighted, data):
    weights = WEIGHTS if weighted else None
    whole = summarised(WINDOW, weights)
    parts = []
    for start, stop in zip([0, *sorted(cuts)], [*sorted(cuts), 60], strict=True):
        rows = np.array(order[start:stop], np.int64)
        part = summarised(WINDOW.take(rows), None if weights is None else weights[rows])
        parts.append(WindowSummary.from_bytes(PROFILE.layout, part.to_bytes()))
    while len(parts) > 1:
        left = parts.pop(data.draw(st.integers(0, len(parts) - 1)))
        parts[data.draw(st.integers(0, len(parts) - 1))].merge(left)
    assert parts[0].to_bytes() == whole.to_bytes()


def test_a_row_of_weight_three_counts_as_three_rows_but_tells_less():
    once = summarised(WINDOW, np.full(60, 3.0))
    thrice = merged(PROFILE.layout, *[summarised(WINDOW)] * 3)
    assert once.counts.tolist() == thrice.counts.tolist()
    assert once.products.tolist() == thrice.products.tolist()
    assert once.squares.sum() == 3 * thrice.squares.sum()


def test_unseen_categories_keep_their_exact_counts():
    rows = changed(table(RNG, 5), "colour", ["new1", "new1", "new2", "red", None])
    index = PROFILE.layout.columns.index(
        next(c for c in PROFILE.layout.columns if c.name == "colour")
    )
    assert summarised(rows).unseen[index] == {"new1": 2, "new2": 1}
    assert len(summarised(WINDOW).unseen[index]) <= KEPT_UNSEEN


def test_memory_does_not_grow_with_rows():
    small, large = summarised(WINDOW), summarised(table(RNG, 50_000))
    assert large.counts.nbytes == small.counts.nbytes
    assert large.rows == 50_000
    assert large.counts.sum() == 50_000 * WEIGHT_UNIT * len(PROFILE.layout.columns)


def test_numbers_may_come_as_integers_decimals_and_nulls():
    rows = changed(table(RNG, 4), "a", pa.array([1, 2, None, 4], pa.int32()))
    index = [c.name for c in PROFILE.layout.columns].index("a")
    assert PROFILE.layout.part(summarised(rows).counts, index)[-1] == WEIGHT_UNIT


def test_values_beyond_float32_are_counted_in_the_outer_bins():
    rows = changed(table(RNG, 4), "a", [1e300, -1e300, np.inf, -np.inf])
    index = [c.name for c in PROFILE.layout.columns].index("a")
    counts = PROFILE.layout.part(summarised(rows).counts, index) // WEIGHT_UNIT
    assert (counts[0], counts[-2], counts[-1]) == (2, 2, 0)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (WINDOW.drop_columns(["a", "colour"]), "'a' is missing.*'colour' is missing"),
        (changed(WINDOW, "a", ["text"] * 60), "'a' is string, not a number"),
    ],
)
def test_a_window_that_does_not_fit_is_named_and_not_counted(rows, message):
    summary = WindowSummary(PROFILE.layout)
    with pytest.raises(WindowUnusable, match=message):
        summary.update(rows)
    assert summary.rows == 0


@pytest.mark.parametrize("weight", [0.0, -1.0, np.nan, np.inf, MAX_WEIGHT * 2])
def test_a_weight_out_of_range_is_refused(weight):
    with pytest.raises(WindowUnusable, match="outside"):
        summarised(WINDOW, np.full(60, weight))
    with pytest.raises(WindowUnusable, match="shape"):
        summarised(WINDOW, np.ones(59))


def test_summaries_of_another_baseline_are_refused():
    other = fit_baseline(table(np.random.default_rng(6), 500))
    with pytest.raises(SummaryMismatch, match="cannot be merged"):
        summarised(WINDOW).merge(WindowSummary(other.layout))
    with pytest.raises(SummaryMismatch, match="expected"):
        WindowSummary.from_bytes(other.layout, summarised(WINDOW).to_bytes())
    with pytest.raises(SummaryMismatch, match="no window summary"):
        WindowSummary.from_bytes(PROFILE.layout, b"\x00nonsense")
