"""The event kernel: routes requests to replicas and keeps each replica's counters.

Model of Ray Serve. A request goes to the less loaded of two replicas drawn at random (power of two
choices; other routings are there for comparison). A replica works on one request at a time, first
come first served, and holds at most ``max_ongoing``. If the drawn replicas are full, the router
tries others; if all are full the request waits in the router, first come first served, for the
first slot that opens.

Because service is first come first served everywhere, the finish of a request is known the moment
it is placed: no event heap is needed, and a request costs some 100 ns when numba is installed.
Without numba the same code runs as plain Python, some hundred times slower.

Invariants: requests are placed in order of arrival; placement times never go back; a replica's ring
holds the requests placed on it that are not yet retired, oldest first.
"""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, Final, NamedTuple, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from autoscaling.policy.buckets import COUNT as BUCKETS
from autoscaling.policy.buckets import LOG_FACTOR, LOWEST_S

_F = TypeVar("_F", bound=Callable[..., Any])

_COMPILED = find_spec("numba") is not None


def compiled(function: _F) -> _F:
    """Compile with numba if the extra ``fast`` is installed; else leave the function as it is."""
    if not _COMPILED:
        return function
    from numba import njit

    return cast("_F", njit(cache=True)(function))


# Status of a replica's slot.
FREE: Final = 0
STARTING: Final = 1
RUNNING: Final = 2
DRAINING: Final = 3

# Columns of ``Fleet.counters``.
ACCEPTED: Final = 0
COMPLETED: Final = 1
WITHIN: Final = 2
SERVICE_SUM: Final = 3
SERVICE_SUMSQ: Final = 4

# Entries of ``Fleet.cursor``.
NEXT: Final = 0  # first request that is not placed yet
N_RUNNING: Final = 1
N_PLACED: Final = 2

NEVER: Final = np.inf

# How a request finds its replica.
TWO_CHOICES: Final = 0
LEAST_ONGOING: Final = 1
RANDOM: Final = 2


class Requests(NamedTuple):
    """All requests of a run, in order of arrival; ``latency_s`` is filled in (inf: never done)."""

    arrival_s: NDArray[np.float64]
    service_s: NDArray[np.float64]
    draw: NDArray[np.float64]  # uniform in [0, 1): which two replicas are looked at
    latency_s: NDArray[np.float64]


class Fleet(NamedTuple):
    """State of all replica slots; mutated in place by the kernel."""

    status: NDArray[np.int64]
    ready_s: NDArray[np.float64]
    busy_until_s: NDArray[np.float64]
    ring_request: NDArray[np.int64]
    ring_finish_s: NDArray[np.float64]
    head: NDArray[np.int64]
    ongoing: NDArray[np.int64]
    running: NDArray[np.int64]
    counters: NDArray[np.float64]
    service_counts: NDArray[np.int64]
    latency_counts: NDArray[np.int64]
    cursor: NDArray[np.int64]
    placed_s: NDArray[np.float64]  # placement times of the last ``max_queued`` requests, a ring


def new_fleet(slots: int, max_ongoing: int, max_queued: int) -> Fleet:
    """Make an empty fleet; ``max_queued`` 0 means that the router's queue has no limit."""
    return Fleet(
        status=np.zeros(slots, np.int64),
        ready_s=np.full(slots, NEVER),
        busy_until_s=np.zeros(slots),
        ring_request=np.zeros((slots, max_ongoing), np.int64),
        ring_finish_s=np.zeros((slots, max_ongoing)),
        head=np.zeros(slots, np.int64),
        ongoing=np.zeros(slots, np.int64),
        running=np.zeros(slots, np.int64),
        counters=np.zeros((slots, 5)),
        service_counts=np.zeros((slots, BUCKETS), np.int64),
        latency_counts=np.zeros((slots, BUCKETS), np.int64),
        cursor=np.zeros(3, np.int64),
        placed_s=np.full(max(max_queued, 1), -NEVER),
    )


@compiled
def bucket_index(seconds: float) -> int:
    if not seconds > LOWEST_S:
        return 0
    return min(int(np.log(seconds / LOWEST_S) / LOG_FACTOR), BUCKETS - 1)


@compiled
def retire(fleet: Fleet, requests: Requests, slot: int, now_s: float, slo_s: float) -> None:
    """Count the requests of one replica that are finished by ``now_s``."""
    size = fleet.ring_finish_s.shape[1]
    while fleet.ongoing[slot] > 0:
        at = fleet.head[slot]
        if fleet.ring_finish_s[slot, at] > now_s:
            return
        request = fleet.ring_request[slot, at]
        service_s = requests.service_s[request]
        latency_s = requests.latency_s[request]
        fleet.counters[slot, COMPLETED] += 1
        fleet.counters[slot, SERVICE_SUM] += service_s
        fleet.counters[slot, SERVICE_SUMSQ] += service_s * service_s
        if latency_s <= slo_s:
            fleet.counters[slot, WITHIN] += 1
        fleet.service_counts[slot, bucket_index(service_s)] += 1
        fleet.latency_counts[slot, bucket_index(latency_s)] += 1
        fleet.head[slot] = (at + 1) % size
        fleet.ongoing[slot] -= 1


