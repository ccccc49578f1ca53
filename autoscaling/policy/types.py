"""What the policy is told, what it may be told to want, and what it answers."""

import math
from dataclasses import dataclass
from enum import StrEnum

from autoscaling.errors import ConfigError
from autoscaling.policy.telemetry import ReplicaReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What is wanted: ``quantile`` of requests answered within ``slo_ms``, cheaply.

    ``caution`` is the one knob from lean to safe: late requests that use up the whole error budget
    (1 - quantile) weigh as much as ``caution`` times the fleet's cost. ``max_ongoing`` is
    how many requests one replica accepts before the router looks elsewhere; inside, one worker
    takes them one by one. With ``idle_s`` set, a fleet without requests for so long goes to zero,
    whatever ``min_replicas`` says. ``cold_start_prior_s`` holds until starts have been measured.
    ``fit_steps`` bounds the work on the capacity table per decision (20 steps are about 2 ms).
    """

    slo_ms: float = 200.0
    quantile: float = 0.95
    min_replicas: int = 1
    max_replicas: int = 64
    caution: float = 0.5
    max_ongoing: int = 5
    interval_s: float = 1.0
    cold_start_prior_s: float = 10.0
    idle_s: float | None = None
    fit_steps: int = 20

    def __post_init__(self) -> None:
        _number("slo_ms", self.slo_ms, 0.1, 600_000.0)
        _number("quantile", self.quantile, 0.5, 0.9999)
        _number("min_replicas", self.min_replicas, 0, 10_000, whole=True)
        low = max(1, self.min_replicas)
        _number("max_replicas", self.max_replicas, low, 10_000, whole=True)
        _number("caution", self.caution, 0.01, 100.0)
        _number("max_ongoing", self.max_ongoing, 1, 10_000, whole=True)
        _number("interval_s", self.interval_s, 0.1, 60.0)
        _number("cold_start_prior_s", self.cold_start_prior_s, 0.0, 600.0)
        if self.idle_s is not None:
            _number("idle_s", self.idle_s, 1.0, 1e9)
        _number("fit_steps", self.fit_steps, 0, 10_000, whole=True)

    @property
    def slo_s(self) -> float:
        """The objective in seconds."""
        return self.slo_ms / 1000.0

    @property
    def error_budget(self) -> float:
        """The share of requests that may be late."""
        return 1.0 - self.quantile

    @property
    def price(self) -> float:
        """What a late share of 1 costs, in current fleets."""
        return self.caution / self.error_budget


def _number(key: str, value: object, low: float, high: float, *, whole: bool = False) -> None:
    allowed = f"{'a whole number' if whole else 'a number'} from {low:g} to {high:g}"
    numeric = isinstance(value, int) or (isinstance(value, float) and not whole)
    if isinstance(value, bool) or not numeric or not low <= value <= high:  # type: ignore[operator]
        raise ConfigError(key, value, allowed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What is known at ``now_s`` (any clock in seconds; it may jump).

    ``target`` is the number of replicas last asked for, ``running`` those that serve; the rest of
    the target is starting. ``reports`` may be stale, missing or wrong (see ``telemetry``).
    ``router_queued`` are requests waiting outside the replicas. ``startups_s`` are the durations of
    the starts that ended since the last observation, from order to serving.
    """

    now_s: float
    target: int
    running: int
    reports: tuple[ReplicaReport, ...] = ()
    router_queued: float = 0.0
    startups_s: tuple[float, ...] = ()


class Term(StrEnum):
    """The part of the policy that had the last word."""

    FORECAST = "forecast"
    BURST = "burst"
    DRAIN = "drain"
    FEEDBACK = "feedback"
    HOLD = "hold"
    NO_DATA = "no data"
    WARMING = "warming up"
    VIOLATED = "objective violated"
    IDLE = "idle"
    BOUND = "bound"
    BUDGET = "budget"
    WAIT = "between ticks"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """The numbers behind a decision, for plots, metrics and the log.

    Rates are requests per second; ``service_cv`` is the work's standard deviation over its mean;
    ``late_share`` is what the model expects at the decided number of replicas over the likely peaks
    of the horizon, work that takes too long by itself included; ``need`` is before holding and
    bounds.
    """

    arrivals_rps: float = math.nan
    peak_rps: float = math.nan
    horizon_s: float = math.nan
    expert: str = ""
    mean_service_ms: float = math.nan
    service_cv: float = math.nan
    capacity_rps: float = math.nan
    late_share: float = math.nan
    backlog: float = 0.0
    need: int = 0
    hold_s: float = 0.0
    correction: float = 1.0
