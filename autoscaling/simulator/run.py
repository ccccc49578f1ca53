"""Replay one trace under one autoscaler and keep the books."""

import math
from collections import deque
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from autoscaling.simulator.arrivals import Trace, draw_requests
from autoscaling.simulator.cluster import Cluster, Snapshot, Startup
from autoscaling.simulator.kernel import RUNNING, STARTING, Requests
from autoscaling.simulator.scenario import Scenario


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What an autoscaler sees: replica counts of now, telemetry that is ``staleness_s`` old."""

    now_s: float
    target: int
    running: int
    starting: int
    telemetry: Snapshot
    startups: tuple[Startup, ...]


class Autoscaler(Protocol):
    """Anything that wants a number of replicas. One instance serves one run."""

    def wanted(self, view: View) -> int:
        """Return the wanted number of replicas; the cluster's bounds are applied by the caller."""
        ...

    @property
    def reason(self) -> str:
        """The term that won the last decision; one word, for plots."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What happened, second by second; ``requests.latency_s`` is filled in."""

    requests: Requests
    target: NDArray[np.int64]
    running: NDArray[np.int64]
    replica_seconds: NDArray[np.float64]
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Figures of one run, from ``unscored_s`` on; a request belongs to its second of arrival.

    ``attainment`` is the share of requests answered within the objective. A request that was
    refused, lost or not finished counts as late. ``violated_windows`` is the share of windows
    (60 s, with at least one request) in which fewer than ``quantile`` were in time.
    ``scale_events`` counts changes of the target. Without any request attainment is 1.
    """

    attainment: float
    violated_windows: float
    replica_hours: float
    scale_events: int
    requests: int


def replay(trace: Trace, scenario: Scenario, autoscaler: Autoscaler, seed: int) -> Run:
    """Run the whole trace; the same arguments give the same run."""
    requests = draw_requests(trace, scenario, seed)
    cluster = Cluster(
        requests,
        scenario,
        np.random.default_rng((seed, 1)),
        initial=max(scenario.min_replicas, 1),
    )
    past: deque[Snapshot] = deque(maxlen=scenario.staleness_s + 1)
    targets, running, reasons = [], [], []
    for second in range(trace.duration_s):
        past.append(cluster.snapshot())
        if second % scenario.interval_s == 0:
            wanted = autoscaler.wanted(
                View(
                    now_s=float(second),
                    target=cluster.target,
                    running=cluster.count(RUNNING),
                    starting=cluster.count(STARTING),
                    telemetry=past[0],
                    startups=cluster.startups(),
                )
            )
            cluster.scale(min(max(wanted, scenario.min_replicas), scenario.max_replicas))
        targets.append(cluster.target)
        running.append(cluster.count(RUNNING))
        reasons.append(autoscaler.reason)
        cluster.advance(float(second + 1))
    # What still waits may finish late; nothing that happens now costs or counts otherwise.
    seconds = np.array(cluster.replica_seconds)
    cluster.advance(trace.duration_s + scenario.slo_s)
    return Run(
        requests=requests,
        target=np.array(targets),
        running=np.array(running),
        replica_seconds=seconds,
        reasons=tuple(reasons),
    )


def score(run: Run, scenario: Scenario) -> Score:
    """Judge a run against the scenario's objective."""
    first = scenario.unscored_s
    scored = run.requests.arrival_s >= first
    in_time = run.requests.latency_s[scored] <= scenario.slo_s
    window = ((run.requests.arrival_s[scored] - first) // scenario.window_s).astype(np.int64)
    total = np.bincount(window)
    good = np.bincount(window, weights=in_time)
    used = total > 0
    violated = good[used] < scenario.quantile * total[used]
    targets = run.target[max(first - 1, 0) :]
    return Score(
        attainment=float(in_time.mean()) if len(in_time) else 1.0,
        violated_windows=float(violated.mean()) if len(violated) else 0.0,
        replica_hours=math.fsum(run.replica_seconds[first:]) / 3600.0,
        scale_events=int(np.count_nonzero(np.diff(targets))),
        requests=len(in_time),
    )