@compiled
def promote(fleet: Fleet, now_s: float) -> float:
    """Let replicas that are ready by ``now_s`` accept; return when the next one will be."""
    upcoming = NEVER
    for slot in range(fleet.status.shape[0]):
        if fleet.status[slot] == STARTING:
            if fleet.ready_s[slot] <= now_s:
                fleet.status[slot] = RUNNING
                fleet.running[fleet.cursor[N_RUNNING]] = slot
                fleet.cursor[N_RUNNING] += 1
            else:
                upcoming = min(upcoming, fleet.ready_s[slot])
    return upcoming


@compiled
def _least_ongoing(
    fleet: Fleet, requests: Requests, draw: float, now_s: float, slo_s: float
) -> int:
    """Return the running slot with the fewest ongoing requests, or -1 if every replica is full."""
    n = fleet.cursor[N_RUNNING]
    offset = int(draw * n)
    chosen = -1
    fewest = fleet.ring_finish_s.shape[1]
    for i in range(n):
        slot = fleet.running[(i + offset) % n]
        retire(fleet, requests, slot, now_s, slo_s)
        if fleet.ongoing[slot] < fewest:
            fewest = fleet.ongoing[slot]
            chosen = slot
    return int(chosen)


@compiled
def _pick(
    fleet: Fleet, requests: Requests, draw: float, now_s: float, slo_s: float, routing: int
) -> int:
    """Return the slot that takes a request now, or -1 if every replica is full."""
    n = fleet.cursor[N_RUNNING]
    size = fleet.ring_finish_s.shape[1]
    if n == 0:
        return -1
    if routing == LEAST_ONGOING:
        return _least_ongoing(fleet, requests, draw, now_s, slo_s)
    if n == 1:
        first = fleet.running[0]
        second = first
    else:
        pair = int(draw * n * (n - 1))
        a = pair // (n - 1)
        b = pair % (n - 1)
        if b >= a:
            b += 1
        first = fleet.running[a]
        second = fleet.running[b]
    retire(fleet, requests, first, now_s, slo_s)
    retire(fleet, requests, second, now_s, slo_s)
    chosen = first
    if routing == TWO_CHOICES and fleet.ongoing[second] < fleet.ongoing[first]:
        chosen = second
    if fleet.ongoing[chosen] < size:
        return int(chosen)
    offset = int(draw * 1e6) % n
    for i in range(n):
        slot = fleet.running[(i + offset) % n]
        retire(fleet, requests, slot, now_s, slo_s)
        if fleet.ongoing[slot] < size:
            return int(slot)
    return -1


@compiled
def _next_opening(fleet: Fleet) -> float:
    """Return when the first slot opens in a fleet whose replicas are all full."""
    opening = NEVER
    for i in range(fleet.cursor[N_RUNNING]):
        slot = fleet.running[i]
        opening = min(opening, fleet.ring_finish_s[slot, fleet.head[slot]])
    return opening


@compiled
def advance(
    fleet: Fleet,
    requests: Requests,
    from_s: float,
    until_s: float,
    slo_s: float,
    max_queued: int,
    routing: int = TWO_CHOICES,
) -> None:
    """Place every request that can be placed before ``until_s``, and count what finished by then.

    ``from_s`` is the end of the last call: what waited in the router then cannot be placed earlier.
    """
    size = fleet.ring_finish_s.shape[1]
    now_s = from_s
    upcoming_s = promote(fleet, now_s)
    while fleet.cursor[NEXT] < requests.arrival_s.shape[0]:
        request = fleet.cursor[NEXT]
        arrival_s = requests.arrival_s[request]
        oldest = fleet.cursor[N_PLACED] % fleet.placed_s.shape[0]
        if max_queued > 0 and arrival_s < until_s and fleet.placed_s[oldest] > arrival_s:
            fleet.cursor[NEXT] += 1  # refused: max_queued earlier ones were still waiting
            continue
        now_s = max(now_s, arrival_s)
        if now_s >= until_s:
            break
        if upcoming_s <= now_s:
            upcoming_s = promote(fleet, now_s)
        slot = _pick(fleet, requests, requests.draw[request], now_s, slo_s, routing)
        if slot < 0:
            now_s = min(_next_opening(fleet), upcoming_s)
            if now_s >= until_s:
                break
            continue
        finish_s = max(now_s, fleet.busy_until_s[slot]) + requests.service_s[request]
        at = (fleet.head[slot] + fleet.ongoing[slot]) % size
        fleet.ring_request[slot, at] = request
        fleet.ring_finish_s[slot, at] = finish_s
        fleet.busy_until_s[slot] = finish_s
        fleet.ongoing[slot] += 1
        fleet.counters[slot, ACCEPTED] += 1
        requests.latency_s[request] = finish_s - arrival_s
        fleet.placed_s[oldest] = now_s
        fleet.cursor[N_PLACED] += 1
        fleet.cursor[NEXT] += 1
    promote(fleet, until_s)
    for slot in range(fleet.status.shape[0]):
        if fleet.ongoing[slot] > 0:
            retire(fleet, requests, slot, until_s, slo_s)
