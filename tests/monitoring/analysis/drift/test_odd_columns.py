"""Columns as they come: many categories, codes, other precisions, sorted rows, infinities."""

import numpy as np
import pyarrow as pa
import pytest

from monitoring.analysis.drift import WindowSummary, fit_baseline, judge


def column(training, window):
    """Judge one column beside a second that never drifts."""
    beside = np.random.default_rng(0)

    def rows(values):
        return pa.table({"odd": values, "plain": beside.normal(size=len(values))})

    profile = fit_baseline(rows(training))
    summary = WindowSummary(profile.layout)
    summary.update(rows(window))
    report = judge(profile, summary)
    assert not report.columns[1].alarm
    return report.columns[0]


def names(rng, prefix, count, rows):
    return pa.array(np.char.add(prefix, rng.integers(0, count, rows).astype(str)))


@pytest.mark.parametrize("rows", [3_000, 20_000])
def test_thousands_of_categories_are_no_drift_although_many_are_new(rows):
    rng = np.random.default_rng(1)
    for _ in range(5):
        training, window = (names(rng, "v", 3_000, count) for count in (rows, rows // 10))
        assert column(training, window).outcome == "no drift"


@pytest.mark.parametrize("rows", [3_000, 20_000])
def test_thousands_of_categories_that_are_all_new_are_drift(rows):
    rng = np.random.default_rng(2)
    found = column(names(rng, "v", 3_000, rows), names(rng, "w", 3_000, 500))
    assert found.outcome == "drift"
    assert found.effect.new == 1.0


def test_one_code_that_grows_is_found_although_codes_are_numbers():
    """A middle code at the cost of its neighbours moves neither mean nor deviation."""
    rng = np.random.default_rng(3)
    codes = rng.integers(0, 7, 5_000)
    window = rng.integers(0, 7, 2_000)
    window[:400] = np.where(np.isin(window[:400], [2, 4]), 3, window[:400])
    found = column(codes, window)
    assert (found.kind, found.outcome, found.cause) == ("number", "drift", "one value")


@pytest.mark.parametrize("narrow", [pa.float32(), pa.float16()])
def test_a_window_in_another_precision_holds_the_same_values(narrow):
    rng = np.random.default_rng(4)
    training, window = (np.round(rng.random(rows), 1) for rows in (3_000, 500))
    assert column(pa.array(training).cast(narrow), window).outcome == "no drift"


@pytest.mark.parametrize(
    "make",
    [
        lambda codes: pa.array(codes, pa.int8()),
        lambda codes: pa.array(codes.astype(float)),
        lambda codes: pa.array(codes).cast(pa.decimal128(22, 3)),
    ],
    ids=["int8", "float", "decimal"],
)
def test_equal_numbers_of_other_types_are_equal(make):
    rng = np.random.default_rng(5)
    training, window = rng.integers(0, 5, 3_000), rng.integers(0, 5, 500)
    assert column(training, make(window)).outcome == "no drift"


def test_a_column_the_baseline_is_sorted_by_cannot_be_judged():
    rng = np.random.default_rng(6)
    found = column(np.sort(rng.normal(size=3_000)), rng.normal(size=500))
    assert (found.outcome, found.p_value) == ("not enough data", None)


@pytest.mark.parametrize("values", [np.inf, -np.inf])
def test_infinities_are_values_like_others_and_new_ones_are_new(values):
    rng = np.random.default_rng(7)
    training, window = rng.normal(size=3_000), rng.normal(size=500)
    same = window.copy()
    same[::50] = values
    assert column(training, same).cause == "new values"
    training[::50] = values
    assert column(training, same).outcome == "no drift"


def test_numbers_whose_squares_overflow_have_effects_too():
    rng = np.random.default_rng(8)
    found = column(rng.normal(size=3_000) * 1e300, (rng.normal(size=500) + 1) * 1e300)
    assert found.outcome == "drift"
    assert found.effect.mean_shift == pytest.approx(1, abs=0.2)
