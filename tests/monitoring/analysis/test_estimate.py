import numpy as np

from monitoring.analysis.calibration import ScoredRows, fit_calibration
from monitoring.analysis.concept import conditional_change, error_alarms
from monitoring.analysis.estimate import estimate, estimate_accuracy


def world(rng, n, *, shift=0.0, spread=1.5, change=0.0, rows_per_unit=1):
    """Answers of an overconfident, lopsided model; ``change`` moves the truth behind the scores."""
    z = np.repeat(rng.normal(0.5 + shift, spread, n // rows_per_unit), rows_per_unit)
    raw = 1 / (1 + np.exp(-(1.5 * z + 0.5)))
    truth = rng.random(len(z)) < 1 / (1 + np.exp(-(z + change)))
    predicted = raw >= 0.5
    rows = ScoredRows(
        scores=np.where(predicted, raw, 1 - raw),
        labels=np.where(predicted, "good", "bad"),
        weights=np.ones(len(z)),
        units=np.arange(len(z)) // rows_per_unit,
    )
    return rows, predicted == truth


def test_the_interval_covers_what_comes_true_under_covariate_shift() -> None:
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(100):
        calibration = fit_calibration(*world(rng, 2_000), rng)
        rows, right = world(rng, 1_000, shift=rng.uniform(-1, 1), spread=rng.uniform(1, 2))
        found = estimate_accuracy(calibration, rows)
        held += found.holds(right.mean())
    assert held >= 93


def test_it_applies_when_calibration_held_and_not_when_it_broke() -> None:
    rng = np.random.default_rng(2)
    calibration = fit_calibration(*world(rng, 4_000), rng)
    window, _ = world(rng, 1_000)
    good = estimate(calibration, window, *world(rng, 1_000))
    assert (good.applies, good.check.changed) == ("yes", False)
    broken = estimate(calibration, window, *world(rng, 1_000, change=-1.0))
    assert broken.applies == "no"
    assert "calibration broke" in broken.reason
    assert broken.estimated is not None  # shown all the same


def test_without_labels_to_check_it_says_so() -> None:
    rng = np.random.default_rng(3)
    calibration = fit_calibration(*world(rng, 1_000), rng)
    window, _ = world(rng, 500)
    assert estimate(calibration, window, *world(rng, 10)).applies == "unchecked"


def test_without_a_calibration_or_a_window_there_is_no_estimate() -> None:
    rng = np.random.default_rng(4)
    assert fit_calibration(*world(rng, 199), rng) is None
    labelled, right = world(rng, 500)
    nothing = estimate(None, labelled, labelled, right)
    assert (nothing.estimated, nothing.applies) == (None, "no")
    empty = labelled.where(np.zeros(500, dtype=bool))
    calibration = fit_calibration(labelled, right, rng)
    assert estimate(calibration, empty, labelled, right).reason == "the window is empty"


def test_scores_no_label_has_come_from_are_not_guessed_at() -> None:
    rng = np.random.default_rng(5)
    calibration = fit_calibration(*world(rng, 2_000, spread=0.3), rng)
    found = estimate(calibration, world(rng, 500, shift=3)[0], *world(rng, 500, spread=0.3))
    assert found.applies == "no"
    assert "never seen" in found.reason


def test_a_label_that_is_rare_shares_a_curve() -> None:
    rng = np.random.default_rng(6)
    rows, right = world(rng, 1_000)
    labels = rows.labels.astype(object)
    labels[:10], labels[10:20] = "odd", "strange"
    rows = ScoredRows(scores=rows.scores, labels=labels, weights=rows.weights, units=rows.units)
    calibration = fit_calibration(rows, right, rng)
    assert set(calibration.curves) == {"good", "bad", ""}
    assert np.all((calibration.chances(rows) >= 0) & (calibration.chances(rows) <= 1))


def test_rows_of_one_request_widen_the_interval() -> None:
    rng = np.random.default_rng(7)
    calibration = fit_calibration(*world(rng, 5_000), rng)
    rows, _ = world(rng, 1_000, rows_per_unit=10)
    apart = ScoredRows(
        scores=rows.scores, labels=rows.labels, weights=rows.weights, units=np.arange(1_000)
    )
    wide, narrow = (estimate_accuracy(calibration, r) for r in (rows, apart))
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


def test_unchanged_labels_seldom_look_changed_and_changed_ones_do() -> None:
    rng = np.random.default_rng(8)
    alarms = {0.0: 0, 0.7: 0}
    for _ in range(50):
        calibration = fit_calibration(*world(rng, 2_000), rng)
        for change in alarms:
            rows, right = world(rng, 1_000, shift=0.3, change=change)
            alarms[change] += conditional_change(calibration, rows, right).changed
    assert alarms[0.0] <= 2  # 1% stated
    assert alarms[0.7] >= 45


def test_too_few_labels_are_no_test() -> None:
    rng = np.random.default_rng(9)
    calibration = fit_calibration(*world(rng, 1_000), rng)
    assert conditional_change(calibration, *world(rng, 49)) is None


def test_adwin_is_quiet_until_the_level_changes() -> None:
    rng = np.random.default_rng(10)
    quiet = (rng.random(4_000) < 0.2).astype(float)
    assert error_alarms(quiet) == []
    loud = np.concatenate((quiet[:2_000], (rng.random(2_000) < 0.5).astype(float)))
    assert 2_000 < error_alarms(loud)[0] < 2_300
