"""Steady cases against queueing theory."""

from dataclasses import replace

import numpy as np
import pytest

from autoscaling.policy import buckets, erlang
from autoscaling.simulator.arrivals import draw_service
from autoscaling.simulator.kernel import NEVER, Requests, advance, new_fleet
from autoscaling.simulator.scenario import Routing, Scenario, WorkClass
from autoscaling.simulator.stationary import steady_latencies

EXPONENTIAL_MEAN_S = 0.01


def test_one_replica_matches_pollaczek_khinchine():
    scenario = Scenario(max_ongoing=1000)
    load = 0.7
    waits = [
        steady_latencies(scenario, 1, load, 400_000, seed).mean() - scenario.mean_service_s
        for seed in range(3)
    ]
    service_s = draw_service(scenario, 1_000_000, np.random.default_rng(0))
    expected = load / (1 - load) * (service_s**2).mean() / (2 * service_s.mean())
    assert np.mean(waits) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize(("replicas", "load"), [(1, 0.8), (2, 0.8), (5, 0.85)])
def test_one_ongoing_request_makes_the_router_a_central_queue(replicas, load):
    """With one request per replica all waiting is in the router: M/M/c exactly."""
    waits = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        n = 1_000_000
        requests = Requests(
            arrival_s=np.cumsum(rng.exponential(EXPONENTIAL_MEAN_S / load / replicas, n)),
            service_s=rng.exponential(EXPONENTIAL_MEAN_S, n),
            draw=rng.random(n),
            latency_s=np.full(n, NEVER),
        )
        fleet = new_fleet(replicas, 1, 0)
        fleet.status[:] = 1
        fleet.ready_s[:] = 0.0
        advance(fleet, requests, 0.0, float(requests.arrival_s[-1]) + 60.0, 0.2, 0)
        assert np.isfinite(requests.latency_s).all()
        waits.append((requests.latency_s - requests.service_s).mean())
    expected = erlang.wait_probability(replicas, load) * EXPONENTIAL_MEAN_S
    expected /= replicas * (1 - load)
    assert np.mean(waits) == pytest.approx(expected, rel=0.02)


def test_refused_requests_never_finish_and_limit_the_queue():
    scenario = Scenario(max_queued=10, max_ongoing=1)
    work = (WorkClass(weight=1.0, mean_s=1.0, cv=0.001),)
    latency_s = steady_latencies(replace(scenario, work=work), 1, 3.0, 300, seed=1)
    done = latency_s[np.isfinite(latency_s)]
    assert 0.25 < len(done) / len(latency_s) < 0.45  # a third can be served
    assert done.max() < 12.1  # ten ahead in the queue, one in service


def test_the_better_the_routing_the_shorter_the_waits():
    means = [
        steady_latencies(Scenario(routing=routing), 8, 0.8, 100_000, seed=2).mean()
        for routing in (Routing.LEAST_ONGOING, Routing.TWO_CHOICES, Routing.RANDOM)
    ]
    assert means[0] < 0.9 * means[1] < 0.81 * means[2]


def test_the_same_seed_gives_the_same_latencies():
    runs = [steady_latencies(Scenario(), 3, 0.8, 5000, seed=5) for _ in range(2)]
    assert np.array_equal(*runs)


def test_closed_form_of_one_exponential_server_is_exact():
    """M/M/1: the time in the system is exponential with rate mu - lambda."""
    rng = np.random.default_rng(0)
    counts = np.array(buckets.count(rng.exponential(EXPONENTIAL_MEAN_S, 200_000).tolist()), float)
    late = erlang.late_curve(1, np.array([0.6]), 0.05, counts / counts.sum())[0]
    assert late == pytest.approx(np.exp(-0.4 * 0.05 / EXPONENTIAL_MEAN_S), rel=0.05)
