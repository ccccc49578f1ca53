import numpy as np
import pyarrow as pa
import pytest

from monitoring.analysis.compare.metrics import metric_named
from monitoring.analysis.compare.report import Plan, Report, report
from monitoring.events import FEEDBACK_SCHEMA
from tests.monitoring.analysis.logs import answers, clicks, labels, replaced

N = 6_000


def plan(*metrics: str, **more: object) -> Plan:
    return Plan(metrics=tuple(metric_named(m) for m in metrics), plan_units=N, **more)  # type: ignore[arg-type]


def verdicts(found: Report) -> dict[str, str]:
    return {c.comparison.metric: c.comparison.verdict for c in found.comparisons}


def experiment(seed: int = 1, *, right: float = 0.8, rate: float = 0.1, slower: float = 0.0):
    rng = np.random.default_rng(seed)
    old = answers("1", rng, N)
    new = answers("2", rng, N, first=N, variant="challenger")
    new = replaced(new, latency_ms=new["latency_ms"].to_numpy() + slower)
    feedback = [labels(old, rng, 0.8), labels(new, rng, right)]
    feedback += [clicks(old, rng, 0.1), clicks(new, rng, rate)]
    return pa.concat_tables([old, new]), pa.concat_tables(feedback)


ALL = ("accuracy", "click", "error_rate", "latency_ms")


def test_equal_versions_are_undecided() -> None:
    found = verdicts(report(*experiment(), plan(*ALL)))
    assert found["accuracy"] == found["click"] == found["latency_ms"] == "undecided"
    assert found["error_rate"] == "not_enough_data"  # there was no error at all


def test_true_differences_are_found_in_the_right_direction() -> None:
    found = verdicts(report(*experiment(right=0.9, rate=0.15, slower=1.0), plan(*ALL)))
    assert found == {
        "accuracy": "better",
        "click": "better",
        "error_rate": "not_enough_data",
        "latency_ms": "worse",
    }


def test_the_control_can_be_named_and_turns_the_sign() -> None:
    events, feedback = experiment(right=0.9)
    found = report(events, feedback, plan("accuracy", control="2")).comparisons[0].comparison
    assert (found.control, found.treatment, found.verdict) == ("2", "1", "worse")


def test_the_risk_is_split_over_metrics_and_versions() -> None:
    events, feedback = experiment()
    third = answers("3", np.random.default_rng(9), 500, first=2 * N, variant="challenger")
    found = report(pa.concat_tables([events, third]), feedback, plan("accuracy", "click"))
    assert {c.comparison.alpha for c in found.comparisons} == {0.05 / 4}


def test_looks_end_with_now() -> None:
    judged = report(*experiment(right=0.9), plan("accuracy")).comparisons[0]
    last = judged.looks[-1]
    assert len(judged.looks) <= 10
    assert (last.low, last.high) == (
        judged.comparison.interval.low,
        judged.comparison.interval.high,
    )


def test_a_shadow_is_paired_and_never_clicked() -> None:
    rng = np.random.default_rng(3)
    old = answers("1", rng, 2_000)
    scores = old["score"].to_numpy() + rng.normal(0.01, 0.02, 2_000)
    shadow = replaced(old, version="2", variant="shadow", score=scores)
    events = pa.concat_tables([old, shadow])
    found = report(events, labels(old, rng, 0.8), plan("score", "click", "accuracy"))
    (score, accuracy) = (c.comparison for c in found.comparisons)
    assert (score.metric, score.paired, score.verdict) == ("score", True, "different")
    unpaired_error = np.sqrt(2 * old["score"].to_numpy().var() / 2_000)
    assert (score.interval.high - score.interval.low) / 2 < unpaired_error  # what pairing buys
    assert accuracy.reason == "all differences are the same"


def test_a_shadow_asked_by_name_once_is_still_paired_and_no_part_of_the_split() -> None:
    rng = np.random.default_rng(8)
    old = answers("1", rng, 500)
    other = answers("2", rng, 500, first=500)
    shadow = replaced(old, version="3", variant="shadow", weight=np.full(500, 2.0))
    asked = answers("3", rng, 1, first=1_000)
    events = pa.concat_tables([old, other, shadow, asked])
    split = {"1": 1, "2": 1}
    metrics = ("score", "latency_ms")
    found = report(events, FEEDBACK_SCHEMA.empty_table(), plan(*metrics, split=split))
    compared = {(c.comparison.treatment, c.comparison.metric) for c in found.comparisons}
    assert compared == {("2", "score"), ("2", "latency_ms"), ("3", "score")}
    assert next(c.comparison for c in found.comparisons if c.comparison.treatment == "3").paired
    assert found.split is not None
    assert found.split.counts == {"1": 500, "2": 500}


def test_sessions_are_the_units() -> None:
    rng = np.random.default_rng(4)
    session = [f"s{i // 10}" for i in range(2_000)]
    events = pa.concat_tables(
        [
            answers("1", rng, 2_000, session_id=session),
            answers("2", rng, 2_000, first=2_000, session_id=[f"t{s}" for s in session]),
        ]
    )
    found = report(events, FEEDBACK_SCHEMA.empty_table(), plan("score", split={"1": 1, "2": 1}))
    assert found.comparisons[0].comparison.control_units == 200
    assert found.split is not None
    assert found.split.counts == {"1": 200, "2": 200}
    by_request = report(events, FEEDBACK_SCHEMA.empty_table(), plan("score", unit="request"))
    assert by_request.comparisons[0].comparison.control_units == 2_000


def test_the_split_is_not_judged_on_a_sampled_log() -> None:
    rng = np.random.default_rng(5)
    weights = np.where(np.arange(500) % 2, 1.0, 10.0)
    events = pa.concat_tables(
        [answers("1", rng, 500, weight=weights), answers("2", rng, 500, first=500)]
    )
    found = report(events, FEEDBACK_SCHEMA.empty_table(), plan("score", split={"1": 1, "2": 1}))
    assert found.split is None
    assert "weights" in str(found.split_reason)


def test_one_version_is_no_experiment() -> None:
    rows = answers("1", np.random.default_rng(6), 10)
    with pytest.raises(ValueError, match="1 version in the log"):
        report(rows, FEEDBACK_SCHEMA.empty_table(), plan("score"))
    with pytest.raises(ValueError, match="control is '9'"):
        report(*experiment(), plan("score", control="9"))


def test_an_unknown_metric_is_named_with_what_there_is() -> None:
    with pytest.raises(ValueError, match="accuracy, squared_error, click"):
        metric_named("accurcy")
    assert metric_named("feedback:revenue").outcome == "revenue"
