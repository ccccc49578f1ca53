"""Turn cumulative counters of replicas into what happened since the last look.

Counters survive lost reports: a difference covers everything since the last report that arrived.
What can go wrong, and what is done about it:

- a report repeats (same ``at_s``): no new information, its last rate is carried for ``CARRY_S``;
- a counter went back or ``at_s`` did: the replica restarted, its counters start from zero;
- a replica is new: its counters start from zero, unless this is the first look of all, in which
  they may cover hours and only become the base line;
- NaN, infinite, huge, negative or contradictory values (more completed than accepted, more in time
  than completed): the report is left out and counted as invalid;
- a replica is gone: forgotten after ``FORGET_S``;
- clocks disagree or jump: a replica's ``at_s`` is only compared with its own last one, and how old
  a report is counts from when it was first seen, on the caller's steady clock.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from autoscaling.policy import buckets

CARRY_S: Final = 5.0
FORGET_S: Final = 60.0
#: No true counter gets there; larger values would overflow where they are squared.
IMPLAUSIBLE: Final = 1e12

# Layout of a counter vector.
ACCEPTED: Final = 0
COMPLETED: Final = 1
WITHIN: Final = 2
SERVICE_SUM: Final = 3
SERVICE_SUMSQ: Final = 4
SERVICE: Final = slice(5, 5 + buckets.COUNT)
LATENCY: Final = slice(5 + buckets.COUNT, 5 + 2 * buckets.COUNT)
WIDTH: Final = 5 + 2 * buckets.COUNT


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaReport:
    """One replica's word about itself, at ``at_s`` on its own clock.

    ``accepted``, ``completed``, ``within`` (the objective) and the sums and bucket counts are
    cumulative since the replica began; ``ongoing`` and ``queued`` are of that moment. Times are
    seconds. Bucket counts follow ``buckets`` and are not summed up over buckets.
    """

    replica_id: str
    at_s: float
    accepted: float
    completed: float
    within: float
    service_s_sum: float
    service_s_sumsq: float
    service_counts: Sequence[float] | NDArray[Any]
    latency_counts: Sequence[float] | NDArray[Any]
    ongoing: float = 0.0
    queued: float = 0.0


@dataclass(frozen=True, slots=True)
class Seen:
    """The last good report of one replica and the arrival rate it showed.

    ``at_s`` is on the replica's clock, ``fresh_s`` on the steady clock when the report was new.
    """

    at_s: float
    fresh_s: float
    vector: NDArray[np.float64]
    arrivals_rps: float
    waiting: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetryState:
    """Last reports by replica; ``looked`` is False until the first look is over."""

    seen: Mapping[str, Seen] = field(default_factory=dict)
    queued: float = 0.0
    looked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """What happened since the last look, over all replicas.

    ``arrivals_rps`` is None when no replica has reported for ``CARRY_S``. ``counts`` has the layout
    of a counter vector. ``waiting`` are requests that were accepted or queued and not done.
    """

    arrivals_rps: float | None
    counts: NDArray[np.float64]
    waiting: float
    reporting: int
    invalid: int


def merge(
    reports: Sequence[ReplicaReport],
    router_queued: float,
    state: TelemetryState,
    *,
    steady_s: float,
    elapsed_s: float,
) -> tuple[Flow, TelemetryState]:
    """Difference and add up the reports; ``elapsed_s`` (above 0) is the time since the last look.

    ``steady_s`` is a clock that never jumps.
    """
    seen = {key: last for key, last in state.seen.items() if steady_s - last.fresh_s < FORGET_S}
    deltas = []
    invalid = 0
    for report in reports:
        vector = _vector(report)
        if vector is None:
            invalid += 1
            continue
        last = seen.get(report.replica_id)
        if last is not None and report.at_s == last.at_s:
            continue
        delta, over_s = _difference(vector, report.at_s, last, elapsed_s, first=not state.looked)
        deltas.append(delta)
        accepted_not_done = float(vector[ACCEPTED] - vector[COMPLETED])
        seen[report.replica_id] = Seen(
            at_s=report.at_s,
            fresh_s=steady_s,
            vector=vector,
            arrivals_rps=float(delta[ACCEPTED]) / over_s,
            waiting=max(report.ongoing + report.queued, accepted_not_done),
        )
    live = [last for last in seen.values() if steady_s - last.fresh_s <= CARRY_S + elapsed_s]
    queued = router_queued if 0 < router_queued < IMPLAUSIBLE else 0.0
    rate: float | None = None
    if state.looked and (live or queued > 0):
        rate = sum(last.arrivals_rps for last in live) + (queued - state.queued) / elapsed_s
        rate = max(rate, 0.0)
    flow = Flow(
        arrivals_rps=rate,
        counts=np.sum(deltas, axis=0) if deltas else np.zeros(WIDTH),
        waiting=sum(last.waiting for last in live) + queued,
        reporting=len(live),
        invalid=invalid,
    )
    return flow, TelemetryState(seen=seen, queued=queued, looked=True)


def _difference(
    vector: NDArray[np.float64], at_s: float, last: Seen | None, elapsed_s: float, *, first: bool
) -> tuple[NDArray[np.float64], float]:
    """Return what a replica counted since its last report, and over how many seconds."""
    if last is None:
        return (np.zeros(WIDTH) if first else vector), max(elapsed_s, 1e-3)
    delta = vector - last.vector
    over_s = at_s - last.at_s
    if over_s <= 0 or delta.min() < 0:
        return vector, max(elapsed_s, 1e-3)
    return delta, max(over_s, 1e-3)


def _vector(report: ReplicaReport) -> NDArray[np.float64] | None:
    """Counters as one vector, or None if they cannot be true."""
    scalars = (
        report.accepted,
        report.completed,
        report.within,
        report.service_s_sum,
        report.service_s_sumsq,
        report.ongoing,
        report.queued,
    )
    if not (math.isfinite(report.at_s) and all(0 <= v < IMPLAUSIBLE for v in scalars)):
        return None
    if len(report.service_counts) != buckets.COUNT or len(report.latency_counts) != buckets.COUNT:
        return None
    if report.within > report.completed or report.completed > report.accepted:
        return None
    vector = np.empty(WIDTH)
    vector[:5] = scalars[:5]
    vector[SERVICE] = report.service_counts
    vector[LATENCY] = report.latency_counts
    if not (vector.min() >= 0 and vector.max() < IMPLAUSIBLE):
        return None
    return vector
