"""The policy as Ray Serve's controller calls it: always an answer, always a state."""

import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from autoscaling.errors import ConfigError
from autoscaling.serve_policy import LatencyPolicy
from autoscaling.signals import ReplicaSignals
from tests.autoscaling.test_signals import series


@dataclass
class Context:
    """The fields of Ray Serve's ``AutoscalingContext`` that the policy reads."""

    target_num_replicas: int = 2
    running_replicas: list[str] = field(default_factory=lambda: ["a", "b"])
    raw_metrics: Any = None
    total_queued_requests: Any = 0.0
    capacity_adjusted_min_replicas: int = 1
    capacity_adjusted_max_replicas: int = 10
    policy_state: dict[str, Any] = field(default_factory=lambda: {"ray": "own"})
    app_name: str | None = "treeline"
    deployment_name: str = "ModelServer"


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def policy(clock: Clock, published: list[tuple[str, bytes]], **options: Any) -> LatencyPolicy:
    return LatencyPolicy(
        clock=clock,
        wall_clock=lambda: 1.7e9,
        publish=lambda key, value: published.append((key, value)),
        **options,
    )


def test_unknown_and_wrong_options_are_named() -> None:
    with pytest.raises(ConfigError, match=r"slo.*slo_ms"):
        LatencyPolicy(slo=200)
    with pytest.raises(ConfigError, match="quantile"):
        LatencyPolicy(quantile=2.0)
    with pytest.raises(ConfigError, match="max_replicas"):
        LatencyPolicy(max_replicas=3)


def test_without_telemetry_it_holds_and_says_so() -> None:
    published: list[tuple[str, bytes]] = []
    clock = Clock()
    scaler = policy(clock, published)
    scaler(Context())
    clock.now_s += 6.0
    target, state = scaler(Context())
    assert (target, state) == (2, {"ray": "own"})
    key, value = published[0]
    assert key == "scaling/treeline/ModelServer"
    newest = json.loads(value)["decisions"][-1]
    assert (newest["target"], newest["running"]) == (2, 2)
    assert "no fresh telemetry" in newest["reason"]


@pytest.mark.parametrize(
    "broken",
    [
        {"raw_metrics": {"at_s": 3}},
        {"running_replicas": None},
        {"total_queued_requests": "many"},
        {"capacity_adjusted_min_replicas": 5, "capacity_adjusted_max_replicas": 2},
    ],
)
def test_whatever_ray_hands_over_it_never_raises(broken: dict[str, Any]) -> None:
    target, state = policy(Clock(), [])(Context(**broken))
    assert target == 2
    assert isinstance(state, dict)


def test_a_store_that_fails_does_not_stop_scaling() -> None:
    def fail(key: str, value: bytes) -> None:
        raise ConnectionError("GCS is away")

    target, _ = LatencyPolicy(clock=Clock(), publish=fail)(Context())
    assert target == 2


def test_demand_beyond_capacity_raises_the_target_once_a_second() -> None:
    clock, published = Clock(), list[tuple[str, bytes]]()
    scaler = policy(clock, published, slo_ms=200.0)
    signals = [ReplicaSignals(clock, cpu_clock=lambda: 0.0) for _ in range(2)]
    targets = []
    for _ in range(30):
        clock.now_s += 1.0
        for each in signals:
            for _ in range(100):  # 200 a second, 20 ms of work each, two replicas: twice too much
                each.accept()
                each.complete(model_s=0.02, latency_s=0.1)
        context = Context(raw_metrics=series(*(each.stats() for each in signals)))
        targets.append(scaler(context)[0])
        clock.now_s += 0.1
        assert scaler(context)[0] == 2  # between two ticks it repeats what Ray has
        clock.now_s -= 0.1
    assert max(targets) >= 5


def test_after_a_restart_old_replicas_that_report_one_by_one_are_no_burst() -> None:
    clock = Clock()
    scaler = policy(clock, [])
    signals = [ReplicaSignals(clock, cpu_clock=lambda: 0.0) for _ in range(2)]
    for each in signals:
        for _ in range(50_000):
            each.accept()
            each.complete(model_s=0.02, latency_s=0.03)
    targets = []
    for reporting in (0, 1, 2, 2, 2, 2, 2, 2, 2, 2):
        clock.now_s += 1.0
        raw = series(*(each.stats() for each in signals[:reporting]))
        targets.append(scaler(Context(raw_metrics=raw))[0])
    assert set(targets) == {2}
