"""Whole runs: accounting, faults, and every policy through the same loop."""

from dataclasses import replace

import numpy as np
import pytest

from autoscaling.errors import ConfigError, TraceError
from autoscaling.simulator.arrivals import Trace, draw_requests, read_trace
from autoscaling.simulator.run import View, replay, score
from autoscaling.simulator.scenario import Scenario
from autoscaling.simulator.study import POLICIES, Job, best_settings, plan, replay_job, summarise
from autoscaling.simulator.study import run_all as run_jobs
from autoscaling.simulator.synthetic import SHAPES, make_trace

SHORT = Scenario(unscored_s=20, max_replicas=8)
STEADY = Trace(name="steady", rps=np.full(150, 120.0))


class Fixed:
    reason = "fixed"

    def __init__(self, replicas: int) -> None:
        self.replicas = replicas

    def wanted(self, view: View) -> int:
        return self.replicas


def test_a_fixed_fleet_is_paid_by_the_second():
    run = replay(STEADY, SHORT, Fixed(4), seed=1)
    judged = score(run, SHORT)
    assert judged.replica_hours == pytest.approx(4 * 130 / 3600, rel=1e-6)
    assert judged.attainment > 0.99
    assert judged.scale_events == 0
    assert judged.requests == pytest.approx(120 * 130, rel=0.05)


def test_a_new_replica_serves_after_its_cold_start():
    scenario = replace(SHORT, cold_start_cv=0.0)
    run = replay(STEADY, scenario, Fixed(2), seed=1)
    assert run.running[:8].tolist() == [1] * 8
    assert run.running[9] == 2


def test_too_small_a_fleet_is_late():
    assert score(replay(STEADY, SHORT, Fixed(1), seed=1), SHORT).attainment < 0.2


def test_crashes_lose_requests_and_are_repaired():
    scenario = replace(SHORT, failures_per_replica_hour=120.0)
    run = replay(STEADY, scenario, Fixed(4), seed=1)
    assert np.isinf(run.requests.latency_s).sum() > 0
    assert run.running.min() < 4
    assert run.target[-1] == 4


def test_drift_makes_requests_heavier():
    drifting = replace(SHORT, drift=((0.0, 1.0), (150.0, 3.0)))
    light = draw_requests(STEADY, SHORT, 1).service_s
    heavy = draw_requests(STEADY, drifting, 1).service_s
    assert heavy[-1000:].mean() / light[-1000:].mean() == pytest.approx(3.0, rel=0.1)


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_every_policy_stays_in_bounds(name):
    job = Job(policy=name, settings={}, trace=STEADY, seed=2, scenario=SHORT)
    run = replay_job(job)
    assert run.target.min() >= SHORT.min_replicas
    assert run.target.max() <= SHORT.max_replicas
    assert len(run.reasons) == STEADY.duration_s


def test_a_study_summarises_and_finds_the_best():
    jobs = plan(["naive"], [STEADY], [1, 2], SHORT, grid=False)
    records = list(run_jobs(jobs, workers=1))
    lines = summarise(records)
    assert len(records) == 2
    assert len(lines) == 1
    assert best_settings(lines)["naive"] is lines[0]


def test_an_unknown_policy_is_named():
    with pytest.raises(ConfigError, match="policy = 'magic' is not allowed: one of latency"):
        plan(["magic"], [STEADY], [1], SHORT, grid=False)


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_are_reproducible_and_never_negative(shape):
    trace = make_trace(shape, seed=3, duration_s=900)
    assert (trace.rps >= 0).all()
    assert np.array_equal(trace.rps, make_trace(shape, seed=3, duration_s=900).rps)


def test_rates_hold_until_the_next_line(tmp_path):
    path = tmp_path / "rates.csv"
    path.write_text("t_s,rps\n0,10\n3,20\n4,5\n")
    assert read_trace(path).rps.tolist() == [10, 10, 10, 20, 5]


def test_timestamps_are_replayed_exactly(tmp_path):
    path = tmp_path / "times.csv"
    path.write_text("t_s\n100.75\n100.25\n102.5\n")
    trace = read_trace(path)
    assert trace.rps.tolist() == [2, 0, 1]
    assert draw_requests(trace, SHORT, 1).arrival_s.tolist() == [0.25, 0.75, 2.5]


@pytest.mark.parametrize(
    "text",
    ["", "a,b\n1,2\n", "t_s,rps\n", "t_s,rps\n0,x\n", "t_s,rps\n0,nan\n", "t_s,rps\n1,2\n0,2\n"],
)
def test_bad_traces_are_refused(tmp_path, text):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(TraceError, match=r"bad\.csv"):
        read_trace(path)
