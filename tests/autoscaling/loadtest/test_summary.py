"""The verdict counts every judged request, and the generator's own part is told."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaling.loadtest.errors import TargetInvalid
from autoscaling.loadtest.generator import Target
from autoscaling.loadtest.recording import Outcome
from autoscaling.loadtest.results import Objective, Schedule
from autoscaling.loadtest.scaling import ScalingHistory
from autoscaling.loadtest.summary import describe, summarise

TARGET = Target(url="http://127.0.0.1:8000/predict")


def judge(recording, **objective):
    return summarise(
        recording,
        target=TARGET,
        schedule=Schedule(
            rate_rps=10.0,
            duration_s=recording.plan.duration_s,
            warmup_s=recording.plan.warmup_s,
            kinds=recording.plan.kinds,
        ),
        objective=Objective(**objective),
        scaling=ScalingHistory(),
    )


def test_percentiles_are_values_that_occurred(recorded):
    latency = judge(recorded(np.arange(1, 101, dtype=float))).latency
    assert latency.count == 100
    found = (latency.p50_ms, latency.p90_ms, latency.p95_ms, latency.p99_ms, latency.max_ms)
    assert found == pytest.approx((50, 90, 95, 99, 100))
    assert latency.mean_ms == pytest.approx(50.5)


def test_the_objective_counts_a_failed_request_as_missed(recorded):
    recording = recorded([10.0] * 20)
    assert judge(recording, slo_ms=20, quantile=0.95).verdict.attained == 1.0
    recording.status[3] = 503
    result = judge(recording, slo_ms=20, quantile=0.95)
    assert result.verdict.held
    assert result.verdict.attained == 0.95
    assert result.counts.statuses == {200: 19, 503: 1}
    recording.outcome[4], recording.status[4] = Outcome.TIMED_OUT, 0
    recording.outcome[5], recording.status[5], recording.sent_s[5] = Outcome.FAILED, 0, np.nan
    recording.mismatched[6] = True
    result = judge(recording, slo_ms=20, quantile=0.95)
    counts = result.counts
    assert not result.verdict.held
    assert result.verdict.attained == 0.8
    assert (counts.planned, counts.answered, counts.ok) == (20, 18, 16)
    assert (counts.timed_out, counts.failed, counts.lost, counts.mismatched) == (1, 1, 1, 1)
    assert result.latency.count == 16


def test_warmup_is_seen_but_not_judged(recorded):
    recording = recorded([500.0] * 10 + [10.0] * 10, warmup_s=1.0)
    result = judge(recording)
    assert result.verdict.attained == 1.0
    assert result.counts.planned == 10
    assert result.judged_s == pytest.approx(1.0)
    assert result.seconds[0].planned == 10
    assert result.seconds[0].p50_ms == pytest.approx(500)


def test_nothing_answered_is_no_latency_and_no_success(recorded):
    recording = recorded([10.0] * 3)
    recording.outcome[:], recording.status[:] = Outcome.FAILED, 0
    result = judge(recording)
    assert not result.verdict.held
    assert (result.latency.count, result.latency.p50_ms, result.latency.mean_ms) == (0, None, None)
    assert (result.latency_curve, result.histogram.counts) == ((), ())
    assert result.seconds[0].p95_ms is None


def test_a_stopped_run_is_judged_up_to_there(recorded, cut):
    recording = recorded([10.0] * 20)
    cut(recording, 15)
    result = judge(recording)
    assert result.stopped_at_s == pytest.approx(1.5)
    assert result.counts.planned == 15
    assert result.judged_s == pytest.approx(1.5)
    assert result.verdict.held


def test_a_run_stopped_before_its_first_request_holds_nothing(recorded, cut):
    recording = recorded([10.0] * 2)
    cut(recording, 0)
    result = judge(recording)
    assert not result.verdict.held
    assert result.seconds == ()


def test_seconds_by_plan_by_sending_and_by_end(recorded):
    recording = recorded([10.0, 10.0, 2_000.0, 10.0], every_s=0.5)
    recording.status[3] = 500
    shown = [(s.planned, s.sent, s.ok, s.errors, s.p95_ms) for s in judge(recording).seconds]
    assert shown == [
        (2, 2, 2, 0, pytest.approx(10)),
        (2, 2, 0, 1, pytest.approx(2_000)),
        (0, 0, 0, 0, None),
        (0, 0, 1, 0, None),
    ]


def test_a_late_generator_is_flagged(recorded):
    recording = recorded([100.0] * 100)
    assert judge(recording).generator.bottleneck == ()
    recording.begun_s[:2] += 0.011  # a twentieth of 200 ms is 10 ms
    health = judge(recording).generator
    assert health.late_share == 0.02
    assert health.lag_max_ms == pytest.approx(11)
    (trouble,) = health.bottleneck
    assert "2.0% of the requests were begun more than 10 ms late" in trouble
    assert "25% of a core" in trouble


def test_too_few_connections_are_flagged(recorded):
    recording = recorded([100.0] * 100)
    recording.queued[:2] = True
    (trouble,) = judge(recording).generator.bottleneck
    assert trouble == "2.0% of the requests waited for one of 512 connections: raise --connections"


def test_kinds_are_judged_apart(recorded):
    result = judge(recorded([10.0] * 10))
    (kind,) = result.kinds
    assert (kind.kind.name, kind.planned, kind.attained) == ("light", 10, 1.0)


@given(values=st.lists(st.floats(0.01, 1e5), min_size=1, max_size=200))
def test_histogram_holds_every_value_and_the_curve_ascends(recorded, values):
    result = judge(recorded(values))
    assert sum(result.histogram.counts) == len(values)
    assert sum(second.planned for second in result.seconds) == len(values)
    assert sum(second.ok for second in result.seconds) == len(values)
    for column in zip(*result.latency_curve, strict=True):
        assert list(column) == sorted(column)


def test_describe_of_one_value():
    latency = describe(np.array([7.0]))
    assert latency.p50_ms == latency.p999_ms == latency.max_ms == 7.0


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"slo_ms": 0.0}, "--slo-ms 0"),
        ({"slo_ms": float("nan")}, "--slo-ms nan"),
        ({"quantile": 0.0}, "--quantile 0"),
        ({"quantile": 95.0}, "--quantile 95"),
    ],
)
def test_bad_objectives_are_refused(changes, complaint):
    with pytest.raises(TargetInvalid, match=complaint):
        Objective(**changes)
