"""What a simulated service is like; the defaults are the reference scenario."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from autoscaling.errors import ConfigError


class Routing(StrEnum):
    """How a request finds its replica; Ray Serve takes the less loaded of two."""

    TWO_CHOICES = "two-choices"
    LEAST_ONGOING = "least-ongoing"
    RANDOM = "random"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkClass:
    """One kind of request: its share of the traffic and its lognormal service time."""

    weight: float
    mean_s: float
    cv: float = 0.3


LIGHT_MEDIUM_HEAVY: Final = (
    WorkClass(weight=0.70, mean_s=0.005),
    WorkClass(weight=0.25, mean_s=0.020),
    WorkClass(weight=0.05, mean_s=0.100),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Service, objective and faults of one run.

    ``drift`` multiplies service times: ((t_s, factor), …), linear in between, constant outside.
    ``failures_per_replica_hour`` kills running replicas together with their ongoing requests.
    ``max_queued`` 0 lets the router queue without a limit; else requests above it are refused.
    """

    slo_ms: float = 200.0
    quantile: float = 0.95
    cold_start_s: float = 8.0
    cold_start_cv: float = 0.15
    staleness_s: int = 1
    interval_s: int = 1
    unscored_s: int = 300
    window_s: int = 60
    max_ongoing: int = 5
    routing: Routing = Routing.TWO_CHOICES
    max_queued: int = 0
    min_replicas: int = 1
    max_replicas: int = 64
    work: tuple[WorkClass, ...] = LIGHT_MEDIUM_HEAVY
    drift: tuple[tuple[float, float], ...] = field(default=())
    failures_per_replica_hour: float = 0.0

    def __post_init__(self) -> None:
        _check("slo_ms", self.slo_ms, self.slo_ms > 0, "more than 0")
        _check("quantile", self.quantile, 0 < self.quantile < 1, "between 0 and 1")
        _check("cold_start_s", self.cold_start_s, self.cold_start_s >= 0, "0 or more")
        _check("cold_start_cv", self.cold_start_cv, 0 <= self.cold_start_cv < 1, "0 to below 1")
        _check("staleness_s", self.staleness_s, self.staleness_s >= 0, "0 or more, whole seconds")
        _check("interval_s", self.interval_s, self.interval_s >= 1, "1 or more, whole seconds")
        _check("max_ongoing", self.max_ongoing, self.max_ongoing >= 1, "1 or more")
        _check("min_replicas", self.min_replicas, self.min_replicas >= 0, "0 or more")
        low = max(1, self.min_replicas)
        _check("max_replicas", self.max_replicas, self.max_replicas >= low, f"{low} or more")

    @property
    def slo_s(self) -> float:
        """The objective in seconds."""
        return self.slo_ms / 1000.0

    @property
    def mean_service_s(self) -> float:
        """Mean work per request, before drift."""
        total = sum(w.weight for w in self.work)
        return sum(w.weight * w.mean_s for w in self.work) / total


def _check(key: str, value: object, good: bool, allowed: str) -> None:
    if not good:
        raise ConfigError(key, value, allowed)
