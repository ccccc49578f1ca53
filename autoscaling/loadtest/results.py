"""What a finished run says: the saved format, and nothing that draws or decides.

Latencies are milliseconds from the planned time, over judged requests that were answered with 2xx;
``None`` where there were none. A judged request is one planned after the warm-up.
"""

import math
from typing import Final

import msgspec

from autoscaling.loadtest.errors import TargetInvalid
from autoscaling.loadtest.generator import Target
from autoscaling.loadtest.plan import Kind
from autoscaling.loadtest.profile import Arrivals
from autoscaling.loadtest.scaling import ScalingHistory

FORMAT: Final = "treeline-loadtest/1"


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked of the plan; ``rate_rps`` is None for a trace, ``trace`` for a rate.

    ``duration_s`` None means the whole trace; a result always holds the number.
    """

    rate_rps: float | None = None
    trace: str | None = None
    speed: float = 1.0
    scale: float = 1.0
    arrivals: Arrivals = "poisson"
    duration_s: float | None = None
    warmup_s: float = 0.0
    seed: int = 0
    kinds: tuple[Kind, ...]


class Objective(msgspec.Struct, frozen=True, kw_only=True):
    """The share ``quantile`` of requests is to be answered within ``slo_ms``."""

    slo_ms: float = 200.0
    quantile: float = 0.95

    def __post_init__(self) -> None:
        if not (math.isfinite(self.slo_ms) and self.slo_ms > 0):
            raise TargetInvalid(f"--slo-ms {self.slo_ms:g}: milliseconds above 0 are needed")
        if not 0 < self.quantile <= 1:
            raise TargetInvalid(f"--quantile {self.quantile:g}: above 0 and at most 1 is needed")


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """``attained`` is the share of judged requests answered with 2xx within the objective's time.

    A request that failed, or got another status, missed it.
    """

    held: bool
    attained: float


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """Judged requests by what became of them.

    ``planned = answered + timed_out + failed``. ``lost`` were written to a connection and got no
    whole answer: the server may have processed them. ``mismatched`` came back under another id.
    """

    planned: int
    answered: int
    ok: int
    timed_out: int
    failed: int
    lost: int
    mismatched: int
    statuses: dict[int, int]


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    count: int
    mean_ms: float | None
    p50_ms: float | None
    p90_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    p999_ms: float | None
    max_ms: float | None


class KindResult(msgspec.Struct, frozen=True, kw_only=True):
    kind: Kind
    planned: int
    attained: float | None
    latency: Latency


class GeneratorHealth(msgspec.Struct, frozen=True, kw_only=True):
    """How late the generator was by itself: from the planned time to when it began the request.

    ``late_share`` of the judged requests were begun more than ``late_ms`` late, ``queued_share``
    waited for a free connection. ``bottleneck`` says in words why the figures describe the
    generator and not the server; empty when they do not.
    """

    lag_p50_ms: float
    lag_p99_ms: float
    lag_max_ms: float
    late_ms: float
    late_share: float
    queued_share: float
    core_share: float
    bottleneck: tuple[str, ...]


class Second(msgspec.Struct, frozen=True, kw_only=True):
    """One second of the run, the warm-up included.

    ``planned`` and the latencies belong to the second a request was planned in, ``sent`` to the one
    it was written in, ``ok`` and ``errors`` to the one it ended in.
    """

    t_s: int
    planned: int
    sent: int
    ok: int
    errors: int
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


class Histogram(msgspec.Struct, frozen=True, kw_only=True):
    """``counts[i]`` latencies from ``edges_ms[i]`` up to ``edges_ms[i + 1]``."""

    edges_ms: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """All that is saved of a run beside the single requests.

    ``latency_curve`` holds pairs of a quantile and its latency. ``failures`` counts exceptions of
    the whole run. ``stopped_at_s`` is set when a person stopped it: the plan up to there is judged.
    """

    format: str = FORMAT
    started_at: str
    target: Target
    schedule: Schedule
    objective: Objective
    verdict: Verdict
    counts: Counts
    latency: Latency
    kinds: tuple[KindResult, ...]
    generator: GeneratorHealth
    seconds: tuple[Second, ...]
    latency_curve: tuple[tuple[float, float], ...]
    histogram: Histogram
    failures: dict[str, int]
    scaling: ScalingHistory
    request_id_prefix: str
    stopped_at_s: float | None = None

    @property
    def judged_s(self) -> float:
        """The length of the judged part."""
        end_s = self.schedule.duration_s if self.stopped_at_s is None else self.stopped_at_s
        return max(0.0, (end_s or 0.0) - self.schedule.warmup_s)
