"""What replicas tell the policy survives the way through Ray Serve's flat time series."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaling.policy import buckets
from autoscaling.signals import ReplicaSignals, read_reports

SLO_S = 0.2


def series(*replicas: dict[str, float]) -> dict[str, dict[str, Sequence[Any]]]:
    """Time series as Ray Serve keeps them: by name, then replica; an older value comes first."""
    raw: dict[str, dict[str, Sequence[Any]]] = {}
    for number, stats in enumerate(replicas):
        for name, value in stats.items():
            old, new = SimpleNamespace(value=-1.0), SimpleNamespace(value=value)
            raw.setdefault(name, {})[f"replica-{number}"] = [old, new]
    return raw


@given(st.lists(st.tuples(st.floats(1e-5, 3), st.floats(1e-5, 3)), max_size=30))
def test_counters_arrive_as_they_were_counted(answers: list[tuple[float, float]]) -> None:
    signals = ReplicaSignals(clock=lambda: 7.0, cpu_clock=lambda: 0.0)
    for model_s, latency_s in answers:
        signals.accept()
        signals.complete(model_s=model_s, latency_s=latency_s)
    stats = signals.stats()
    assert all(type(value) is float for value in stats.values())
    (report,) = read_reports(series(stats), slo_s=SLO_S)
    assert (report.at_s, report.accepted, report.completed) == (7.0, len(answers), len(answers))
    assert report.service_s_sum == pytest.approx(sum(model_s for model_s, _ in answers))
    assert list(report.service_counts) == buckets.count([model_s for model_s, _ in answers])
    surely_within = sum(latency_s < SLO_S / buckets.FACTOR for _, latency_s in answers)
    surely_late = sum(latency_s > SLO_S * buckets.FACTOR for _, latency_s in answers)
    assert surely_within <= report.within <= len(answers) - surely_late


def test_a_refused_request_is_demand_and_late() -> None:
    signals = ReplicaSignals(cpu_clock=lambda: 0.0)
    signals.accept()
    signals.refuse()
    (report,) = read_reports(series(signals.stats()), slo_s=SLO_S)
    assert (report.accepted, report.completed, report.within) == (1, 1, 0)
    assert sum(report.service_counts) == 0


def test_what_was_given_up_leaves_no_trace() -> None:
    signals = ReplicaSignals(cpu_clock=lambda: 0.0)
    signals.accept()
    signals.give_up()
    assert signals.stats()["accepted"] == 0.0


def test_overhead_around_the_model_counts_as_work() -> None:
    cpu_s = iter([0.0, 0.1, 0.2])
    signals = ReplicaSignals(clock=lambda: 0.0, cpu_clock=lambda: next(cpu_s))
    for _ in range(100):
        signals.accept()
        signals.complete(model_s=0.0001, latency_s=0.002)
    before = signals.stats()["service_s_sum"]
    signals.accept()
    signals.complete(model_s=0.0001, latency_s=0.002)
    # 0.1 s of CPU for 100 answers, 0.01 s of them the model's: 0.9 ms of overhead each.
    assert signals.stats()["service_s_sum"] - before == pytest.approx(0.001)


def test_a_replica_that_has_not_reported_is_left_out() -> None:
    stats = ReplicaSignals().stats()
    partly = {name: value for name, value in stats.items() if name != "completed"}
    assert len(read_reports(series(stats, partly), slo_s=SLO_S)) == 1
    assert read_reports({"at_s": {"replica": []}}, slo_s=SLO_S) == ()
