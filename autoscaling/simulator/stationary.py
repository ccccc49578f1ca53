"""How a fixed number of replicas behaves under a steady load: the simulator's ground truth."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from autoscaling.simulator.arrivals import draw_service
from autoscaling.simulator.cluster import Cluster
from autoscaling.simulator.kernel import NEVER, Requests
from autoscaling.simulator.scenario import Scenario

#: Offered loads per replica at which late shares are simulated.
LOADS = tuple(float(u) for u in np.round(np.linspace(0.30, 0.99, 24), 4))
#: Replica counts that are simulated, the highest apart.
COUNTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)


def steady_latencies(
    scenario: Scenario, replicas: int, load: float, requests: int, seed: int
) -> NDArray[np.float64]:
    """Latencies in seconds under Poisson arrivals at ``load`` times the replicas' capacity.

    The first tenth of the requests warms the system up and is left out.
    """
    rng = np.random.default_rng(seed)
    rps = load * replicas / scenario.mean_service_s
    stream = Requests(
        arrival_s=np.cumsum(rng.exponential(1.0 / rps, requests)),
        service_s=draw_service(scenario, requests, rng),
        draw=rng.random(requests),
        latency_s=np.full(requests, NEVER),
    )
    fixed = replace(scenario, min_replicas=replicas, max_replicas=replicas)
    cluster = Cluster(stream, fixed, rng, initial=replicas)
    cluster.advance(float(stream.arrival_s[-1]) + 1.0)
    return stream.latency_s[requests // 10 :]


def bearable_load(scenario: Scenario, replicas: int, requests: int) -> float:
    """Highest load per replica at which ``quantile`` are in time.

    Bisected over ``LOADS``, where late shares are simulated, and interpolated between two of them.
    """
    allowed = 1.0 - scenario.quantile

    def late_share(i: int) -> float:
        latencies = steady_latencies(scenario, replicas, LOADS[i], requests, seed=7)
        return float(np.mean(latencies > scenario.slo_s))

    low, high = 0, len(LOADS) - 1
    late_low, late_high = late_share(low), late_share(high)
    if late_low >= allowed or late_high <= allowed:
        return LOADS[low] if late_low >= allowed else LOADS[high]
    while high - low > 1:
        middle = (low + high) // 2
        late = late_share(middle)
        if late <= allowed:
            low, late_low = middle, late
        else:
            high, late_high = middle, late
    part = (allowed - late_low) / (late_high - late_low)
    return LOADS[low] + part * (LOADS[high] - LOADS[low])


@lru_cache(maxsize=8)
def _loads(scenario: Scenario, requests: int) -> NDArray[np.float64]:
    """Bearable load for 1, 2, … replicas: simulated at some counts.

    In between, the distance to full load is a power of the count (square-root staffing).
    """
    top = scenario.max_replicas
    grid = sorted({c for c in COUNTS if c < top} | {top})
    simulated = [bearable_load(scenario, c, requests) for c in grid]
    counts = np.log(np.arange(1, top + 1))
    distance = np.interp(counts, np.log(grid), np.log1p(-np.array(simulated)))
    return np.asarray(1.0 - np.exp(distance))


def capacity_rps(scenario: Scenario, requests: int = 150_000) -> NDArray[np.float64]:
    """Highest steady rate at which ``quantile`` are in time, for 1, 2, … replicas."""
    load = _loads(scenario, requests)
    rates = load * np.arange(1, len(load) + 1) / scenario.mean_service_s
    return np.maximum.accumulate(rates)
