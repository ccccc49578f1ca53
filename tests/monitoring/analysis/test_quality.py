import numpy as np
import pytest
from sklearn.metrics import average_precision_score, log_loss, r2_score, roc_auc_score

from monitoring.analysis.quality import (
    LabelledRows,
    Measure,
    classification_measures,
    proportion,
    regression_measures,
)


def binary(rng, n):
    p = 1 / (1 + np.exp(-rng.normal(0, 1.5, n)))
    return np.column_stack((1 - p, p)), (rng.random(n) < p).astype(np.int64)


def measured(p, y, weights=None, units=None) -> dict[str, Measure]:
    rows = LabelledRows(
        weights=np.ones(len(y)) if weights is None else weights,
        units=np.arange(len(y)) if units is None else units,
    )
    right = p.argmax(axis=1) == y
    found = classification_measures(rows, right, p, y, np.random.default_rng(0))
    return {measure.name: measure for measure in found}


def test_figures_are_scikit_learns_weights_included() -> None:
    rng = np.random.default_rng(1)
    p, y = binary(rng, 2_000)
    p = p.round(2)  # ties
    w = rng.uniform(0.5, 3, 2_000)
    found = measured(p, y, w)
    assert found["accuracy"].value == pytest.approx(np.average((p[:, 1] > 0.5) == y, weights=w))
    assert found["log_loss"].value == pytest.approx(log_loss(y, p, sample_weight=w))
    assert found["roc_auc"].value == pytest.approx(roc_auc_score(y, p[:, 1], sample_weight=w))
    assert found["pr_auc"].value == pytest.approx(
        average_precision_score(y, p[:, 1], sample_weight=w)
    )


def test_regression_figures_are_scikit_learns() -> None:
    rng = np.random.default_rng(2)
    truth = rng.normal(size=500)
    predicted = truth + rng.normal(0, 0.5, 500)
    w = rng.uniform(0.5, 3, 500)
    rows = LabelledRows(weights=w, units=np.arange(500))
    found = {m.name: m.value for m in regression_measures(rows, predicted, truth)}
    assert found["r2"] == pytest.approx(r2_score(truth, predicted, sample_weight=w))
    assert found["rmse"] == pytest.approx(np.sqrt(np.average((predicted - truth) ** 2, weights=w)))
    assert found["mae"] == pytest.approx(np.average(np.abs(predicted - truth), weights=w))


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(3)
    whole_p, whole_y = binary(rng, 100_000)
    truth = {name: m.value for name, m in measured(whole_p, whole_y).items()}
    names = ("accuracy", "log_loss", "brier", "roc_auc", "pr_auc")
    held = dict.fromkeys(names, 0)
    windows = 200  # 60 were too few: 95 % of them are 57 give or take 5
    for _ in range(windows):
        p, y = binary(rng, 400)
        found = measured(p, y)
        for name in names:
            held[name] += found[name].low <= truth[name] <= found[name].high
    assert all(count >= 0.9 * windows for count in held.values()), held


def test_rows_that_share_a_fate_widen_the_interval() -> None:
    p, y = binary(np.random.default_rng(4), 500)
    once = measured(p, y)["accuracy"]
    p9, y9, units = np.repeat(p, 9, axis=0), np.repeat(y, 9), np.repeat(np.arange(500), 9)
    again = measured(p9, y9, units=units)["accuracy"]
    assert again.high - again.low == pytest.approx(once.high - once.low, rel=1e-6)


def test_a_calibrated_model_has_a_small_error_and_an_overconfident_one_a_large() -> None:
    p, y = binary(np.random.default_rng(5), 20_000)
    sure = np.column_stack((p[:, 0] < 0.5, p[:, 0] >= 0.5))[:, ::-1].astype(float)
    assert measured(p, y)["calibration_error"].value < 0.02
    assert measured(sure, y)["calibration_error"].value > 0.2


def test_a_label_that_is_no_class_is_wrong_and_only_that() -> None:
    p, y = binary(np.random.default_rng(6), 200)
    odd = y.copy()
    odd[:20] = -1
    rows = LabelledRows(weights=np.ones(200), units=np.arange(200))
    right = (p.argmax(axis=1) == odd) & (odd >= 0)
    found = classification_measures(rows, right, p, odd, np.random.default_rng(0))
    by_name = {m.name: m for m in found}
    assert by_name["accuracy"].value == right.mean()
    assert by_name["log_loss"].value == pytest.approx(log_loss(y[20:], p[20:]))


def test_too_few_rows_are_no_figures() -> None:
    p, y = binary(np.random.default_rng(7), 29)
    assert measured(p, y) == {}
    rows = LabelledRows(weights=np.ones(5), units=np.arange(5))
    assert regression_measures(rows, np.zeros(5), np.zeros(5)) == []


def test_one_class_alone_has_no_auc_and_equal_labels_no_r2() -> None:
    p, _ = binary(np.random.default_rng(8), 100)
    assert "roc_auc" not in measured(p, np.zeros(100, np.int64))
    rows = LabelledRows(weights=np.ones(100), units=np.arange(100))
    assert [m.name for m in regression_measures(rows, p[:, 0], np.ones(100))] == ["rmse", "mae"]


@pytest.mark.parametrize("hits", [0.0, 1.0])
def test_a_share_of_none_or_all_keeps_an_interval(hits: float) -> None:
    found = proportion("share", np.full(100, hits), np.ones(100), np.arange(100))
    assert found.value == hits
    assert 0.03 < found.high - found.low < 0.04
