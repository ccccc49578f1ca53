"""Run policies over traces and seeds, at their defaults or over a grid of settings."""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

from autoscaling.errors import ConfigError
from autoscaling.simulator import baselines
from autoscaling.simulator.arrivals import Trace
from autoscaling.simulator.latency import LatencyAutoscaler
from autoscaling.simulator.oracle import OracleAutoscaler, oracle_replica_hours
from autoscaling.simulator.run import Autoscaler, Run, replay, score
from autoscaling.simulator.scenario import Scenario
from autoscaling.simulator.stationary import capacity_rps

Settings = Mapping[str, float]
OURS: Final = "latency"
ORACLE: Final = "oracle"
#: Share in time that a setting must reach to be compared by its cost.
ENOUGH: Final = 0.992


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How to make an autoscaler, and the settings among which its best is looked for."""

    make: Callable[..., Autoscaler]
    grid: Mapping[str, Sequence[float]] = field(default_factory=dict)

    def settings(self) -> list[dict[str, float]]:
        """All combinations of the grid."""
        keys = list(self.grid)
        return [
            dict(zip(keys, values, strict=True))
            for values in itertools.product(*self.grid.values())
        ]


POLICIES: Final[dict[str, Policy]] = {
    OURS: Policy(make=LatencyAutoscaler, grid={"caution": (0.125, 0.25, 0.5, 1.0)}),
    "ray": Policy(
        make=baselines.RayDefault,
        grid={
            "target_ongoing": (0.5, 1.0, 1.5),
            "look_back_s": (5.0,),
            "upscale_delay_s": (0.0,),
            "downscale_delay_s": (15.0, 60.0, 300.0),
        },
    ),
    "hpa-cpu": Policy(
        make=baselines.HpaCpu,
        grid={"target": (0.4, 0.5, 0.6, 0.7), "stabilisation_s": (60.0,)},
    ),
    "hpa-requests": Policy(
        make=baselines.HpaRequests,
        grid={"target": (0.4, 0.5, 0.6, 0.7), "stabilisation_s": (60.0,)},
    ),
    "hpa-p95": Policy(
        make=baselines.HpaP95,
        grid={"target": (0.4, 0.6, 0.8), "stabilisation_s": (60.0,)},
    ),
    "knative": Policy(
        make=baselines.KnativeKpa,
        grid={
            "concurrency": (1.0, 1.5, 2.0, 3.0),
            "stable_s": (15, 60),
            "scale_down_delay_s": (0, 30),
        },
    ),
    "sagemaker": Policy(
        make=baselines.SageMaker,
        grid={"target": (0.3, 0.4, 0.5), "up_minutes": (1,), "cooldown_s": (0.0,)},
    ),
    "inferline": Policy(
        make=baselines.InferLine,
        grid={"rho": (0.4, 0.45, 0.5, 0.55, 0.6), "down_delay_s": (15.0,)},
    ),
    "naive": Policy(
        make=baselines.NaiveThreshold,
        grid={"up": (0.5, 0.75), "down": (0.25, 0.4), "interval_s": (2, 5)},
    ),
    ORACLE: Policy(make=OracleAutoscaler),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One run to do."""

    policy: str
    settings: Settings
    trace: Trace
    seed: int
    scenario: Scenario


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One run's figures, in the form the command line prints."""

    policy: str
    trace: str
    seed: int
    attainment: float
    violated_windows: float
    replica_hours: float
    oracle_replica_hours: float
    cost_ratio: float | None  # None: nothing was ever needed
    scale_events: int
    settings: Settings


def check_policies(names: Sequence[str]) -> None:
    """Raise ``ConfigError`` for a name that is not a policy."""
    for name in names:
        if name not in POLICIES:
            raise ConfigError("policy", name, f"one of {', '.join(POLICIES)}")


