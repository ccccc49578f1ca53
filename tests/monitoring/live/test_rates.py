"""Intervals of a regression's errors hold at every look, and say when they cannot be told."""

import numpy as np
import pytest

from monitoring.analysis.compare.moments import Moments, unit_moments
from monitoring.live.degrading import Day, standing
from monitoring.live.rates import interval_of, rate_of

TRAINED = {"test_rmse": 2.0, "test_mae": 1.6, "test_rows": 2_000}


def sums_of(values: np.ndarray) -> Moments:
    return unit_moments(values, np.ones(len(values)), np.arange(len(values)))


def judge(errors: np.ndarray, *, still_open: bool = False, training=TRAINED):
    day = Day(start_s=0, sums=sums_of(errors**2))
    return standing("rmse", day, training, 0.02, still_open=still_open)


def test_a_regressor_as_good_as_trained_is_seldom_flagged_however_often_one_looks():
    rng = np.random.default_rng(5)
    flagged = missed = 0
    for _ in range(400):
        trained = {"test_rmse": float(np.sqrt(np.mean(rng.normal(0, 2.0, 2_000) ** 2)))}
        errors = rng.normal(0.0, 2.0, 2_000)
        looks = range(100, 2_001, 100)
        flagged += any(
            judge(errors[:n], training=trained | {"test_rows": 2_000}).degraded for n in looks
        )
        missed += any(
            interval_of("rmse", sums_of(errors[:n] ** 2), 0.05).excludes(4.0) for n in looks
        )
    assert flagged <= 8
    assert missed <= 20


def test_a_worse_regressor_is_flagged_until_it_is_as_good_as_trained():
    rng = np.random.default_rng(6)
    found = judge(rng.normal(0.0, 2.5, 1_000))
    assert (found.degraded, found.reference, found.against) == (True, 2.0, "training")
    assert found.rate.low is not None
    assert found.rate.low < found.rate.value < found.rate.high
    assert judge(np.full(500, 2.05) * (1 + 0.01 * np.arange(500) % 2), still_open=True).degraded
    assert not judge(rng.normal(0.0, 1.5, 1_000), still_open=True).degraded
    assert not judge(rng.normal(0.0, 9.0, 1_000), training={}).degraded


def test_figures_beside_rmse_are_shown_and_decide_nothing():
    for metric, values, reference in (
        ("mae", np.full(300, 9.0), 1.6),
        ("bias", -np.ones(300), None),
    ):
        day = Day(start_s=0, sums=sums_of(values + np.arange(300) % 2))
        found = standing(metric, day, TRAINED, 0.02, still_open=True)
        assert (found.degraded, found.reference) == (False, reference)
        assert found.note == "shown only: RMSE decides"


@pytest.mark.parametrize("values", [np.ones(50), np.append(np.ones(5_000), 1e9)])
def test_too_few_or_too_skewed_errors_have_no_interval(values):
    found = rate_of("rmse", sums_of(values**2))
    assert (found.low, found.high) == (None, None)
    assert found.value == pytest.approx(np.sqrt(np.mean(values**2)))
