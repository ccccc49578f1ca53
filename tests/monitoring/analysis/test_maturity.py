import numpy as np
import pytest

from monitoring.analysis.maturity import DAY_S, HOUR_S, label_maturity


def test_young_answers_do_not_bend_the_curve() -> None:
    ages = np.linspace(0, 30 * DAY_S, 10_000)
    delays = np.where(ages >= 2 * HOUR_S, 2 * HOUR_S, np.nan)  # every label takes two hours
    found = label_maturity(ages, delays, np.ones(len(ages)))
    shares = {point.delay_s: point.share for point in found.curve}
    assert shares[HOUR_S] == 0.0
    assert shares[6 * HOUR_S] == 1.0
    assert found.mature_after_s == 6 * HOUR_S
    assert found.median_delay_s == 2 * HOUR_S
    assert found.coverage == pytest.approx(1 - 2 / 720, abs=1e-3)
    assert found.mature == pytest.approx(1 - 6 / 720, abs=1e-3)


def test_labels_that_never_come_lower_the_curve_not_its_maturity() -> None:
    ages = np.full(1_000, 100 * DAY_S)
    delays = np.where(np.arange(1_000) % 2 == 0, DAY_S, np.nan)
    found = label_maturity(ages, delays, np.ones(1_000))
    assert found.curve[-1].share == 0.5
    assert found.mature_after_s == DAY_S


def test_a_curve_that_still_rises_promises_nothing() -> None:
    ages = np.full(1_000, 1.1 * DAY_S)
    delays = np.where(np.arange(1_000) < 500, 0.9 * DAY_S, np.nan)
    assert label_maturity(ages, delays, np.ones(1_000)).mature_after_s is None


def test_no_answers_and_no_labels_are_no_data() -> None:
    empty = np.empty(0)
    assert np.isnan(label_maturity(empty, empty, empty).coverage)
    unlabelled = label_maturity(np.full(50, DAY_S), np.full(50, np.nan), np.ones(50))
    assert (unlabelled.coverage, unlabelled.median_delay_s, unlabelled.mature) == (0.0, None, None)


def test_weights_count() -> None:
    found = label_maturity(np.zeros(2), np.array([0.0, np.nan]), np.array([3.0, 1.0]))
    assert found.coverage == 0.75
