"""Whatever the telemetry says: bounds hold, nothing raises, no way down while requests are late."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaling.policy import buckets, telemetry
from autoscaling.policy.decide import decide
from autoscaling.policy.state import State, from_dict, to_dict
from autoscaling.policy.telemetry import COMPLETED, WITHIN, ReplicaReport
from autoscaling.policy.types import Config, Observation, Term

BAD = (math.nan, math.inf, -math.inf, -1.0, 1e300, 0.0)


class Liar:
    """A service whose replicas report honestly at times and nonsense at others."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.now_s = float(self.rng.uniform(0, 1e9))
        self.counters: dict[str, np.ndarray] = {}
        self.late = False

    def observe(self, target: int) -> Observation:
        rng = self.rng
        self.now_s += float(rng.choice([1.0, 1.0, 1.0, 1.0, 0.1, 0.0, 7.0, -3600.0, 86400.0]))
        running = max(target + int(rng.integers(-2, 2)), 0) if rng.random() < 0.9 else 0
        if rng.random() < 0.02:
            self.late = not self.late
        reports = tuple(self._report(f"r{i}") for i in range(min(running, 12)))
        if rng.random() < 0.1:
            reports = ()
        return Observation(
            now_s=math.nan if rng.random() < 0.01 else self.now_s,
            target=target,
            running=running,
            reports=reports,
            router_queued=self._maybe_bad(float(rng.integers(0, 500)), 0.05),
            startups_s=(self._maybe_bad(float(rng.uniform(1, 20)), 0.3),)
            if rng.random() < 0.1
            else (),
        )

    def _maybe_bad(self, value: float, chance: float) -> float:
        return float(self.rng.choice(BAD)) if self.rng.random() < chance else value

    def _report(self, replica_id: str) -> ReplicaReport:
        rng = self.rng
        c = self.counters.get(replica_id)
        if c is None or rng.random() < 0.01:
            c = self.counters[replica_id] = np.zeros(5)
        done = int(rng.integers(0, 60))
        service_s = float(rng.uniform(0.001, 0.05))
        c[0] += done + int(rng.integers(0, 3))
        c[1] += done
        c[2] += 0 if self.late else done
        c[3] += done * service_s
        c[4] += done * service_s**2
        counts = np.zeros(buckets.COUNT)
        counts[buckets.bucket_of(service_s)] = c[1]
        bad = rng.random() < 0.05
        return ReplicaReport(
            replica_id=replica_id,
            at_s=self._maybe_bad(self.now_s, 0.02),
            accepted=self._maybe_bad(float(c[0]), 0.3 if bad else 0.0),
            completed=self._maybe_bad(float(c[1]), 0.3 if bad else 0.0),
            within=self._maybe_bad(float(c[2]), 0.3 if bad else 0.0),
            service_s_sum=self._maybe_bad(float(c[3]), 0.3 if bad else 0.0),
            service_s_sumsq=self._maybe_bad(float(c[4]), 0.3 if bad else 0.0),
            service_counts=counts[: 7 if bad and rng.random() < 0.2 else None],
            ongoing=self._maybe_bad(float(rng.integers(0, 9)), 0.02),
            queued=self._maybe_bad(0.0, 0.02),
        )


def drive(seed: int, steps: int, config: Config) -> None:
    liar = Liar(seed)
    state, target = State(), config.min_replicas
    for step in range(steps):
        observation = liar.observe(target)
        decision = decide(observation, state, config)
        assert config.min_replicas <= decision.target <= config.max_replicas
        assert decision.reason
        elapsed = decision.state.steady_s - state.steady_s
        if elapsed > 0:
            flow, _ = telemetry.merge(
                observation.reports,
                observation.router_queued,
                state.telemetry,
                steady_s=decision.state.steady_s,
                elapsed_s=elapsed,
            )
            if flow.counts[WITHIN] < config.quantile * flow.counts[COMPLETED]:
                assert decision.target >= observation.target
        state, target = decision.state, decision.target
        if step % 500 == 499:  # the controller restarts, with or without its state
            kept = json.loads(json.dumps(to_dict(state)))
            state = from_dict(kept) if liar.rng.random() < 0.5 else State()


@given(seed=st.integers(0, 2**32 - 1), quantile=st.sampled_from([0.5, 0.95, 0.99]))
@settings(max_examples=5, deadline=None)
def test_hostile_telemetry_is_survived(seed, quantile):
    with np.errstate(all="raise", under="ignore"):
        drive(seed, 120, Config(quantile=quantile, min_replicas=2, max_replicas=20, fit_steps=3))


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_a_million_hostile_steps_are_survived():
    for seed in range(100):
        drive(seed, 10_000, Config(min_replicas=1, max_replicas=30))


def test_without_telemetry_the_target_stays():
    config = Config()
    liar = Liar(1)
    state = State()
    for _ in range(30):
        state = decide(liar.observe(5), state, config).state
    observation = liar.observe(5)
    for i in range(20):
        silent = type(observation)(now_s=liar.now_s + 60 + i, target=7, running=7)
        decision = decide(silent, state, config)
        state = decision.state
    assert (decision.target, decision.term) == (7, Term.NO_DATA)