def plan(
    names: Sequence[str],
    traces: Sequence[Trace],
    seeds: Sequence[int],
    scenario: Scenario,
    *,
    grid: bool,
) -> list[Job]:
    """List the runs: every policy at its defaults and, with ``grid``, at every setting as well."""
    check_policies(names)
    return [
        Job(policy=name, settings=settings, trace=trace, seed=seed, scenario=scenario)
        for name in names
        for settings in [{}, *(POLICIES[name].settings() if grid and POLICIES[name].grid else [])]
        for trace in traces
        for seed in seeds
    ]


def replay_job(job: Job) -> Run:
    """Do one run and keep everything that happened."""
    policy = POLICIES[job.policy]
    if job.policy == ORACLE:
        autoscaler: Autoscaler = OracleAutoscaler(job.scenario, job.trace)
    else:
        autoscaler = policy.make(job.scenario, **job.settings)
    return replay(job.trace, job.scenario, autoscaler, job.seed)


def run_job(job: Job) -> Record:
    """Do one run and judge it."""
    judged = score(replay_job(job), job.scenario)
    oracle_hours = oracle_replica_hours(job.trace, job.scenario)
    return Record(
        policy=job.policy,
        trace=job.trace.name,
        seed=job.seed,
        attainment=judged.attainment,
        violated_windows=judged.violated_windows,
        replica_hours=judged.replica_hours,
        oracle_replica_hours=oracle_hours,
        cost_ratio=judged.replica_hours / oracle_hours if oracle_hours > 0 else None,
        scale_events=judged.scale_events,
        settings=dict(job.settings),
    )


def run_all(jobs: Sequence[Job], workers: int) -> Iterator[Record]:
    """Do the runs in ``workers`` processes; records come in the order of the jobs."""
    for scenario in {job.scenario for job in jobs}:
        capacity_rps(scenario)  # remembered, and inherited by forked workers
    if workers <= 1 or len(jobs) <= 1:
        yield from map(run_job, jobs)
        return
    with ProcessPoolExecutor(max_workers=min(workers, len(jobs))) as pool:
        yield from pool.map(run_job, jobs)


def summarise(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Average over seeds and traces; one line per policy and setting, in order of appearance."""
    groups: dict[tuple[str, tuple[tuple[str, float], ...]], list[Record]] = {}
    for record in records:
        groups.setdefault((record.policy, tuple(record.settings.items())), []).append(record)
    return [_summary(policy, dict(settings), of) for (policy, settings), of in groups.items()]


def _summary(policy: str, settings: dict[str, float], of: Sequence[Record]) -> dict[str, Any]:
    by_trace: dict[str, list[float]] = {}
    for record in of:
        by_trace.setdefault(record.trace, []).append(record.attainment)
    n = len(of)
    ratios = [record.cost_ratio for record in of if record.cost_ratio is not None]
    return {
        "policy": policy,
        "settings": settings,
        "attainment": sum(r.attainment for r in of) / n,
        "worst_trace": min(sum(a) / len(a) for a in by_trace.values()),
        "violated_windows": sum(r.violated_windows for r in of) / n,
        "cost_ratio": sum(ratios) / len(ratios) if ratios else math.nan,
        "scale_events": sum(r.scale_events for r in of) / n,
    }


def best_settings(summaries: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Per policy: the cheapest setting that attains enough, or else the one that attains most.

    Enough is what our policy attains at its defaults in the same run, else ``ENOUGH``.
    """
    attainment = next(
        (s["attainment"] for s in summaries if s["policy"] == OURS and not s["settings"]), ENOUGH
    )
    best: dict[str, dict[str, Any]] = {}
    for line in summaries:
        old = best.get(line["policy"])
        if old is None or _better(line, old, attainment):
            best[line["policy"]] = line
    return best


def _better(new: dict[str, Any], old: dict[str, Any], attainment: float) -> bool:
    new_good, old_good = new["attainment"] >= attainment, old["attainment"] >= attainment
    if new_good and old_good:
        return bool(new["cost_ratio"] < old["cost_ratio"])
    if new_good != old_good:
        return bool(new_good)
    return bool(new["attainment"] > old["attainment"])
