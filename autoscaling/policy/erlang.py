"""Closed-form share of late requests: Erlang C with the Allen-Cunneen correction.

Requests of all replicas wait in one queue here, while in truth each waits behind others in one
replica's: the form is optimistic until it is stretched by what ``fitting`` measured.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from autoscaling.policy import buckets

#: Loads per replica at which curves are tabulated; dense enough to interpolate linearly.
LOADS: Final = np.linspace(0.0, 0.99, 100)


def wait_probability(replicas: int, load: float) -> float:
    """Probability that a request must wait in an M/M/c queue (Erlang C); ``load`` per replica.

    Erlang B is computed by its recursion, which cannot overflow. 1 at a load of 1 and above.

    >>> round(wait_probability(1, 0.5), 6), round(wait_probability(2, 0.75), 6)
    (0.5, 0.642857)
    """
    if load >= 1:
        return 1.0
    if load <= 0:
        return 0.0
    offered = replicas * load
    blocked = 1.0
    for c in range(1, replicas + 1):
        blocked = offered * blocked / (c + offered * blocked)
    return blocked / (1.0 - load * (1.0 - blocked))


def late_curve(
    replicas: int, loads: NDArray[np.float64], slo_s: float, service: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Share of requests whose wait and service take longer than ``slo_s``, for each load below 1.

    ``service`` holds the weights of the buckets, with sum 1. The wait is exponential beyond its
    probability, slowed by (1 + cv²) / 2 for service times that vary more or less than that.
    """
    used = np.flatnonzero(service)
    weights, middle_s = service[used], buckets.MIDDLE_S[used]
    mean_s = float(weights @ middle_s)
    spread = float(weights @ middle_s**2) / mean_s**2 / 2.0
    rates = (1.0 - loads) * replicas / mean_s / spread
    left_s = slo_s - middle_s
    waits = np.array([wait_probability(replicas, float(load)) for load in loads])
    beyond = np.where(left_s > 0, np.exp(-np.outer(rates, np.maximum(left_s, 0.0))), 1.0)
    beyond[:, left_s > 0] *= waits[:, None]
    return np.asarray(beyond @ weights)
