"""What other autoscalers measure, computed from the same stale telemetry that ours sees."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoscaling.policy import buckets
from autoscaling.simulator import kernel
from autoscaling.simulator.cluster import Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """Figures of the time between two snapshots, over all replicas.

    ``busy`` is the number of replicas' worth of work done (CPU use in whole replicas);
    ``in_house`` are ongoing and queued requests at the end.
    """

    rps: float
    busy: float
    in_house: float
    latency_counts: NDArray[np.float64]


class Meter:
    """Differences snapshots; replicas that went away between two of them are left out."""

    def __init__(self) -> None:
        self._last: Snapshot | None = None

    def read(self, now: Snapshot) -> Tick:
        """Return what happened since the last call; zeros on the first."""
        last, self._last = self._last, now
        in_house = float(now.ongoing.sum() + now.queued)
        if last is None or now.at_s <= last.at_s:
            return Tick(
                rps=0.0, busy=0.0, in_house=in_house, latency_counts=np.zeros(buckets.COUNT)
            )
        elapsed_s = now.at_s - last.at_s
        counters, latency = now.counters, now.latency_counts
        if now.replica_ids == last.replica_ids:
            counters = counters - last.counters
            latency = latency - last.latency_counts
        else:
            index = {replica_id: i for i, replica_id in enumerate(last.replica_ids)}
            pairs = [(i, index[r]) for i, r in enumerate(now.replica_ids) if r in index]
            kept, before = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
            counters, latency = counters.copy(), latency.copy()
            counters[kept] -= last.counters[before]
            latency[kept] -= last.latency_counts[before]
        accepted = float(counters[:, kernel.ACCEPTED].sum())
        return Tick(
            rps=max(accepted + now.queued - last.queued, 0.0) / elapsed_s,
            busy=float(counters[:, kernel.SERVICE_SUM].sum()) / elapsed_s,
            in_house=in_house,
            latency_counts=latency.sum(axis=0, dtype=np.float64),
        )
