"""Judge a recording: pure functions from arrays to a result."""

import itertools
from datetime import UTC, datetime
from typing import Final

import numpy as np
from numpy.typing import NDArray

from autoscaling.loadtest.generator import Target
from autoscaling.loadtest.profile import FloatArray
from autoscaling.loadtest.recording import Outcome, Recording
from autoscaling.loadtest.results import (
    Counts,
    GeneratorHealth,
    Histogram,
    KindResult,
    Latency,
    Objective,
    Result,
    Schedule,
    Second,
    Verdict,
)
from autoscaling.loadtest.scaling import ScalingHistory

# A generator that begins this share of its requests late, or makes it wait for a connection, has
# put itself into the tail that is being measured.
BOTTLENECK_SHARE: Final = 0.01
# "Late" is a twentieth of the objective: it cannot turn a good request into a bad one by itself.
LATE_PART_OF_SLO: Final = 0.05
# Quantiles for the picture: 0 to 90% evenly, then ever closer to 1 (99.999%).
CURVE: Final[FloatArray] = np.concatenate(
    [np.linspace(0.0, 0.9, 91)[:-1], 1.0 - np.logspace(-1, -5, 81)]
)

HISTOGRAM_BINS: Final = 60

BoolArray = NDArray[np.bool_]


def summarise(
    recording: Recording,
    *,
    target: Target,
    schedule: Schedule,
    objective: Objective,
    scaling: ScalingHistory,
) -> Result:
    """Judge the requests that were planned after the warm-up, up to where the run was stopped."""
    at_s = recording.plan.at_s
    reached = recording.outcome != Outcome.NOT_SENT
    stopped_at_s = None if reached.all() else float(at_s[np.argmin(reached)])
    judged = reached & (at_s >= recording.plan.warmup_s)
    in_time = recording.ok & (recording.latency_ms <= objective.slo_ms)
    latency_ms = recording.latency_ms
    attained = float(in_time[judged].mean()) if judged.any() else 0.0
    answered = judged & recording.ok
    return Result(
        started_at=datetime.fromtimestamp(recording.started_at_s, UTC).isoformat(),
        target=target,
        schedule=schedule,
        objective=objective,
        verdict=Verdict(held=attained >= objective.quantile, attained=attained),
        counts=count(recording, judged),
        latency=describe(latency_ms[answered]),
        kinds=tuple(_kinds(recording, judged, in_time)),
        generator=judge_generator(recording, judged, objective, target),
        seconds=split_seconds(recording),
        latency_curve=_curve(latency_ms[answered]),
        histogram=_histogram(latency_ms[answered]),
        failures=dict(recording.failures.most_common()),
        scaling=scaling,
        request_id_prefix=recording.request_id_prefix,
        stopped_at_s=stopped_at_s,
    )


def count(recording: Recording, judged: BoolArray) -> Counts:
    outcome = recording.outcome[judged]
    answered = outcome == Outcome.ANSWERED
    written = np.isfinite(recording.sent_s[judged])
    statuses, numbers = np.unique(recording.status[judged][answered], return_counts=True)
    return Counts(
        planned=int(judged.sum()),
        answered=int(answered.sum()),
        ok=int(recording.ok[judged].sum()),
        timed_out=int((outcome == Outcome.TIMED_OUT).sum()),
        failed=int((outcome == Outcome.FAILED).sum()),
        lost=int((written & ~answered).sum()),
        mismatched=int(recording.mismatched[judged].sum()),
        statuses={int(s): int(n) for s, n in zip(statuses, numbers, strict=True)},
    )


def describe(latency_ms: FloatArray) -> Latency:
    """Percentiles that are values which occurred: none is interpolated."""
    p50, p90, p95, p99, p999, p100 = _percentiles(latency_ms, (0.5, 0.9, 0.95, 0.99, 0.999, 1.0))
    return Latency(
        count=len(latency_ms),
        mean_ms=float(latency_ms.mean()) if len(latency_ms) else None,
        p50_ms=p50,
        p90_ms=p90,
        p95_ms=p95,
        p99_ms=p99,
        p999_ms=p999,
        max_ms=p100,
    )


