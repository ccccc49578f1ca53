"""Cost of one decision at 64 replicas: the median, and the slowest while the table is fitted.

Run: ``python -m benchmarks.decide`` from the repository's root. Prints milliseconds of CPU, and the
ratio to a fixed piece of NumPy work measured in the same run, which carries over between machines.
Decisions are timed ten at a time: reading the CPU clock can cost as much as one of them.
"""

import statistics
import time
from collections.abc import Iterator

import numpy as np

from autoscaling.policy import buckets
from autoscaling.policy.decide import decide
from autoscaling.policy.state import State
from autoscaling.policy.telemetry import ReplicaReport
from autoscaling.policy.types import Config, Observation

REPLICAS = 64
RPS_EACH = 60.0
SECONDS = 1500
AT_ONCE = 10


def main() -> None:
    state, config = State(), Config(max_replicas=128)
    costs_ms: list[float] = []
    fitting_ms: list[float] = []
    observations = _observations()
    for _ in range(SECONDS // AT_ONCE):
        block = [next(observations) for _ in range(AT_ONCE)]
        began = time.process_time()
        for observation in block:
            state = decide(observation, state, config).state
        cost_ms = (time.process_time() - began) * 1000.0 / AT_ONCE
        fitting = state.capacity.run is not None or state.capacity.pending
        (fitting_ms if fitting else costs_ms).append(cost_ms)
    yardstick_ms = _yardstick_ms()
    median_ms = statistics.median(costs_ms)
    print(f"median {median_ms:.3f} ms, {median_ms / yardstick_ms:.2f} sorts of 10,000 numbers")
    print(f"p99 {np.quantile(costs_ms, 0.99):.3f} ms")
    seconds = len(fitting_ms) * AT_ONCE
    print(f"while fitting: median {statistics.median(fitting_ms):.3f} ms, for {seconds} s")


def _observations() -> Iterator[Observation]:
    """Yield what a busy fleet reports each second; one service time in five is counted for all."""
    rng = np.random.default_rng(0)
    services = rng.lognormal(np.log(0.01), 0.8, (REPLICAS, 2000))
    done = np.zeros(REPLICAS)
    sums, squares = np.zeros(REPLICAS), np.zeros(REPLICAS)
    counts = np.zeros((REPLICAS, buckets.COUNT))
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
                service_counts=counts[i].copy(),
            )
            for i in range(REPLICAS)
        )
        yield Observation(now_s=float(second), target=REPLICAS, running=REPLICAS, reports=reports)


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
