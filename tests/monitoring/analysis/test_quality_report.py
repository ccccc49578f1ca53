from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest

from monitoring.analysis.quality_report import READ_COLUMNS, Trained, version_quality
from monitoring.events import FEEDBACK_SCHEMA
from tests.monitoring.analysis.logs import START, answers, clicks, labels, outcomes, replaced

NOW = START + timedelta(days=2)
TRAINED = Trained(
    classes=("bad", "good"),
    metrics={"test_accuracy": 0.75, "test_rows": 2_000, "test_log_loss": 0.6},
)
NO_FEEDBACK = FEEDBACK_SCHEMA.empty_table()


def world(seed: int = 1, n: int = 4_000):
    rng = np.random.default_rng(seed)
    rows = answers("1", rng, n)
    return rng, rows.select(READ_COLUMNS), rows


def test_a_healthy_version_needs_nothing() -> None:
    rng, rows, _ = world()
    feedback = pa.concat_tables(
        [labels(rows, rng, rows["score"].to_numpy()), clicks(rows, rng, 0.1)]
    )
    found = version_quality(rows, feedback, TRAINED, start=START + timedelta(hours=6), now=NOW)
    assert found.reasons == ()
    assert {j.measure.name: j.standing for j in found.measures}["accuracy"] == "as_trained"
    assert found.maturity.coverage == 1.0
    assert found.concept is not None
    assert not found.concept.changed
    assert found.estimate.applies == "yes"
    assert sum(past.held for past in found.past_estimates) >= 8
    assert found.click_rate is not None
    assert found.click_rate.low < 0.1 < found.click_rate.high


def test_a_changed_concept_asks_for_retraining_and_voids_the_estimate() -> None:
    rng, rows, _ = world(2)
    right = np.where(np.arange(4_000) < 2_400, rows["score"].to_numpy(), 0.5)
    feedback = labels(rows, rng, right)
    start = START + timedelta(seconds=24_000)
    found = version_quality(rows, feedback, TRAINED, start=start, now=NOW)
    assert found.needs_retraining
    assert any("labels given scores changed" in reason for reason in found.reasons)
    assert any("accuracy" in reason for reason in found.reasons)
    assert found.estimate.applies == "no"


def test_before_labels_arrive_there_is_an_estimate_from_older_ones() -> None:
    rng, rows, _ = world(3)
    old = rows.slice(0, 2_500)
    found = version_quality(
        rows, labels(old, rng, old["score"].to_numpy()), TRAINED,
        start=START + timedelta(seconds=25_000), now=NOW,
    )  # fmt: skip
    assert (found.rows, found.maturity.labelled_rows, found.measures) == (1_500, 0, ())
    assert found.estimate.applies == "yes"
    estimated = found.estimate.estimated
    assert estimated is not None
    assert estimated.low < 0.75 < estimated.high  # the mean confidence, which is the truth here


def test_without_feedback_there_are_no_figures_and_no_alarm() -> None:
    _, rows, _ = world(4, 200)
    found = version_quality(rows, NO_FEEDBACK, TRAINED, start=None, now=NOW)
    assert (found.measures, found.reasons, found.click_rate) == ((), (), None)
    assert found.estimate.reason == "too few labels to calibrate on"


def test_a_window_without_rows_is_no_data() -> None:
    _, rows, _ = world(5, 200)
    found = version_quality(rows, NO_FEEDBACK, TRAINED, start=NOW, now=NOW)
    assert (found.rows, found.start, found.needs_retraining) == (0, None, False)


def test_failed_requests_are_no_answers() -> None:
    _, _, full = world(6, 300)
    failed = replaced(full, status=np.where(np.arange(300) % 3, 200, 500)).select(READ_COLUMNS)
    assert version_quality(failed, NO_FEEDBACK, TRAINED, start=None, now=NOW).rows == 200


def test_a_regression_is_measured_against_its_numbers() -> None:
    rng, _, full = world(7, 500)
    rows = replaced(full, label=[None] * 500, probabilities=[None] * 500).select(READ_COLUMNS)
    truth = rows["score"].to_numpy() + rng.normal(0, 0.5, 500)
    feedback = outcomes(rows, [str(t) for t in truth], "label", truth.tolist())
    trained = Trained(metrics={"test_rmse": 0.2, "test_rows": 1_000})
    found = version_quality(rows, feedback, trained, start=None, now=NOW)
    assert {j.measure.name: j.standing for j in found.measures} == {
        "rmse": "worse",
        "mae": "no_figure",
        "r2": "no_figure",
    }
    assert found.needs_retraining
    assert "no such estimate" in found.estimate.reason


def test_equal_input_gives_equal_figures() -> None:
    rng, rows, _ = world(8, 1_000)
    feedback = labels(rows, rng, 0.8)
    one, two = (version_quality(rows, feedback, TRAINED, start=None, now=NOW) for _ in range(2))
    assert one.measures == two.measures
    assert one.estimate == two.estimate


@pytest.mark.parametrize("classes", [(), ("bad", "good", "odd")])
def test_unknown_or_other_classes_leave_accuracy_only(classes: tuple[str, ...]) -> None:
    rng, rows, _ = world(9, 300)
    trained = Trained(classes=classes, metrics={})
    found = version_quality(rows, labels(rows, rng, 0.8), trained, start=None, now=NOW)
    assert [j.measure.name for j in found.measures] == ["accuracy"]