def judge_generator(
    recording: Recording, judged: BoolArray, objective: Objective, target: Target
) -> GeneratorHealth:
    lag_ms = recording.lag_ms[judged]
    lag_ms = lag_ms if len(lag_ms) else np.zeros(1)
    late_ms = objective.slo_ms * LATE_PART_OF_SLO
    late_share = float((lag_ms > late_ms).mean())
    queued_share = float(recording.queued[judged].mean()) if judged.any() else 0.0
    core_share = recording.cpu_s / recording.wall_s if recording.wall_s > 0 else 0.0
    bottleneck = []
    if late_share > BOTTLENECK_SHARE:
        bottleneck.append(
            f"{late_share:.1%} of the requests were begun more than {late_ms:g} ms late, the "
            f"generator having {core_share:.0%} of a core: lower the rate, or give it a faster or "
            "less busy core"
        )
    if queued_share > BOTTLENECK_SHARE:
        bottleneck.append(
            f"{queued_share:.1%} of the requests waited for one of {target.connections} "
            "connections: raise --connections"
        )
    return GeneratorHealth(
        lag_p50_ms=float(np.quantile(lag_ms, 0.5)),
        lag_p99_ms=float(np.quantile(lag_ms, 0.99)),
        lag_max_ms=float(lag_ms.max()),
        late_ms=late_ms,
        late_share=late_share,
        queued_share=queued_share,
        core_share=core_share,
        bottleneck=tuple(bottleneck),
    )


def split_seconds(recording: Recording) -> tuple[Second, ...]:
    """One entry per second from the start until the last answer, empty ones included."""
    reached = recording.outcome != Outcome.NOT_SENT
    planned = _second_of(recording.plan.at_s[reached])
    ended = _second_of(recording.done_s[reached])
    sent = _second_of(recording.sent_s[reached & np.isfinite(recording.sent_s)])
    ok = recording.ok[reached]
    length = int(max(planned.max(initial=-1), ended.max(initial=-1))) + 1
    counts = [
        np.bincount(seconds, minlength=length).tolist()
        for seconds in (planned, sent, ended[ok], ended[~ok])
    ]
    # Plans ascend, so the requests of one second lie side by side.
    edges = np.searchsorted(planned[ok], np.arange(length + 1))
    latency_ms = recording.latency_ms[reached][ok]
    slices = [latency_ms[a:b] for a, b in itertools.pairwise(edges)]
    quantiles = [_percentiles(values, (0.5, 0.95, 0.99)) for values in slices]
    return tuple(
        Second(t_s=t, planned=n, sent=s, ok=o, errors=e, p50_ms=p50, p95_ms=p95, p99_ms=p99)
        for t, n, s, o, e, (p50, p95, p99) in zip(range(length), *counts, quantiles, strict=True)
    )


def _kinds(recording: Recording, judged: BoolArray, in_time: BoolArray) -> list[KindResult]:
    results = []
    for number, kind in enumerate(recording.plan.kinds):
        mine = judged & (recording.plan.kind == number)
        results.append(
            KindResult(
                kind=kind,
                planned=int(mine.sum()),
                attained=float(in_time[mine].mean()) if mine.any() else None,
                latency=describe(recording.latency_ms[mine & recording.ok]),
            )
        )
    return results


def _second_of(times_s: FloatArray) -> NDArray[np.int64]:
    return np.floor(times_s).astype(np.int64)


def _percentiles(values: FloatArray, quantiles: tuple[float, ...]) -> list[float | None]:
    if not len(values):
        return [None] * len(quantiles)
    found: list[float | None] = np.quantile(values, quantiles, method="inverted_cdf").tolist()
    return found


def _curve(latency_ms: FloatArray) -> tuple[tuple[float, float], ...]:
    """Quantiles up to the last one that these many values can tell apart."""
    if not len(latency_ms):
        return ()
    highest = 1.0 - 1.0 / (len(latency_ms) + 1)
    shown = CURVE[CURVE <= highest]  # noqa: SIM300  the array is what is compared
    values = np.quantile(latency_ms, shown, method="inverted_cdf")
    return tuple((float(q), float(v)) for q, v in zip(shown, values, strict=True))


def _histogram(latency_ms: FloatArray) -> Histogram:
    if not len(latency_ms):
        return Histogram()
    lowest, highest = float(latency_ms.min()), float(latency_ms.max())
    # A hair wider than the values, so that rounding in the logarithms leaves none outside.
    edges_ms = np.geomspace(lowest * 0.999, highest * 1.001, HISTOGRAM_BINS + 1)
    counts, _ = np.histogram(latency_ms, edges_ms)
    return Histogram(edges_ms=tuple(edges_ms.tolist()), counts=tuple(counts.tolist()))
