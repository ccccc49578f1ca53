import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from monitoring.analysis.drift.bins import (
    MAX_CATEGORIES,
    category_bins,
    counted_rows,
    number_bins,
)

VALUES = st.one_of(
    st.floats(width=64),
    st.integers(-5, 5).map(float),
    st.sampled_from([0.1, 0.1 + 1e-12, 1e300, -1e300, 5e-324]),
)


def assigned(bins, values):
    with np.errstate(over="ignore", invalid="ignore"):
        return bins.assign(values)


@given(
    training=arrays(np.float64, st.integers(0, 200), elements=VALUES),
    window=arrays(np.float64, st.integers(0, 50), elements=VALUES),
)
def test_the_table_finds_what_a_search_finds(training, window):
    with np.errstate(over="ignore", invalid="ignore"):
        bins = number_bins(training)
    values = np.concatenate([training, window])
    searched = np.searchsorted(bins.edges, values, side="right")
    searched[np.isnan(values)] = bins.missing
    assert assigned(bins, values).tolist() == searched.tolist()


@pytest.mark.parametrize("offset", [0.0, 1e6, -3.0])
def test_many_edges_in_one_cell_are_searched(offset):
    rng = np.random.default_rng(0)
    near = np.concatenate([rng.normal(0, 1, 500), rng.normal(1e5, 1e-3, 500)]) + offset
    bins = number_bins(near)
    assert bins.passes > 4
    expected = np.searchsorted(bins.edges, near, side="right")
    assert assigned(bins, near).tolist() == expected.tolist()


def test_few_distinct_values_have_bins_of_their_own_and_gaps_between():
    bins = number_bins(np.repeat([0.0, 1.0, 2.0], 50))
    found = assigned(bins, np.array([-1.0, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0, np.nan]))
    assert found.tolist() == [0, 1, 2, 3, 4, 5, 6, 7]


def test_a_heavy_value_is_apart_from_the_continuous_ones():
    rng = np.random.default_rng(1)
    values = np.where(rng.random(5_000) < 0.7, 0.0, rng.exponential(size=5_000))
    bins = number_bins(values)
    counts = np.bincount(assigned(bins, values), minlength=bins.slots)
    zero = assigned(bins, np.array([0.0]))[0]
    assert counts[zero] == (values == 0).sum()


def test_no_value_at_all_makes_one_open_bin():
    bins = number_bins(np.array([np.nan, np.nan]))
    assert assigned(bins, np.array([1.0, np.nan])).tolist() == [0, 1]


def test_categories_are_listed_by_frequency_and_then_by_name():
    bins = category_bins(pa.array(["b", "a", "c", "b", None]))
    assert bins.categories.to_pylist() == ["b", "a", "c"]
    assert bins.complete
    assert bins.assign(pa.array(["c", "new", None])).tolist() == [2, bins.other, bins.missing]


def test_too_many_categories_keep_the_frequent_ones():
    names = [f"id{i}" for i in range(MAX_CATEGORIES + 1)] + ["often"] * 60
    bins = category_bins(pa.array(names))
    assert bins.categories.to_pylist() == ["often"]
    assert not bins.complete


def test_a_list_that_is_cut_is_chosen_by_even_rows_and_counted_by_odd_ones():
    """Else the categories just above the cut, frequent by luck, would fall in every window."""
    rare = [f"r{i}" for i in range(MAX_CATEGORIES)]
    values = pa.array(["even", "odd"] * 100 + rare)
    bins = category_bins(values)
    assert not bins.complete
    assert bins.categories.to_pylist() == ["even"]
    assert counted_rows(bins) == slice(1, None, 2)
    assert counted_rows(category_bins(values.slice(0, 200))) == slice(None)
