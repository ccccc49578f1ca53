"""Which training rows the baseline keeps, and what it says about all of them."""

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.errors import BundleInvalid
from serve_app.model.baseline import (
    BLOCK_ROWS,
    MAX_ROWS,
    BaselineProfile,
    FeatureStatistics,
    baseline_inputs,
    build_baseline,
    decode_baseline,
    describe_column,
    encode_baseline,
    kept_rows,
    read_profile,
)
from serve_app.model.manifest import FeatureSpec
from serve_app.model.predictions import Predictions

FEATURES = (FeatureSpec(name="a", dtype="int64", nullable=False),)


def counting(total: int) -> pa.Table:
    """A regression baseline whose feature is the row's own number."""
    rows = np.arange(total)
    return build_baseline(
        pa.table({"a": rows}),
        pa.array(rows.astype(float)),
        Predictions(scores=rows / 2),
        FEATURES,
        "regression",
    )


@given(st.integers(0, 3 * MAX_ROWS))
def test_kept_rows_are_ascending_runs_of_neighbours(total):
    rows = kept_rows(total)
    assert len(rows) == min(total, MAX_ROWS)
    assert (np.diff(rows) > 0).all()
    if total > MAX_ROWS:
        blocks = rows.reshape(-1, BLOCK_ROWS)
        assert (np.diff(blocks, axis=1) == 1).all()
        assert rows[0] == 0
        assert rows[-1] == total - 1
        gaps = np.diff(blocks[:, 0])
        assert gaps.max() - gaps.min() <= 1


def test_small_data_is_kept_whole_as_one_block():
    table = decode_baseline(encode_baseline(counting(30)), FEATURES, "regression")
    assert table["x_a"].to_pylist() == list(range(30))
    assert table["label"].to_pylist() == table["x_a"].to_pylist()
    profile = read_profile(table)
    assert (profile.total_rows, profile.block_rows) == (30, 30)
    assert baseline_inputs(table).column_names == ["a"]


def test_statistics_are_those_of_all_rows_when_only_blocks_are_kept():
    total = 120_000
    table = counting(total)
    assert table.num_rows == MAX_ROWS
    assert table["score"].to_numpy()[-1] == (total - 1) / 2
    profile = read_profile(table)
    assert (profile.total_rows, profile.block_rows) == (total, BLOCK_ROWS)
    a = profile.features["a"]
    assert (a.count, a.missing, a.mean) == (total, 0, (total - 1) / 2)
    assert a.std == pytest.approx(np.arange(total).std(ddof=1))
    assert a.quantiles["0.5"] == (total - 1) / 2


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([None, None], pa.float64()), FeatureStatistics(count=0, missing=2)),
        (
            pa.array(["b", "a", None, "c", "c"]),
            FeatureStatistics(count=4, missing=1, top_categories=(("c", 2), ("a", 1), ("b", 1))),
        ),
        (
            pa.array([True, False, True]),
            FeatureStatistics(count=3, missing=0, top_categories=(("True", 2), ("False", 1))),
        ),
    ],
)
def test_statistics_of_texts_bools_and_nothing(column, expected):
    assert describe_column(pa.chunked_array([column])) == expected


def test_one_value_has_no_spread():
    one = describe_column(pa.chunked_array([pa.array([3.0])]))
    assert (one.mean, one.std) == (3.0, None)


def test_profile_survives_as_json():
    profile = read_profile(counting(5))
    assert msgspec.json.decode(msgspec.json.encode(profile), type=BaselineProfile) == profile


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"no parquet", "not readable"),
        (encode_baseline(pa.table({"x_a": [1]})), "label, predicted, score, probabilities"),
        (
            encode_baseline(counting(3).replace_schema_metadata(None)),
            "no 'treeline' metadata",
        ),
        (
            encode_baseline(counting(3).replace_schema_metadata({b"treeline": b"{}"})),
            "metadata 'treeline'",
        ),
    ],
)
def test_what_is_no_baseline_is_refused(data, said):
    with pytest.raises(BundleInvalid, match=said):
        decode_baseline(data, FEATURES, "regression")
