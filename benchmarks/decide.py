"""Cost of one decision at 64 replicas: the median, and the slowest while the table is fitted.

Run: ``python -m benchmarks.decide`` from the repository's root. Prints milliseconds of CPU, and the
ratio to a fixed piece of NumPy work measured in the same run, which carries over between machines.
"""

import statistics
import time

import numpy as np

from autoscaling.policy import buckets
from autoscaling.policy.decide import decide
from autoscaling.policy.state import State
from autoscaling.policy.telemetry import ReplicaReport
from autoscaling.policy.types import Config, Observation

REPLICAS = 64
RPS_EACH = 60.0
SECONDS = 900


def main() -> None:
    rng = np.random.default_rng(0)
    services = rng.lognormal(np.log(0.01), 0.8, (REPLICAS, 2000))
    done = np.zeros(REPLICAS)
    sums, squares = np.zeros(REPLICAS), np.zeros(REPLICAS)
    counts = np.zeros((REPLICAS, buckets.COUNT))
    state, config = State(), Config(max_replicas=128)
    costs_ms: list[float] = []
    fitting_ms: list[float] = []
    for second in range(SECONDS):
        for i, new in enumerate(rng.poisson(RPS_EACH, REPLICAS)):
            times = services[i, :new]
            done[i] += new
            sums[i] += times.sum()
            squares[i] += (times**2).sum()
            counts[i] += np.bincount(
                [buckets.bucket_of(t) for t in times[:5]], minlength=buckets.COUNT
            ) * (new / 5)
        reports = tuple(
            ReplicaReport(
                replica_id=f"r{i}",
                at_s=float(second),
                accepted=done[i],
                completed=done[i],
                within=done[i],
                service_s_sum=sums[i],
                service_s_sumsq=squares[i],
                service_counts=counts[i],
            )
            for i in range(REPLICAS)
        )
        observation = Observation(
            now_s=float(second), target=REPLICAS, running=REPLICAS, reports=reports
        )
        began = time.process_time()
        decision = decide(observation, state, config)
        cost_ms = (time.process_time() - began) * 1000.0
        state = decision.state
        (fitting_ms if state.capacity.run is not None else costs_ms).append(cost_ms)
    yardstick_ms = _yardstick_ms()
    median_ms = statistics.median(costs_ms)
    print(f"median {median_ms:.3f} ms, {median_ms / yardstick_ms:.2f} sorts of 10,000 numbers")
    print(f"p99 {np.quantile(costs_ms, 0.99):.3f} ms")
    print(f"while fitting: median {statistics.median(fitting_ms):.3f} ms, {len(fitting_ms)} ticks")


def _yardstick_ms() -> float:
    values = np.random.default_rng(1).random(10_000)
    took = []
    for _ in range(200):
        began = time.process_time()
        np.sort(values)
        took.append((time.process_time() - began) * 1000.0)
    return statistics.median(took)


if __name__ == "__main__":
    main()
