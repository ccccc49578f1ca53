"""Columns keep their values on the way from a table to the log's types and into the model."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.errors import BundleUnbuildable
from serve_app.model.columns import MAX_CATEGORIES, convert_columns, infer_columns, model_frame

INT64 = st.integers(-(2**63), 2**63 - 1)


def column(values, dtype=None):
    """Describe and convert one column; answer (description, converted values)."""
    (feature,), table = infer_columns(pd.DataFrame({"c": pd.Series(values, dtype=dtype)}), ["c"])
    return feature, table["c"].to_pylist()


@pytest.mark.parametrize(
    ("values", "dtype", "expected", "nullable"),
    [
        ([1.5, np.nan], "float32", "float64", True),
        ([1, 2], "uint8", "int64", False),
        ([1, None], "Int64", "int64", True),
        ([1, None], None, "float64", True),
        ([True, None], "boolean", "bool", True),
        ([True, None], object, "bool", True),
        (["a", None], "string", "string", True),
        (["a", None], object, "string", True),
        (["a", None], "category", "string", True),
        ([3, None], "category", "int64", True),
        ([None, None], object, "float64", True),
    ],
)
def test_types_are_those_of_the_values(values, dtype, expected, nullable):
    feature, converted = column(values, dtype)
    assert (feature.dtype, feature.nullable) == (expected, nullable)
    assert converted == [None if pd.isna(value) else value for value in values]


def test_many_categories_are_not_listed():
    assert column([str(n) for n in range(MAX_CATEGORIES)])[0].categories is not None
    assert column([str(n) for n in range(MAX_CATEGORIES + 1)])[0].categories is None


@pytest.mark.parametrize(
    "values", [[b"x"], [1, "x"], [2**64], [2**64 - 1], [pd.Timestamp(0)], [[1]], [1j]]
)
def test_what_cannot_be_served_is_refused(values):
    with pytest.raises(BundleUnbuildable, match="'c'"):
        column(values)


@given(st.lists(INT64, min_size=1))
def test_integers_reach_the_model_exactly(values):
    _, table = infer_columns(pd.DataFrame({"c": values}), ["c"])
    assert model_frame(table)["c"].tolist() == values


@given(st.lists(st.none() | st.text(), min_size=1))
def test_texts_reach_the_model_with_nan_for_missing(values):
    frame = model_frame(convert_columns(pd.DataFrame({"c": values}, dtype=object), {"c": "string"}))
    again = frame["c"].astype(object).tolist()
    assert [None if isinstance(v, float) else v for v in again] == values


def test_held_out_data_of_another_type_is_refused():
    with pytest.raises(BundleUnbuildable, match="'c' does not fit int64"):
        convert_columns(pd.DataFrame({"c": ["x"]}), {"c": "int64"})
    with pytest.raises(BundleUnbuildable, match="lacks the model's columns d"):
        convert_columns(pd.DataFrame({"c": [1]}), {"d": "int64"})
