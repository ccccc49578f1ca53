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


@lru_cache(maxsize=8)
def late_shares(scenario: Scenario, requests: int = 150_000) -> NDArray[np.float64]:
    """Share of late requests, one line for each number of replicas from 1, one column per load.

    Simulated at some replica counts and interpolated between them; for each count from the
    highest load down, until practically nothing is late.
    """
    top = scenario.max_replicas
    grid = sorted(
        {c for c in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128) if c < top} | {top}
    )
    simulated = np.zeros((len(grid), len(LOADS)))
    for i, c in enumerate(grid):
        for j in reversed(range(len(LOADS))):
            latencies = steady_latencies(scenario, c, LOADS[j], requests, seed=7)
            simulated[i, j] = np.mean(latencies > scenario.slo_s)
            if simulated[i, j] < (1.0 - scenario.quantile) / 20:
                break
    simulated = np.maximum.accumulate(simulated, axis=1)  # more load is never better
    counts = np.log(np.arange(1, top + 1))
    return np.column_stack(
        [np.interp(counts, np.log(grid), simulated[:, i]) for i in range(len(LOADS))]
    )


def capacity_rps(scenario: Scenario) -> NDArray[np.float64]:
    """Highest steady rate at which ``quantile`` are in time, for 1, 2, … replicas."""
    shares = late_shares(scenario)
    allowed = 1.0 - scenario.quantile
    load = np.array([np.interp(allowed, line, LOADS) for line in shares])
    rates = load * np.arange(1, len(load) + 1) / scenario.mean_service_s
    return np.maximum.accumulate(rates)
