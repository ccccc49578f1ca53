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
    """Share of requests that are late by their wait, for each load below 1.

    That is: they wait longer than ``slack_s``. ``service`` holds the weights of the buckets, with
    sum 1. The wait is exponential beyond its probability, slowed by (1 + cv²) / 2 for service times
    that vary more or less than that.
    """
    used = np.flatnonzero(service)
    weights, middle_s = service[used], buckets.MIDDLE_S[used]
    mean_s = float(weights @ middle_s)
    spread = float(weights @ middle_s**2) / mean_s**2 / 2.0
    rates = (1.0 - loads) * replicas / mean_s / spread
    left_s = slack_s(slo_s, middle_s)
    waits = np.array([wait_probability(replicas, float(load)) for load in loads])
    beyond = waits[:, None] * np.exp(-np.outer(rates, left_s))
    return np.asarray(beyond @ weights)


def slack_s(slo_s: float, service_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """Longest wait after which requests are not late by their wait.

    A request that takes longer than ``slo_s`` on an idle machine is late whatever is decided. It
    may wait as long as it works: so even a service of nothing but such work keeps up with it, and
    does not pay for an objective that nothing can meet.

    >>> slack_s(0.2, np.array([0.05, 0.3])).round(3).tolist()
    [0.15, 0.3]
    """
    return np.where(service_s > slo_s, service_s, slo_s - service_s)
