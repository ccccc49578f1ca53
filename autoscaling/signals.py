"""What a replica tells the policy, and how it travels: one flat dictionary of floats.

Ray Serve takes ``dict[str, float]`` from a replica's ``record_autoscaling_stats`` and hands the
policy one time series for each key. All numbers of one push are cumulative counters of the same
moment, so a lost push loses nothing. Buckets that never counted anything are not sent.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from autoscaling.policy import buckets
from autoscaling.policy.telemetry import ReplicaReport

SCALARS: Final = (
    "at_s",
    "accepted",
    "completed",
    "service_s_sum",
    "service_s_sumsq",
    "ongoing",
)
SERVICE: Final = "service_"
LATENCY: Final = "latency_"
#: Fewer answers than this say nothing about the cost of one: background work would drown them.
ENOUGH_ANSWERS: Final = 50


class ReplicaSignals:
    """Counters of one replica, about 2 microseconds a request.

    The work of a request is the model's time plus what the process spends around it (HTTP, Ray,
    decoding, capture). That overhead is measured, once a push, as the process's CPU time beyond the
    model's own, for each answer: for a compiled forest it is most of the work.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.time,
        cpu_clock: Callable[[], float] = time.process_time,
    ) -> None:
        self._clock = clock
        self._cpu_clock = cpu_clock
        self._overhead_s = 0.0
        self._model_s = 0.0
        self._last = (cpu_clock(), 0.0, 0)
        self._accepted = 0
        self._completed = 0
        self._service_s = 0.0
        self._service_s_squared = 0.0
        self._service = [0] * buckets.COUNT
        self._latency = [0] * buckets.COUNT

    def accept(self) -> None:
        """Count a request that asks for work, whether it gets any or not."""
        self._accepted += 1

    def complete(self, *, model_s: float, latency_s: float) -> None:
        """Count an answer: how long the model took, and the time since the request came in."""
        self._completed += 1
        self._model_s += model_s
        service_s = model_s + self._overhead_s
        self._service_s += service_s
        self._service_s_squared += service_s * service_s
        self._service[buckets.bucket_of(service_s)] += 1
        self._latency[buckets.bucket_of(latency_s)] += 1

    def refuse(self) -> None:
        """Count a request turned away for overload: as late as can be, and no work."""
        self._completed += 1
        self._latency[-1] += 1

    def give_up(self) -> None:
        """Count a request that was accepted and came to nothing: neither late nor in time."""
        self._accepted -= 1

    def stats(self) -> dict[str, float]:
        """What ``record_autoscaling_stats`` returns: plain floats, or Ray turns it off for good."""
        self._measure_overhead()
        values = (
            self._clock(),
            self._accepted,
            self._completed,
            self._service_s,
            self._service_s_squared,
            self._accepted - self._completed,
        )
        stats = dict(zip(SCALARS, map(float, values), strict=True))
        for prefix, counts in ((SERVICE, self._service), (LATENCY, self._latency)):
            stats |= {f"{prefix}{i}": float(count) for i, count in enumerate(counts) if count}
        return stats

    def _measure_overhead(self) -> None:
        cpu_s, model_s, completed = self._last
        answers = self._completed - completed
        if answers >= ENOUGH_ANSWERS:
            now = (self._cpu_clock(), self._model_s, self._completed)
            self._overhead_s = max(now[0] - cpu_s - (now[1] - model_s), 0.0) / answers
            self._last = now


def read_reports(
    raw_metrics: Mapping[str, Mapping[Any, Sequence[Any]]], *, slo_s: float
) -> tuple[ReplicaReport, ...]:
    """Rebuild the replicas' counters from Ray Serve's time series (the newest value of each).

    Answers within the objective are counted from the latency buckets, so that an objective can be
    changed without telling the replicas; at the objective's own bucket that is off by up to 4 %.
    A replica without its scalars has not reported yet and is left out.
    """
    values: dict[Any, dict[str, float]] = defaultdict(dict)
    for name, series_by_replica in raw_metrics.items():
        for replica, series in series_by_replica.items():
            if series:
                values[replica][name] = series[-1].value
    within = buckets.bucket_of(slo_s) + 1
    return tuple(
        _report(str(replica), stats, within)
        for replica, stats in values.items()
        if all(name in stats for name in SCALARS)
    )


def _report(replica: str, stats: Mapping[str, float], within: int) -> ReplicaReport:
    service, latency = np.zeros(buckets.COUNT), np.zeros(buckets.COUNT)
    for prefix, counts in ((SERVICE, service), (LATENCY, latency)):
        for name, value in stats.items():
            if name.startswith(prefix) and name.removeprefix(prefix).isdigit():
                index = int(name.removeprefix(prefix))
                if index < buckets.COUNT:
                    counts[index] = value
    return ReplicaReport(
        replica_id=replica,
        at_s=stats["at_s"],
        accepted=stats["accepted"],
        completed=stats["completed"],
        within=min(float(latency[:within].sum()), stats["completed"]),
        service_s_sum=stats["service_s_sum"],
        service_s_sumsq=stats["service_s_sumsq"],
        service_counts=service,
        ongoing=stats["ongoing"],
    )
