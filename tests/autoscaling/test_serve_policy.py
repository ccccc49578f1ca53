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


class Memory(dict[str, bytes]):
    """A store that outlives the policies of a test."""

    def put(self, key: str, value: bytes) -> None:
        self[key] = value

    def decisions(self, deployment: str = "ModelServer") -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self[f"scaling/treeline/{deployment}"])[
            "decisions"
        ]
        return found


class Fleet:
    """Two replicas, each asked ``rps`` times a second for ``work_s`` of work, all of it in time."""

    def __init__(self, clock: Clock, rps: int = 60, work_s: float = 0.01) -> None:
        self._clock = clock
        self._rps, self._work_s = rps, work_s
        self._signals = [ReplicaSignals(clock, cpu_clock=lambda: 0.0) for _ in range(2)]

    def pass_second(self) -> Context:
        self._clock.now_s += 1.0
        for each in self._signals:
            for _ in range(self._rps):
                each.accept()
                each.complete(model_s=self._work_s, latency_s=0.1)
        return Context(raw_metrics=series(*(each.stats() for each in self._signals)))


def policy(clock: Clock, store: Memory | None = None, **options: Any) -> LatencyPolicy:
    return LatencyPolicy(
        clock=clock,
        wall_clock=lambda: 1.7e9 + clock.now_s,
        store=Memory() if store is None else store,
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
    clock, store = Clock(), Memory()
    scaler = policy(clock, store)
    scaler(Context())
    clock.now_s += 6.0
    target, state = scaler(Context())
    assert (target, state) == (2, {"ray": "own"})
    newest = store.decisions()[-1]
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
    target, state = policy(Clock())(Context(**broken))
    assert target == 2
    assert isinstance(state, dict)


def test_a_store_that_fails_does_not_stop_scaling() -> None:
    class Away(Memory):
        def put(self, key: str, value: bytes) -> None:
            raise ConnectionError("GCS is away")

        def get(self, key: str, default: Any = None) -> Any:
            raise ConnectionError("GCS is away")

    clock = Clock()
    fleet, scaler = Fleet(clock, rps=100, work_s=0.02), policy(clock, Away())
    assert max(scaler(fleet.pass_second())[0] for _ in range(30)) >= 5


def test_demand_beyond_capacity_raises_the_target_once_a_second() -> None:
    clock = Clock()
    fleet, scaler = Fleet(clock, rps=100, work_s=0.02), policy(clock, slo_ms=200.0)
    targets = []
    for _ in range(30):  # 200 a second, 20 ms of work each, two replicas: twice too much
        context = fleet.pass_second()
        targets.append(scaler(context)[0])
        clock.now_s += 0.1
        assert scaler(context)[0] == 2  # between two ticks it repeats what Ray has
        clock.now_s -= 0.1
    assert max(targets) >= 5


def test_after_a_restart_old_replicas_that_report_one_by_one_are_no_burst() -> None:
    clock = Clock()
    scaler = policy(clock)
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


def test_a_new_controller_goes_on_with_what_the_old_one_knew() -> None:
    clock, store = Clock(), Memory()
    fleet, before = Fleet(clock), policy(clock, store)
    for _ in range(60):
        before(fleet.pass_second())
    for _ in range(8):  # nobody looks; the counters go on
        fleet.pass_second()
    after = policy(clock, store)
    assert after(fleet.pass_second())[0] == 2  # a base line: what came meanwhile is no burst
    assert after(fleet.pass_second())[0] == after(fleet.pass_second())[0] == 2
    newest = store.decisions()[-1]
    assert newest["arrivals_rps"] == pytest.approx(120.0)
    assert newest["mean_service_ms"] == pytest.approx(10.0, rel=0.01)


@pytest.mark.parametrize(
    ("changed", "fits"),
    [({}, 5), ({"slo_ms": 30}, 0), ({"quantile": 0.99}, 0), ({"max_ongoing": 8}, 0)],
)
def test_a_capacity_table_for_another_objective_is_not_taken_up(
    changed: dict[str, Any], fits: int
) -> None:
    clock, store = Clock(), Memory()
    fleet, before = Fleet(clock), policy(clock, store, fit_steps=10_000)
    for _ in range(40):
        before(fleet.pass_second())
    after = policy(clock, store, fit_steps=0, **changed)  # fits nothing of its own
    for _ in range(12):
        after(fleet.pass_second())
    kept = json.loads(store["scaling-memory/treeline/ModelServer"])["state"]
    assert len(kept["capacity"]["fits"]) == fits
    assert kept["service"]["requests"] > 0


@pytest.mark.parametrize("kept", [b"{", b"{}", b'{"saved_at_s": 1.7e9, "state": {"version": 0}}'])
def test_a_memory_that_cannot_be_read_is_left_alone(kept: bytes) -> None:
    clock, fleet = Clock(), Fleet(Clock())
    scaler = policy(clock, Memory({"scaling-memory/treeline/ModelServer": kept}))
    assert scaler(fleet.pass_second())[0] == 2


def test_an_old_memory_is_not_taken_up() -> None:
    clock, store = Clock(), Memory()
    fleet, before = Fleet(clock), policy(clock, store)
    for _ in range(30):
        before(fleet.pass_second())
    clock.now_s += 600.0
    after = policy(clock, store)
    after(fleet.pass_second())
    assert store.decisions()[-1]["mean_service_ms"] is None
