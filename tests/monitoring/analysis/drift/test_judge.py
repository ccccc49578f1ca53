import json

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from monitoring.analysis.drift import (
    EffectFloor,
    WindowSummary,
    fit_baseline,
    judge,
    report_json,
)
from monitoring.analysis.drift.errors import BaselineUnusable, SummaryMismatch
from tests.monitoring.analysis.drift.samples import autoregressive, changed, table

PROFILE = fit_baseline(table(np.random.default_rng(1), 20_000))


def judged(rows, profile=PROFILE, weights=None, **options):
    summary = WindowSummary(profile.layout)
    summary.update(rows, weights)
    return judge(profile, summary, **options)


def column(report, name):
    return next(column for column in report.columns if column.name == name)


def test_windows_without_drift_keep_the_stated_level():
    """200 windows at 10% each; 2,000 at 1% are `python -m benchmarks.drift`'s."""
    rng = np.random.default_rng(2)
    sizes = [100, 300, 1_000, 3_000]
    alarms = sum(judged(table(rng, sizes[i % 4]), alpha=0.1).alarm for i in range(200))
    assert 5 <= alarms <= 30


@pytest.mark.parametrize(
    ("name", "change", "cause"),
    [
        ("a", lambda x: x + 0.2, "location"),
        ("a", lambda x: x * 1.25, "scale"),
        ("skewed", lambda x: x * 1.2, "location"),
        ("count", lambda x: x + (np.arange(len(x)) % 5 == 0), "location"),
        ("gappy", lambda x: np.where(np.arange(len(x)) % 10 == 0, np.nan, x), "missing"),
        ("count", lambda x: np.where(np.arange(len(x)) % 50 == 0, 0.5, x), "new values"),
        ("a", lambda x: np.where(np.arange(len(x)) % 50 == 0, 9.0, x), "new values"),
    ],
)
def test_a_change_of_one_column_is_found_and_named(name, change, cause):
    rows = table(np.random.default_rng(3), 2_000)
    values = change(rows.column(name).to_numpy().astype(float))
    report = judged(changed(rows, name, values))
    assert [c.name for c in report.columns if c.alarm] == [name]
    assert cause in (column(report, name).cause, "new values" if cause == "scale" else cause)


def test_a_category_that_grows_is_found():
    rows = table(np.random.default_rng(4), 2_000)
    colours = rows.column("colour").to_numpy(zero_copy_only=False).copy()
    colours[::15] = "grey"
    found = column(judged(changed(rows, "colour", colours)), "colour")
    assert found.alarm
    assert found.cause == "one category"
    assert found.effect.wasserstein is None


def test_new_categories_are_found_and_shown():
    rows = table(np.random.default_rng(5), 2_000)
    colours = rows.column("colour").to_numpy(zero_copy_only=False).copy()
    colours[::200] = "ultraviolet"
    found = column(judged(changed(rows, "colour", colours)), "colour")
    assert (found.alarm, found.cause) == (True, "new values")
    assert found.new_examples == {"ultraviolet": 10}


def test_a_change_of_correlation_alone_is_found():
    rng = np.random.default_rng(6)
    rows = table(rng, 2_000)
    report = judged(changed(rows, "b", rng.permutation(rows.column("b").to_numpy())))
    assert not any(c.alarm for c in report.columns)
    assert report.multivariate.alarm
    pair = report.multivariate.pair
    assert {pair.first, pair.second} == {"a", "b"}
    assert pair.baseline_correlation == pytest.approx(0.5, abs=0.05)
    assert abs(pair.window_correlation) < 0.1


def test_too_few_rows_are_not_enough_data_and_no_alarm():
    report = judged(table(np.random.default_rng(7), 20))
    assert report.outcome == "not enough data"
    assert report.p_value is None
    assert not report.alarm
    assert {c.outcome for c in report.columns} == {"not enough data"}


def test_an_empty_window_is_not_enough_data():
    report = judged(table(np.random.default_rng(8), 0))
    assert report.outcome == "not enough data"
    assert column(report, "a").effect is None


