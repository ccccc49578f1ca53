"""Turn cumulative counters of replicas into what happened since the last look.

Counters survive lost reports: a difference covers everything since the last report that arrived.
What can go wrong, and what is done about it:

- a report repeats (same ``at_s`` and counters): no new information, its last rate is carried for
  ``CARRY_S``;
- a replica reports twice in one look: the last word counts;
- a report comes late, clock and counters both behind what was seen: left out for ``CARRY_S``, and
  counted as doubtful, since after a step of its clock a restarted replica looks the same;
- a counter went back otherwise: the replica restarted, its counters start from zero;
- a replica is new: its counters start from zero, unless this is the first look of all, in which
  they may cover hours and only become the base line;
- NaN, infinite, huge, negative or contradictory values (more completed than accepted, more in
  time than completed) or things that are no numbers: the report is left out and counted as invalid;
- a replica is gone: forgotten after ``FORGET_S``;
- clocks disagree or jump: a replica's ``at_s`` is only compared with its own last one, and not
  believed when it went back; how old a report is counts from when it was first seen, on the
  caller's steady clock.
"""

from collections.abc import Sequence
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
SCALARS: Final = 5
SERVICE: Final = slice(SCALARS, SCALARS + buckets.COUNT)
WIDTH: Final = SCALARS + buckets.COUNT


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaReport:
    """One replica's word about itself, at ``at_s`` on its own clock.

    ``accepted``, ``completed``, ``within`` (the objective), the sums and the bucket counts are
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
    ongoing: float = 0.0
    queued: float = 0.0


def _no_values() -> NDArray[np.float64]:
    return np.zeros(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The last good report of each replica, one line each, and the arrival rate it showed.

    ``at_s`` is on the replica's clock, ``fresh_s`` on the steady clock when the report was new.
    """

    ids: tuple[str, ...] = ()
    at_s: NDArray[np.float64] = field(default_factory=_no_values)
    fresh_s: NDArray[np.float64] = field(default_factory=_no_values)
    counters: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, WIDTH)))
    arrivals_rps: NDArray[np.float64] = field(default_factory=_no_values)
    waiting: NDArray[np.float64] = field(default_factory=_no_values)

    def lines(self, chosen: NDArray[Any]) -> "Seen":
        """Return the lines of some replicas; ``chosen`` are indices, ascending."""
        if len(chosen) == len(self.ids):
            return self
        return Seen(
            ids=tuple(self.ids[i] for i in chosen.tolist()),
            at_s=self.at_s[chosen],
            fresh_s=self.fresh_s[chosen],
            counters=self.counters[chosen],
            arrivals_rps=self.arrivals_rps[chosen],
            waiting=self.waiting[chosen],
        )

    def with_lines(self, other: "Seen") -> "Seen":
        """Return these lines and the other's below."""
        if not other.ids:
            return self
        if not self.ids:
            return other
        return Seen(
            ids=self.ids + other.ids,
            at_s=np.concatenate([self.at_s, other.at_s]),
            fresh_s=np.concatenate([self.fresh_s, other.fresh_s]),
            counters=np.concatenate([self.counters, other.counters]),
            arrivals_rps=np.concatenate([self.arrivals_rps, other.arrivals_rps]),
            waiting=np.concatenate([self.waiting, other.waiting]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetryState:
    """Last reports of the replicas; ``looked`` is False until the first look is over."""

    seen: Seen = field(default_factory=Seen)
    queued: float = 0.0
    looked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """What happened since the last look, over all replicas.

    ``arrivals_rps`` is None when no replica has reported for ``CARRY_S``. ``counts`` has the layout
    of a counter vector. ``waiting`` are requests that were accepted or queued and not done.
    ``doubtful`` reports were left out as late ones, ``invalid`` ones as impossible.
    """

    arrivals_rps: float | None
    counts: NDArray[np.float64]
    waiting: float
    reporting: int
    doubtful: int
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
    told = _read(reports)
    seen, deltas, doubtful = _compare(
        told, state.seen, steady_s=steady_s, elapsed_s=elapsed_s, first=not state.looked
    )
    live = steady_s - seen.fresh_s <= CARRY_S + elapsed_s
    reporting = int(np.count_nonzero(live))
    queued = router_queued if 0 < router_queued < IMPLAUSIBLE else 0.0
    rate: float | None = None
    if state.looked and (reporting or queued > 0):
        rate = float(seen.arrivals_rps @ live) + (queued - state.queued) / elapsed_s
        rate = max(rate, 0.0)
    flow = Flow(
        arrivals_rps=rate,
        counts=deltas,
        waiting=float(seen.waiting @ live) + queued,
        reporting=reporting,
        doubtful=doubtful,
        invalid=len(reports) - told.believed,
    )
    return flow, TelemetryState(seen=seen, queued=queued, looked=True)


@dataclass(frozen=True, slots=True)
class _Told:
    """Believable reports, one line for each replica; ``believed`` counts repeated words too."""

    ids: tuple[str, ...]
    at_s: NDArray[np.float64]
    counters: NDArray[np.float64]
    waiting: NDArray[np.float64]
    believed: int


def _compare(
    told: _Told, seen: Seen, *, steady_s: float, elapsed_s: float, first: bool
) -> tuple[Seen, NDArray[np.float64], int]:
    """Return the renewed memory, what was counted since, summed up, and the doubtful reports."""
    if told.ids == seen.ids:
        known, last = np.ones(len(seen.ids), np.bool_), seen
    else:
        known, last = _aligned(told, seen)
    over_s = told.at_s - last.at_s
    deltas = told.counters - last.counters
    if first:
        deltas[~known] = 0.0
    went_back = deltas.min(axis=1, initial=0.0) < 0
    recent = steady_s - last.fresh_s <= CARRY_S
    doubtful = known & went_back & (over_s <= 0) & recent
    repeated = known & (over_s == 0) & ~deltas.any(axis=1)
    no_news = repeated | doubtful
    deltas[went_back] = told.counters[went_back]
    over_s[~known | (over_s <= 0)] = elapsed_s
    fresh = Seen(
        ids=told.ids,
        at_s=told.at_s,
        fresh_s=np.full(len(known), steady_s),
        counters=told.counters,
        arrivals_rps=deltas[:, ACCEPTED] / np.maximum(over_s, SHORTEST_S),
        waiting=told.waiting,
    )
    if told.ids == seen.ids and not no_news.any():
        return fresh, deltas.sum(axis=0), 0
    news = np.flatnonzero(~no_news)
    renewed = {told.ids[i] for i in news.tolist()}
    kept = [
        i
        for i, replica_id in enumerate(seen.ids)
        if replica_id not in renewed and steady_s - seen.fresh_s[i] < FORGET_S
    ]
    memory = fresh.lines(news).with_lines(seen.lines(np.array(kept, dtype=np.int64)))
    return memory, deltas[news].sum(axis=0), int(np.count_nonzero(doubtful))


def _aligned(told: _Told, seen: Seen) -> tuple[NDArray[np.bool_], Seen]:
    """Return which replicas are known and their last lines in the order told, zeros if new."""
    line_of = {replica_id: i for i, replica_id in enumerate(seen.ids)}
    lines = np.array([line_of.get(replica_id, -1) for replica_id in told.ids], dtype=np.int64)
    known = lines >= 0
    n = len(lines)
    last = Seen(
        ids=told.ids,
        at_s=np.zeros(n),
        fresh_s=np.zeros(n),
        counters=np.zeros((n, WIDTH)),
        arrivals_rps=np.zeros(n),
        waiting=np.zeros(n),
    )
    last.at_s[known] = seen.at_s[lines[known]]
    last.fresh_s[known] = seen.fresh_s[lines[known]]
    last.counters[known] = seen.counters[lines[known]]
    return known, last


def _read(reports: Sequence[ReplicaReport]) -> _Told:
    """Read reports into arrays, those that cannot be true left out."""
    try:
        numbers = _numbers(reports)
    except (TypeError, ValueError, OverflowError):
        reports = [report for report in reports if _is_numeric(report)]
        numbers = _numbers(reports)
    now, counters = numbers[:, :3], numbers[:, 3:]
    # NaN fails every comparison, and makes minimum and maximum NaN.
    good = (counters.min(axis=1, initial=0.0) >= 0) & (
        counters.max(axis=1, initial=0.0) < IMPLAUSIBLE
    )
    good &= np.isfinite(now[:, 0]) & (now[:, 1:] >= 0).all(axis=1)
    good &= (now[:, 1:] < IMPLAUSIBLE).all(axis=1)
    good &= counters[:, WITHIN] <= counters[:, COMPLETED]
    good &= counters[:, COMPLETED] <= counters[:, ACCEPTED]
    believed = int(np.count_nonzero(good))
    line_of = {reports[i].replica_id: i for i in np.flatnonzero(good).tolist()}
    if len(line_of) < len(reports):
        lines = np.fromiter(line_of.values(), np.int64, len(line_of))
        now, counters = now[lines], counters[lines]
    inside = counters[:, ACCEPTED] - counters[:, COMPLETED]
    return _Told(
        ids=tuple(line_of),
        at_s=now[:, 0],
        counters=counters,
        waiting=np.maximum(now[:, 1] + now[:, 2], inside),
        believed=believed,
    )


def _numbers(reports: Sequence[ReplicaReport]) -> NDArray[np.float64]:
    """Return one line per report: at_s, ongoing, queued, then the layout of a counter vector.

    Raises TypeError, ValueError or OverflowError if one of the reports holds no numbers.
    """
    if not all(isinstance(report.replica_id, str) for report in reports):
        raise TypeError("a replica's id is text")
    numbers = np.empty((len(reports), 3 + WIDTH))
    numbers[:, : 3 + SCALARS] = [
        (
            r.at_s,
            r.ongoing,
            r.queued,
            r.accepted,
            r.completed,
            r.within,
            r.service_s_sum,
            r.service_s_sumsq,
        )
        for r in reports
    ] or np.empty((0, 3 + SCALARS))
    services = np.array([r.service_counts for r in reports], dtype=np.float64)
    numbers[:, 3 + SCALARS :] = services.reshape(len(reports), buckets.COUNT)
    return numbers


def _is_numeric(report: ReplicaReport) -> bool:
    try:
        _numbers([report])
    except (TypeError, ValueError, OverflowError):
        return False
    return True
