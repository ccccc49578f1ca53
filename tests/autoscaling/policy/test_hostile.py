"""Whatever the telemetry says: bounds hold, nothing raises, no way down while requests are late."""

import json
import math
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaling.policy import buckets, telemetry
from autoscaling.policy.decide import Decision, decide
from autoscaling.policy.state import State, from_dict, to_dict
from autoscaling.policy.telemetry import COMPLETED, WITHIN, ReplicaReport
from autoscaling.policy.types import Config, Observation, Term

NOT_TRUE: tuple[Any, ...] = (math.nan, math.inf, -math.inf, -1.0, 1e300, 10**400, 0.0)
NO_NUMBER: tuple[Any, ...] = (None, "many", b"7", [], {}, object(), 1j, (3, 4))
FIELDS = (
    "at_s",
    "accepted",
    "completed",
    "within",
    "service_s_sum",
    "service_s_sumsq",
    "ongoing",
    "queued",
)
SERVICE_COUNTS: tuple[Any, ...] = (
    np.zeros(7),
    np.full(buckets.COUNT, math.nan),
    -np.ones(buckets.COUNT),
    ["x"] * buckets.COUNT,
    np.zeros((buckets.COUNT, 2)),
    None,
    3.0,
)
JUMPS_S = (1.0, 1.0, 1.0, 1.0, 1.0, 0.1, 0.0, 7.0, 40.0, -1.0, -3600.0, 86_400.0)


class Liar:
    """A service whose replicas report honestly at times and nonsense at others.

    ``excess_late`` is by how much too many requests were late since the last observation; None
    when its word and the one before were not both complete and honest.
    """

    def __init__(self, seed: int, quantile: float) -> None:
        self.rng = np.random.default_rng(seed)
        self.quantile = quantile
        self.now_s = float(self.rng.uniform(0, 1e9))
        self.counters: dict[str, np.ndarray] = {}
        self.sent: list[ReplicaReport] = []
        self.late = False
        self.stuck = False
        self.honest_before: tuple[str, ...] | None = None
        self.excess_late: float | None = None

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def pick(self, values: tuple[Any, ...]) -> Any:
        return values[int(self.rng.integers(len(values)))]

    def observe(self, target: int) -> Observation:
        step_s = self.pick(JUMPS_S) if self.chance(0.2) else 1.0
        self.now_s += step_s
        self.late ^= self.chance(0.02)
        self.stuck ^= self.chance(0.01)
        running = min(target, 1) if self.stuck else target
        if self.chance(0.1):
            running = max(running + int(self.rng.integers(-2, 2)), 0)
        ids = tuple(f"r{i}" for i in range(min(running, 12)))
        done, within = 0.0, 0.0
        reports = []
        for replica_id in ids:
            new, in_time = self._work(replica_id)
            done, within = done + new, within + in_time
            reports.append(self._report(replica_id))
        honest = step_s == 1.0 and bool(ids)
        comparable = honest and self.honest_before == ids
        self.excess_late = self.quantile * done - within if comparable else None
        self.honest_before = ids if honest else None
        observation = Observation(
            now_s=self.now_s, target=target, running=running, reports=tuple(reports)
        )
        if self.chance(0.5):
            return observation
        self.honest_before = self.excess_late = None
        return self._lie(observation)

    def _work(self, replica_id: str) -> tuple[float, float]:
        """Let a replica do some requests, and now and then start anew."""
        c = self.counters.get(replica_id)
        if c is None or self.chance(0.01):
            c = self.counters[replica_id] = np.zeros(5)
            self.honest_before = None
        done = int(self.rng.integers(0, 60))
        service_s = float(self.rng.uniform(0.001, 0.05))
        within = 0 if self.late else done
        c += (done, done, within, done * service_s, done * service_s**2)
        return done, within

    def _report(self, replica_id: str) -> ReplicaReport:
        c = self.counters[replica_id]
        counts = np.zeros(buckets.COUNT)
        counts[buckets.bucket_of(0.02)] = c[1]
        report = ReplicaReport(
            replica_id=replica_id,
            at_s=self.now_s,
            accepted=float(c[0]),
            completed=float(c[1]),
            within=float(c[2]),
            service_s_sum=float(c[3]),
            service_s_sumsq=float(c[4]),
            service_counts=counts,
            ongoing=float(self.rng.integers(0, 9)),
        )
        self.sent = [*self.sent[-40:], report]
        return report

    def _lie(self, observation: Observation) -> Observation:
        reports = [self._spoil(r) if self.chance(0.2) else r for r in observation.reports]
        if self.chance(0.2):
            reports += [self.pick(tuple(self.sent)) for _ in range(3) if self.sent]
        if self.chance(0.2):
            reports = [self.pick(tuple(reports)) for _ in reports]  # some lost, some doubled
        if self.chance(0.1):
            reports = []
        lied: dict[str, Any] = {"reports": tuple(reports)}
        if self.chance(0.2):
            lied["router_queued"] = self.pick((*NOT_TRUE, *NO_NUMBER, 40.0, 1e9))
        if self.chance(0.2):
            lied["startups_s"] = (self.pick((*NOT_TRUE, *NO_NUMBER, 3.0, 20.0)),)
        if self.chance(0.05):
            lied["now_s"] = self.pick((math.nan, math.inf, *NO_NUMBER))
        if self.chance(0.05):
            lied["running"] = self.pick((*NOT_TRUE, *NO_NUMBER, 10**9))
        if self.chance(0.02):
            lied["target"] = self.pick((*NOT_TRUE, *NO_NUMBER, 10**9))
        return replace(observation, **lied)

    def _spoil(self, report: ReplicaReport) -> ReplicaReport:
        if self.chance(0.2):
            return replace(report, service_counts=self.pick(SERVICE_COUNTS))
        if self.chance(0.05):
            return replace(report, replica_id=self.pick((None, 7, ["r0"], "")))
        lies = {self.pick(FIELDS): self.pick(NOT_TRUE + NO_NUMBER) for _ in range(2)}
        return replace(report, **lies)


