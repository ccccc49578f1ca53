"""Turn cumulative counters of replicas into what happened since the last look.

Counters survive lost reports: a difference covers everything since the last report that arrived.
What can go wrong, and what is done about it:

- a report repeats (same ``at_s``): no new information, its last rate is carried for ``CARRY_S``;
- a counter went back: the replica restarted, its counters start from zero;
- a replica is new: its counters start from zero, unless this is the first look of all, in which
  they may cover hours and only become the base line;
- NaN, infinite, huge, negative or contradictory values (more completed than accepted, more in
  time than completed): the report is left out and counted as invalid;
- a replica is gone: forgotten after ``FORGET_S``;
- clocks disagree or jump: a replica's ``at_s`` is only compared with its own last one, and not
  believed when it went back; how old a report is counts from when it was first seen, on the
  caller's steady clock.
"""

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
#: Two reports of one replica cannot be told apart by less.
SHORTEST_S: Final = 0.05

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
    vectors, good = _vectors(reports)
    news = [
        i
        for i, (report, valid) in enumerate(zip(reports, good.tolist(), strict=True))
        if valid and not _repeats(report, seen)
    ]
    deltas, over_s = _differences(
        [reports[i] for i in news], vectors[news], seen, elapsed_s, first=not state.looked
    )
    rates = (deltas[:, ACCEPTED] / over_s).tolist()
    inside = (vectors[:, ACCEPTED] - vectors[:, COMPLETED]).tolist()
    for i, rate_rps in zip(news, rates, strict=True):
        report = reports[i]
        seen[report.replica_id] = Seen(
            at_s=report.at_s,
            fresh_s=steady_s,
            vector=vectors[i],
            arrivals_rps=rate_rps,
            waiting=max(report.ongoing + report.queued, inside[i]),
        )
    live = [last for last in seen.values() if steady_s - last.fresh_s <= CARRY_S + elapsed_s]
    queued = router_queued if 0 < router_queued < IMPLAUSIBLE else 0.0
    rate: float | None = None
    if state.looked and (live or queued > 0):
        rate = sum(last.arrivals_rps for last in live) + (queued - state.queued) / elapsed_s
        rate = max(rate, 0.0)
    flow = Flow(
        arrivals_rps=rate,
        counts=deltas.sum(axis=0),
        waiting=sum(last.waiting for last in live) + queued,
        reporting=len(live),
        invalid=len(reports) - int(good.sum()),
    )
    return flow, TelemetryState(seen=seen, queued=queued, looked=True)


def _repeats(report: ReplicaReport, seen: Mapping[str, Seen]) -> bool:
    last = seen.get(report.replica_id)
    return last is not None and last.at_s == report.at_s


def _differences(
    reports: Sequence[ReplicaReport],
    vectors: NDArray[np.float64],
    seen: Mapping[str, Seen],
    elapsed_s: float,
    *,
    first: bool,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return what each replica counted since its last report, and over how many seconds."""
    before = np.zeros_like(vectors)
    over_s = np.full(len(reports), elapsed_s)
    for i, report in enumerate(reports):
        last = seen.get(report.replica_id)
        if last is not None:
            before[i] = last.vector
            over_s[i] = report.at_s - last.at_s
        elif first:
            before[i] = vectors[i]
    deltas = vectors - before
    restarted = deltas.min(axis=1, initial=0.0) < 0
    deltas[restarted] = vectors[restarted]
    over_s[restarted | (over_s <= 0)] = elapsed_s
    return deltas, np.maximum(over_s, SHORTEST_S)


def _vectors(
    reports: Sequence[ReplicaReport],
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Counters as one line per report, zeros if they cannot be true, and which can."""
    vectors = np.full((len(reports), WIDTH), np.nan)
    now = np.empty((len(reports), 3))
    for i, report in enumerate(reports):
        vectors[i, :5] = (
            report.accepted,
            report.completed,
            report.within,
            report.service_s_sum,
            report.service_s_sumsq,
        )
        now[i] = report.at_s, report.ongoing, report.queued
        if len(report.service_counts) == len(report.latency_counts) == buckets.COUNT:
            vectors[i, SERVICE] = report.service_counts
            vectors[i, LATENCY] = report.latency_counts
    # NaN fails every comparison, and makes minimum and maximum NaN.
    good = (vectors.min(axis=1, initial=0.0) >= 0) & (
        vectors.max(axis=1, initial=0.0) < IMPLAUSIBLE
    )
    good &= np.isfinite(now[:, 0]) & (now[:, 1:] >= 0).all(axis=1)
    good &= (now[:, 1:] < IMPLAUSIBLE).all(axis=1)
    good &= vectors[:, WITHIN] <= vectors[:, COMPLETED]
    good &= vectors[:, COMPLETED] <= vectors[:, ACCEPTED]
    vectors[~good] = 0.0
    return vectors, good
