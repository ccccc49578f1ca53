"""The measured service time: a histogram and moments that forget."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from autoscaling.policy import buckets
from autoscaling.policy.telemetry import COMPLETED, SERVICE, SERVICE_SUM, SERVICE_SUMSQ

#: Old requests weigh half after this many seconds, but not before as many newer ones came: service
#: times vary by more than their mean, and 4,000 of them give the mean to about 3 %.
HALFLIFE_S = 60.0
HALFLIFE_REQUESTS = 2_000.0
ENOUGH_REQUESTS = 200.0
#: No request is worked on for less; a mean below it is no measurement, and its square would vanish.
SHORTEST_S = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceState:
    """Decayed number of requests, sum and sum of squares of service seconds, bucket counts."""

    requests: float = 0.0
    sum_s: float = 0.0
    sumsq_s: float = 0.0
    counts: NDArray[np.float64] = field(default_factory=lambda: np.zeros(buckets.COUNT))

    @property
    def known(self) -> bool:
        """Whether enough requests were measured to rely on them."""
        counted = bool(self.counts.sum() > 0)
        return self.requests >= ENOUGH_REQUESTS and self.mean_s >= SHORTEST_S and counted

    @property
    def mean_s(self) -> float:
        """Mean service time in seconds; only if ``requests`` is not zero."""
        return self.sum_s / self.requests

    @property
    def squared_cv(self) -> float:
        """Squared coefficient of variation, 0 if the sums contradict each other; only if known."""
        return max(self.sumsq_s / self.requests / self.mean_s**2 - 1.0, 0.0)


def update(state: ServiceState, counts: NDArray[np.float64], elapsed_s: float) -> ServiceState:
    """Take in what was completed since the last look (layout of a counter vector)."""
    done = float(counts[COMPLETED])
    if done <= 0:
        return state
    keep = 0.5 ** min(elapsed_s / HALFLIFE_S, done / HALFLIFE_REQUESTS)
    return ServiceState(
        requests=keep * state.requests + done,
        sum_s=keep * state.sum_s + float(counts[SERVICE_SUM]),
        sumsq_s=keep * state.sumsq_s + float(counts[SERVICE_SUMSQ]),
        counts=keep * state.counts + counts[SERVICE],
    )