def test_a_column_that_vanished_is_missing_although_its_values_cannot_be_judged():
    rows = table(np.random.default_rng(9), 500)
    report = judged(changed(rows, "a", pa.nulls(500, pa.float64())))
    assert (column(report, "a").outcome, column(report, "a").cause) == ("drift", "missing")


def test_weights_undo_uneven_sampling_and_cost_effective_rows():
    """Large values kept ten times as often: unweighted drift, weighted none."""
    rng = np.random.default_rng(10)
    rows = table(rng, 20_000)
    kept = 1 / np.where(rows.column("a").to_numpy() > 1, 1, 10)
    mask = rng.random(20_000) < kept
    sampled, weights = rows.filter(pa.array(mask)), 1 / kept[mask]
    assert judged(sampled).alarm
    report = judged(sampled, weights=weights)
    assert not report.alarm
    assert report.effective_rows < 0.8 * report.rows


def test_an_effect_floor_silences_what_is_sure_but_small():
    rng = np.random.default_rng(11)
    rows = table(rng, 100_000)
    moved = changed(rows, "a", rows.column("a").to_numpy() + 0.06)
    assert column(judged(moved), "a").alarm
    found = column(judged(moved, floor=EffectFloor(wasserstein=0.1)), "a")
    assert not found.alarm
    assert found.p_value < 1e-4
    assert found.effect.wasserstein == pytest.approx(0.06, abs=0.02)
    assert found.effect.mean_shift == pytest.approx(0.06, abs=0.02)


def test_autocorrelated_windows_alarm_no_more_often():
    rng = np.random.default_rng(12)

    def rows(count):
        return pa.table({f"f{i}": autoregressive(rng, count, 0.9) for i in range(6)})

    profile = fit_baseline(rows(20_000))
    alarms = sum(judged(rows(500), profile, alpha=0.1).alarm for _ in range(60))
    assert alarms <= 12
    shifted = rows(500)
    shifted = changed(shifted, "f0", shifted.column("f0").to_numpy() + 2)
    assert column(judged(shifted, profile), "f0").alarm


def test_a_bundles_columns_and_the_logs_meet_under_one_name():
    rng = np.random.default_rng(13)

    def rows(count, answer):
        return pa.table(
            {
                "x_age": rng.normal(size=count),
                answer: rng.choice(["yes", "no"], count),
                "score": rng.random(count),
            }
        )

    baseline = rows(1_000, "predicted").append_column("label", pa.array(["truth"] * 1_000))
    profile = fit_baseline(baseline)
    report = judged(rows(300, "label"), profile)
    assert [(c.name, c.role) for c in report.columns] == [
        ("age", "feature"),
        ("predicted label", "prediction"),
        ("score", "prediction"),
    ]
    assert report.outcome == "no drift"


def test_the_json_has_the_contracts_keys():
    document = report_json(judged(table(np.random.default_rng(14), 500)))
    stored = json.loads(msgspec.json.encode(document))
    assert {"alarm", "alpha", "features", "multivariate"} <= set(stored)
    assert {"name", "alarm", "p_value", "effect"} <= set(stored["features"][0])
    assert {"psi", "js", "wasserstein"} <= set(stored["features"][0]["effect"])
    assert {"alarm", "p_value"} <= set(stored["multivariate"])


def test_unusable_baselines_and_foreign_windows_are_refused():
    with pytest.raises(BaselineUnusable, match="20 rows, at least 100"):
        fit_baseline(table(np.random.default_rng(15), 20))
    with pytest.raises(BaselineUnusable, match="no number or category"):
        fit_baseline(pa.table({"label": ["a"] * 200}))
    other = fit_baseline(table(np.random.default_rng(16), 200))
    with pytest.raises(SummaryMismatch):
        judge(PROFILE, WindowSummary(other.layout))


def test_columns_without_variation_or_values_are_judged_too():
    empty = pa.table(
        {
            "constant": np.ones(500),
            "nothing": pa.nulls(500, pa.float64()),
            "one": ["same"] * 500,
            "normal": np.random.default_rng(17).normal(size=500),
        }
    )
    profile = fit_baseline(empty)
    assert not judged(empty.slice(0, 200), profile).alarm
    other = changed(empty.slice(0, 200), "constant", np.full(200, 2.0))
    assert column(judged(other, profile), "constant").cause == "new values"
