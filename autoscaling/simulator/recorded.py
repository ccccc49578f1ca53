"""A load test that was recorded live, simulated again: how far the simulator is to be trusted.

The same requests at the same times go through the simulated service, scaled by the same ``decide``
with the defaults. What a replica's work and its start take is measured in the recording itself;
nothing is fitted. Ray Serve's HAProxy sends a request to the replica with the fewest, however many
those are, so a simulated replica takes any number as well.
"""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from autoscaling.errors import TraceError
from autoscaling.loadtest.results import Result
from autoscaling.loadtest.scaling import Decision
from autoscaling.loadtest.store import REQUESTS, load
from autoscaling.policy.types import Config
from autoscaling.simulator.arrivals import Trace
from autoscaling.simulator.latency import LatencyAutoscaler
from autoscaling.simulator.run import replay
from autoscaling.simulator.scenario import Routing, Scenario, WorkClass
from autoscaling.start_clock import StartClock

#: No replica refuses: what it holds is bounded by its own admission, far above what waits here.
ANY_NUMBER: Final = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """What a service did, by second: replicas wanted and serving; and by request, in seconds.

    A request that failed, or never ended, has an infinite latency.
    """

    target: NDArray[np.int64]
    running: NDArray[np.int64]
    latency_s: NDArray[np.float64]

    @property
    def replica_seconds(self) -> float:
        """Replicas that serve, start or drain, times their seconds."""
        return float(np.maximum(self.target, self.running).sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """A recorded run: the requests' times, how they fared, and the service as it was measured."""

    trace: Trace
    scenario: Scenario
    live: Course
    starts_s: tuple[float, ...]


def read_recorded(folder: Path, *, min_replicas: int, max_replicas: int) -> Recorded:
    """Read what ``treeline loadtest --out`` kept of a run against a service that scales by latency.

    Raises ResultInvalid for a folder that holds no run, TraceError for one without decisions, with
    work that was never measured, or without a start.
    """
    result = load(folder)
    decisions = result.scaling.decisions
    measured = [each for each in decisions if each.mean_service_ms is not None]
    if not measured:
        raise TraceError(f"{folder}: no decision says how long the work of a request takes")
    starts_s = _starts(decisions)
    if not starts_s:
        raise TraceError(f"{folder}: no replica started, so a cold start cannot be measured")
    table = pq.read_table(folder / REQUESTS).to_pandas()
    start_s = datetime.fromisoformat(result.started_at).timestamp()
    arrival_s = table["planned_at"].astype("int64").to_numpy() / 1e6 - start_s
    in_2xx = table["status"].between(200, 299).fillna(value=False).to_numpy(dtype=bool)
    latency_s = np.where(in_2xx, table["latency_ms"].to_numpy() / 1e3, np.inf)
    seconds = int(np.ceil(result.schedule.duration_s or arrival_s[-1]))
    rps = np.bincount(arrival_s.astype(np.int64), minlength=seconds).astype(np.float64)
    target, running = _by_second(decisions, start_s, seconds)
    return Recorded(
        trace=Trace(name=folder.name, rps=rps, timestamps_s=arrival_s),
        scenario=_scenario(result, measured[-1], starts_s, min_replicas, max_replicas),
        live=Course(target=target, running=running, latency_s=latency_s),
        starts_s=starts_s,
    )


def simulate_again(recorded: Recorded, seed: int) -> Course:
    """Send the recorded requests through the simulated service."""
    policy = LatencyAutoscaler(recorded.scenario, max_ongoing=Config().max_ongoing)
    run = replay(recorded.trace, recorded.scenario, policy, seed)
    return Course(target=run.target, running=run.running, latency_s=run.requests.latency_s)


def in_time(course: Course, recorded: Recorded) -> float:
    """Share of the judged requests within the objective."""
    assert recorded.trace.timestamps_s is not None
    judged = recorded.trace.timestamps_s >= recorded.scenario.unscored_s
    return float((course.latency_s[judged] <= recorded.scenario.slo_s).mean())


def p95_ms(course: Course, recorded: Recorded, window_s: int) -> NDArray[np.float64]:
    """95th percentile by window of arrival; infinite if too many failed, NaN without requests."""
    assert recorded.trace.timestamps_s is not None
    windows = -(-recorded.trace.duration_s // window_s)
    edges = np.searchsorted(recorded.trace.timestamps_s, np.arange(windows + 1) * window_s)
    parts = np.split(course.latency_s, edges[1:-1])
    return (
        np.array(
            [
                np.quantile(part, 0.95, method="inverted_cdf") if len(part) else np.nan
                for part in parts
            ]
        )
        * 1e3
    )


def _scenario(
    result: Result,
    work: Decision,
    starts_s: tuple[float, ...],
    min_replicas: int,
    max_replicas: int,
) -> Scenario:
    assert work.mean_service_ms is not None
    spread = float(np.std(starts_s) / np.mean(starts_s))
    return Scenario(
        slo_ms=result.objective.slo_ms,
        quantile=result.objective.quantile,
        cold_start_s=float(np.mean(starts_s)),
        cold_start_cv=min(spread, 0.9),
        unscored_s=round(result.schedule.warmup_s),
        max_ongoing=ANY_NUMBER,
        routing=Routing.LEAST_ONGOING,
        min_replicas=min_replicas,
        max_replicas=max_replicas,
        work=(WorkClass(weight=1.0, mean_s=work.mean_service_ms / 1e3, cv=work.service_cv or 0.0),),
    )


def _starts(decisions: tuple[Decision, ...]) -> tuple[float, ...]:
    """Seconds each start took, from the order to the first decision that saw it serve."""
    clock = StartClock()
    found: list[float] = []
    for each in decisions:
        # A decision saw `running` before it asked for `target`.
        found += clock.observe(each.target, each.running, each.ts)
    return tuple(found)


def _by_second(
    decisions: tuple[Decision, ...], start_s: float, seconds: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Targets and running replicas in force at each second; before the first decision, its own."""
    at_s = np.array([each.ts - start_s for each in decisions])
    index = np.maximum(np.searchsorted(at_s, np.arange(seconds) + 0.5, side="right") - 1, 0)
    target = np.array([each.target for each in decisions])[index]
    return target, np.array([each.running for each in decisions])[index]