def check(
    liar: Liar, observation: Observation, before: State, decision: Decision, config: Config
) -> None:
    assert isinstance(decision.target, int)
    lowest = config.min_replicas if config.idle_s is None else 0
    assert lowest <= decision.target <= config.max_replicas
    assert decision.reason
    if not isinstance(observation.target, int) or observation.target > config.max_replicas:
        return
    if decision.target >= observation.target:
        return
    assert decision.term not in (Term.NO_DATA, Term.WAIT)
    assert liar.excess_late is None or liar.excess_late <= 1e-6  # by the liar's own books
    elapsed_s = decision.state.steady_s - before.steady_s
    flow, _ = telemetry.merge(
        observation.reports,
        0.0,
        before.telemetry,
        steady_s=decision.state.steady_s,
        elapsed_s=elapsed_s,
    )
    assert flow.counts[WITHIN] >= config.quantile * flow.counts[COMPLETED]  # by what was believed


def drive(seed: int, steps: int, config: Config) -> int:
    """Run the policy against a liar; returns how often the liar's own books forbade going down.

    What fails says at which step of which seed.
    """
    liar = Liar(seed, config.quantile)
    state, target, forbidden = State(), config.min_replicas, 0
    for step in range(steps):
        observation = liar.observe(target)
        try:
            decision = decide(observation, state, config)
            check(liar, observation, state, decision, config)
        except Exception as error:
            error.add_note(f"seed {seed}, step {step}, {config}")
            raise
        forbidden += liar.excess_late is not None and liar.excess_late > 0
        state, target = decision.state, decision.target
        if liar.chance(0.002):  # the controller restarts, with or without its state
            kept = json.loads(json.dumps(to_dict(state), allow_nan=False))
            state = from_dict(kept) if liar.chance(0.5) else State()
            liar.honest_before = None
    return forbidden


@given(seed=st.integers(0, 2**32 - 1), quantile=st.sampled_from([0.5, 0.95, 0.99]))
@settings(max_examples=8, deadline=None)
def test_hostile_telemetry_is_survived(seed, quantile):
    with np.errstate(all="raise", under="ignore"):
        drive(seed, 150, Config(quantile=quantile, min_replicas=2, max_replicas=20, fit_steps=3))


def test_hostile_telemetry_is_survived_for_long_and_the_books_bite():
    config = Config(max_replicas=30)
    assert drive(1, 2_000, config) > 50


def soak_config(seed: int) -> Config:
    """Other objectives, bounds and idle times for other seeds."""
    return Config(
        slo_ms=(200.0, 30.0, 5.0)[seed % 3],
        quantile=(0.95, 0.5, 0.99, 0.95, 0.999)[seed % 5],
        min_replicas=(1, 3)[seed % 2],
        max_replicas=(30, 8)[seed % 4 == 3],
        idle_s=(None, 1.0, 20.0)[seed % 7 % 3],
        fit_steps=5,
    )


def soak(seed: int) -> int:
    with np.errstate(all="raise", under="ignore"):
        return drive(seed, 10_000, soak_config(seed))


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_a_million_hostile_steps_are_survived():
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        for seed, forbidden in enumerate(pool.map(soak, range(100))):
            print(f"seed {seed}: 10,000 steps, down forbidden in {forbidden}", flush=True)
            assert forbidden > 100


def test_without_telemetry_the_target_stays():
    config = Config()
    liar = Liar(1, config.quantile)
    state = State()
    for _ in range(30):
        state = decide(liar.observe(5), state, config).state
    for i in range(20):
        silent = Observation(now_s=liar.now_s + 60 + i, target=7, running=7)
        decision = decide(silent, state, config)
        state = decision.state
    assert (decision.target, decision.term) == (7, Term.NO_DATA)
