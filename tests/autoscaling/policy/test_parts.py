"""The policy's parts: telemetry, buckets, capacity, forecast, feedback, state."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaling.errors import ConfigError
from autoscaling.policy import backlog, buckets, capacity, feedback, fitting, forecast, telemetry
from autoscaling.policy.feedback import FeedbackState
from autoscaling.policy.service import ServiceState
from autoscaling.policy.state import VERSION, State, StateError, from_dict, to_dict
from autoscaling.policy.telemetry import ACCEPTED, ReplicaReport, TelemetryState
from autoscaling.policy.types import Config
from autoscaling.simulator.arrivals import draw_service
from autoscaling.simulator.scenario import Scenario

ZEROS = np.zeros(buckets.COUNT)


def report(replica_id: str, at_s: float, accepted: float, completed: float = 0.0) -> ReplicaReport:
    return ReplicaReport(
        replica_id=replica_id,
        at_s=at_s,
        accepted=accepted,
        completed=completed,
        within=completed,
        service_s_sum=0.0,
        service_s_sumsq=0.0,
        service_counts=ZEROS,
    )


def look(reports, state, steady_s, queued=0.0):
    return telemetry.merge(reports, queued, state, steady_s=steady_s, elapsed_s=1.0)


def test_the_first_look_is_only_a_base_line():
    flow, state = look([report("a", 5.0, 1e6)], TelemetryState(), 1.0)
    assert flow.arrivals_rps is None
    flow, _ = look([report("a", 6.0, 1e6 + 30)], state, 2.0)
    assert flow.arrivals_rps == 30


def test_a_lost_report_is_made_up_for_and_a_repeated_one_carries_its_rate():
    _, state = look([report("a", 1.0, 0)], TelemetryState(), 1.0)
    flow, state = look([report("a", 3.0, 60)], state, 3.0)
    assert flow.arrivals_rps == 30  # 60 in two seconds
    flow, _ = look([report("a", 3.0, 60)], state, 4.0)
    assert flow.arrivals_rps == 30
    assert flow.counts[ACCEPTED] == 0


def test_a_restarted_replica_counts_from_zero():
    _, state = look([report("a", 1.0, 500)], TelemetryState(), 1.0)
    flow, _ = look([report("a", 2.0, 20)], state, 2.0)
    assert flow.arrivals_rps == 20


def test_a_late_report_is_left_out_and_doubted_like_a_restart_after_a_clock_step():
    _, state = look([report("a", 5.0, 500)], TelemetryState(), 1.0)
    flow, state = look([report("a", 4.0, 400)], state, 2.0)
    assert (flow.counts[ACCEPTED], flow.doubtful) == (0, 1)
    flow, _ = look([report("a", 4.5, 420)], state, 9.0)  # nothing newer ever came: a restart
    assert (flow.counts[ACCEPTED], flow.doubtful) == (420, 0)


def test_a_clock_that_stands_still_hides_no_progress():
    _, state = look([report("a", 5.0, 500)], TelemetryState(), 1.0)
    flow, _ = look([report("a", 5.0, 530)], state, 2.0)
    assert (flow.arrivals_rps, flow.counts[ACCEPTED]) == (30, 30)


def test_growth_of_the_routers_queue_is_arrivals():
    _, state = look([report("a", 1.0, 0)], TelemetryState(), 1.0)
    flow, _ = look([report("a", 2.0, 10)], state, 2.0, queued=25.0)
    assert flow.arrivals_rps == 35


@pytest.mark.parametrize("accepted", [float("nan"), float("inf"), -1.0, 1e15])
def test_impossible_reports_are_left_out(accepted):
    flow, _ = look([report("a", 1.0, accepted)], TelemetryState(), 1.0)
    assert (flow.invalid, flow.reporting) == (1, 0)


def test_contradictory_reports_are_left_out():
    flow, _ = look([report("a", 1.0, 5, completed=6)], TelemetryState(), 1.0)
    assert flow.invalid == 1


def test_silence_for_long_is_no_data():
    _, state = look([report("a", 1.0, 0)], TelemetryState(), 1.0)
    flow, _ = look([], state, 30.0)
    assert flow.arrivals_rps is None


@given(st.lists(st.floats(1e-4, 3.0), min_size=20, max_size=200), st.sampled_from([0.5, 0.9, 0.95]))
def test_a_quantile_from_buckets_is_within_one_bucket(values, q):
    exact = float(np.quantile(values, q, method="inverted_cdf"))
    measured = buckets.quantile_s(buckets.count(values), q)
    assert measured is not None
    assert exact / buckets.FACTOR <= measured <= exact * buckets.FACTOR


def test_no_values_have_no_quantile():
    assert buckets.quantile_s(ZEROS, 0.95) is None


def reference_service() -> ServiceState:
    times = draw_service(Scenario(), 50_000, np.random.default_rng(0))
    return ServiceState(
        requests=len(times),
        sum_s=float(times.sum()),
        sumsq_s=float((times**2).sum()),
        counts=np.array(buckets.count(times.tolist()), dtype=np.float64),
    )


#: Loads at which so many are late: long simulations of the reference scenario (``stationary``).
TRUE_LOADS = {
    1: {0.05: 0.618},
    4: {0.01: 0.746, 0.05: 0.876},
    6: {0.01: 0.790, 0.05: 0.906},
    16: {0.01: 0.830, 0.05: 0.961},
    48: {0.01: 0.857, 0.05: 0.990},
}


def test_the_table_agrees_with_long_simulations_between_and_above_the_fitted_counts():
    config = Config(fit_steps=500)
    service = reference_service()
    state = capacity.CapacityState()
    for _ in range(60):
        state = capacity.update(state, service, 2, config)
    assert {fit.replicas for fit in state.fits} == set(capacity.FITTED)
    for replicas, loads in TRUE_LOADS.items():
        for late, load in loads.items():
            rps = np.array([load * replicas / service.mean_s])
            found = capacity.late_shares(
                state, np.array([replicas]), rps * [0.95, 1.05], service.mean_s, config
            )[0]
            assert found[0] < late < found[1], (replicas, late, found)
    assert capacity.need(state, 1e9, service.mean_s, config) == config.max_replicas


def test_late_shares_fall_with_replicas_and_grow_with_load():
    service = reference_service()
    state = capacity.CapacityState(service=service)
    late = capacity.late_shares(
        state, np.arange(1, 20), np.linspace(10, 3000, 40), service.mean_s, Config()
    )
    assert (np.diff(late, axis=1) >= -1e-9).all()
    assert (np.diff(late, axis=0) <= 1e-3).all()


def service_of(*work: tuple[float, float]) -> ServiceState:
    """Measured requests: (seconds of work, share of the requests)."""
    times, shares = np.array(work).T
    requests = 10_000.0 * shares / shares.sum()
    counts = np.zeros(buckets.COUNT)
    for seconds, number in zip(times, requests, strict=True):
        counts[buckets.bucket_of(float(seconds))] += number
    return ServiceState(
        requests=float(requests.sum()),
        sum_s=float(times @ requests),
        sumsq_s=float(times**2 @ requests),
        counts=counts,
    )


def check_capacity(state: capacity.CapacityState, service: ServiceState, config: Config) -> None:
    """Late shares are numbers, rise with the rate and fall with replicas; so do needs."""
    rates = np.linspace(0.0, 40.0, 41) / service.mean_s
    late = capacity.late_shares(state, np.arange(1, 65), rates, service.mean_s, config)
    assert np.isfinite(late).all()
    assert (late >= 0).all()
    assert (np.diff(late, axis=1) >= -1e-9).all()
    assert (np.diff(late, axis=0) <= 5e-3).all()
    needs = [capacity.need(state, float(rps), service.mean_s, config) for rps in rates]
    assert needs == sorted(needs)
    assert needs[20] >= 20  # whatever is late, work takes what it takes
    assert capacity.capacity_rps(state, 64, service.mean_s, config) > 0


works = st.lists(
    st.tuples(st.sampled_from([1e-4, 0.005, 0.1, 0.19, 0.2, 0.21, 0.5, 3.0]), st.floats(0.01, 1.0)),
    min_size=1,
    max_size=4,
)


@given(works)
@settings(max_examples=40, deadline=None)
def test_any_work_has_a_capacity_even_if_all_of_it_takes_too_long(work):
    service = service_of(*work)
    check_capacity(capacity.CapacityState(service=service), service, Config())


@pytest.mark.parametrize("too_long", [0.03, 0.5, 1.0])
def test_a_fit_of_work_that_takes_too_long_counts_its_waits(too_long):
    service = service_of((0.02, 1.0 - too_long), (0.5, too_long))
    config = Config(fit_steps=500)
    state = capacity.CapacityState()
    for _ in range(60):
        state = capacity.update(state, service, 2, config)
    assert len(state.fits) == len(capacity.FITTED)
    for fit in state.fits:
        assert 0 < fit.late_shares[-1] < 0.5  # of waits, whatever share takes too long
    check_capacity(state, service, config)
    assert capacity.hopeless_share(state, config) == pytest.approx(too_long)


def test_work_of_no_time_is_not_known():
    counts = service_of((0.02, 1.0)).counts
    vanishing = ServiceState(requests=1e4, sum_s=1e-200, sumsq_s=1.0, counts=counts)
    assert not vanishing.known


def test_a_fit_is_deterministic_and_may_be_sliced():
    counts = reference_service().counts
    sliced = [fitting.begin(2, 5, 0.2, 0.05, counts) for _ in range(2)]
    for _ in range(4):
        sliced = [fitting.advance(run, 10) for run in sliced]
    assert [run.step for run in sliced] == [40, 40]
    assert np.array_equal(sliced[0].busy_until_s, sliced[1].busy_until_s)


def test_forecasts_learn_a_steady_load():
    state = forecast.new_state()
    rng = np.random.default_rng(0)
    for rate in rng.poisson(300.0, 600):
        state = forecast.update(state, float(rate), 10)
    spoken = forecast.speak(state, 10)
    assert spoken is not None
    assert 290 < np.median(spoken.peaks_rps) < 330
    assert spoken.peaks_rps[-1] < 400


def test_nothing_known_is_no_forecast():
    assert forecast.speak(forecast.new_state(), 10) is None


def test_backlog_grows_until_help_arrives():
    grown = backlog.when_help_arrives(10.0, 100.0, 50.0, 1, [], 8.0, 0.0)
    assert grown == pytest.approx(10 + 50 * 8)
    helped = backlog.when_help_arrives(10.0, 100.0, 50.0, 1, [(-4.0, 1)], 8.0, 0.0)
    assert helped == pytest.approx(10 + 50 * 4)


def test_feedback_needs_honest_evidence():
    honest = dishonest = FeedbackState()
    for _ in range(30):
        honest = feedback.update(honest, 100.0, 20.0, 0.05, 1.0, honest=True)
        dishonest = feedback.update(dishonest, 100.0, 20.0, 0.05, 1.0, honest=False)
    assert honest.correction > 1.0
    assert dishonest.correction == 1.0


def test_state_survives_json_and_garbage_is_refused():
    state = State(now_s=5.0, recent_needs=(1, 2))
    written = json.loads(json.dumps(to_dict(state)))
    assert to_dict(from_dict(written)) == to_dict(state)
    for garbage in ({}, {"version": 99}, {"version": 1}, {"version": VERSION}, []):
        with pytest.raises(StateError):
            from_dict(garbage)


def test_a_fit_that_was_broken_off_is_made_after_all():
    config, service = Config(fit_steps=500), reference_service()
    begun = capacity.CapacityState()
    for _ in range(2):
        begun = capacity.update(begun, service, 4, config)
    assert begun.run is not None
    fitted = from_dict(json.loads(json.dumps(to_dict(State(capacity=begun))))).capacity
    for _ in range(60):
        fitted = capacity.update(fitted, service, 4, config)
    assert sorted(fit.replicas for fit in fitted.fits) == list(capacity.FITTED)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("quantile", 1.5),
        ("slo_ms", 0),
        ("min_replicas", 2.5),
        ("max_replicas", 0),
        ("caution", "x"),
    ],
)
def test_settings_out_of_range_name_key_value_and_range(key, value):
    with pytest.raises(ConfigError, match=rf"{key} = .* is not allowed: .* from .* to"):
        Config(**{key: value})
