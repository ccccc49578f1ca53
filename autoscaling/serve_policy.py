"""Ray Serve's side of the latency policy: its context in, ``decide``, its answer out.

Name the class in a Serve config:

    autoscaling_config:
      min_replicas: 1
      max_replicas: 10
      upscale_delay_s: 0      # Ray wraps every policy with its own delays; `decide` has its own
      downscale_delay_s: 0
      metrics_interval_s: 1
      look_back_period_s: 5
      policy:
        policy_function: autoscaling.serve_policy:LatencyPolicy
        policy_kwargs: {slo_ms: 200, quantile: 0.95}

The controller calls it about ten times a second, and an exception would stop the scaling of every
application: so it never raises, it always returns a state, and it works once per ``interval_s``.
Its memory lives in the instance and, every ten seconds, in Ray's key-value store: after a restart
of the controller it holds until the replicas report, and then judges by what it knew before.
"""

import dataclasses
import json
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import msgspec

from autoscaling.errors import ConfigError
from autoscaling.policy.capacity import CapacityState
from autoscaling.policy.decide import Decision, decide
from autoscaling.policy.feedback import FeedbackState
from autoscaling.policy.state import State, StateError, from_dict, to_dict
from autoscaling.policy.telemetry import TelemetryState
from autoscaling.policy.types import Config, Observation
from autoscaling.signals import read_reports
from autoscaling.start_clock import StartClock

logger = logging.getLogger("ray.serve.treeline.scaling")

KV_NAMESPACE: Final = b"treeline"
KEPT_DECISIONS: Final = 300
TELL_S: Final = 2.0
COMPLAIN_S: Final = 60.0
#: A new policy waits so long for a word from every replica: see ``_all_known``.
SETTLE_S: Final = 5.0
FROM_RAY: Final = ("min_replicas", "max_replicas")

#: How often the memory is saved, and how old it may be to be taken up again.
SAVE_S: Final = 10.0
STALE_S: Final = 120.0


class Store(Protocol):
    """Small values that outlive the controller and can be read on every node."""

    def put(self, key: str, value: bytes) -> None: ...

    def get(self, key: str) -> bytes | None: ...


class ScalingContext(Protocol):
    """The part of Ray Serve's ``AutoscalingContext`` that is used."""

    app_name: str | None
    deployment_name: str
    target_num_replicas: int
    running_replicas: Any
    raw_metrics: Any
    total_queued_requests: Any
    capacity_adjusted_min_replicas: int
    capacity_adjusted_max_replicas: int
    policy_state: dict[str, Any]


class ClusterStore:
    """Ray's own key-value store."""

    def put(self, key: str, value: bytes) -> None:
        from ray.experimental.internal_kv import _internal_kv_put

        _internal_kv_put(key.encode(), value, overwrite=True, namespace=KV_NAMESPACE)

    def get(self, key: str) -> bytes | None:
        from ray.experimental.internal_kv import _internal_kv_get

        value: bytes | None = _internal_kv_get(key.encode(), namespace=KV_NAMESPACE)
        return value


def scaling_key(app_name: str, deployment: str) -> str:
    """Where the decisions of a deployment are told."""
    return f"scaling/{app_name}/{deployment}"


def memory_key(app_name: str, deployment: str) -> str:
    """Where the policy keeps what it knows of a deployment."""
    return f"scaling-memory/{app_name}/{deployment}"


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """What the policy knew of a deployment at ``saved_at_s``, Unix time; see ``policy.state``.

    ``fitted_for`` is what its capacity table and its correction hold for: ``slo_ms``, ``quantile``
    and ``max_ongoing``.
    """

    saved_at_s: float
    state: dict[str, Any]
    fitted_for: tuple[float, float, int] | None = None


class DeploymentScaler:
    """Judges one deployment when it is asked to, remembers, and tells what came of it."""

    def __init__(self, config: Config, wall_clock: Callable[[], float], store: Store) -> None:
        self._config = config
        self._wall_clock = wall_clock
        self._store = store
        self._state: State | None = None
        self._starts = StartClock()
        self._decisions: deque[dict[str, Any]] = deque(maxlen=KEPT_DECISIONS)
        self._begun_s: float | None = None
        self._settled = False
        self._told_s = -math.inf
        self._knew = False
        self._saved_s = -math.inf
        self._complaints = OncePerMinute()

    def bounded(self, context: ScalingContext) -> Config:
        """What is wanted, within Ray's own bounds."""
        return dataclasses.replace(
            self._config,
            min_replicas=context.capacity_adjusted_min_replicas,
            max_replicas=max(context.capacity_adjusted_max_replicas, 1),
        )

    def judge(self, context: ScalingContext, now_s: float) -> Decision | None:
        """Decide and remember; None while the replicas' counters are not known yet."""
        target, running = context.target_num_replicas, len(context.running_replicas)
        config = self.bounded(context)
        reports = read_reports(context.raw_metrics or {}, slo_s=config.slo_s)
        if not self._all_known(len(reports), running, now_s):
            return None
        observation = Observation(
            now_s=now_s,
            target=target,
            running=running,
            reports=reports,
            router_queued=float(context.total_queued_requests or 0.0),
            startups_s=self._starts.observe(target, running, now_s),
        )
        if self._state is None:
            self._state = self._recall(context)
        decision = decide(observation, self._state, config)
        self._state = decision.state
        self._save(context, now_s)
        return decision

    def _recall(self, context: ScalingContext) -> State:
        """What was known before the controller restarted; nothing where that is no use.

        The counters it had seen are forgotten: what came meanwhile would pass for a burst. So is
        what was learned about another objective.
        """
        try:
            kept = self._store.get(memory_key(context.app_name or "", context.deployment_name))
        except Exception:
            logger.exception("scaling of %s starts afresh", context.deployment_name)
            return State()
        if kept is None:
            return State()
        try:
            memory = msgspec.json.decode(kept, type=Memory)
            state = from_dict(memory.state)
        except (msgspec.DecodeError, StateError) as exc:
            logger.warning("scaling of %s starts afresh: %s", context.deployment_name, exc)
            return State()
        age_s = self._wall_clock() - memory.saved_at_s
        if not 0 <= age_s <= STALE_S:
            return State()
        logger.info("scaling of %s goes on after %.0f s away", context.deployment_name, age_s)
        state = dataclasses.replace(state, telemetry=TelemetryState())
        if memory.fitted_for == _fitted_for(self._config):
            return state
        return dataclasses.replace(state, capacity=CapacityState(), feedback=FeedbackState())

    def _save(self, context: ScalingContext, now_s: float) -> None:
        if self._state is None or now_s - self._saved_s < SAVE_S:
            return
        self._saved_s = now_s
        memory = Memory(
            saved_at_s=self._wall_clock(),
            state=to_dict(self._state),
            fitted_for=_fitted_for(self._config),
        )
        key = memory_key(context.app_name or "", context.deployment_name)
        self._put(key, msgspec.json.encode(memory), now_s)

    def _put(self, key: str, value: bytes, now_s: float) -> None:
        """Write to the store; what fails is tried again with the next value."""
        try:
            self._store.put(key, value)
        except Exception:
            if self._complaints.due(now_s):
                logger.exception("scaling goes on, but %s is not written", key)

    def _all_known(self, reporting: int, running: int, now_s: float) -> bool:
        """Whether to begin: each replica has reported, or has had its time to.

        After a controller restart old replicas report one by one, with counters of hours. The first
        look takes all of them as its base line; one that came later would pass for a burst.
        """
        if self._begun_s is None:
            self._begun_s = now_s
        self._settled |= 0 < running <= reporting or now_s - self._begun_s >= SETTLE_S
        return self._settled

    def tell(self, context: ScalingContext, decision: Decision, now_s: float) -> None:
        """Write the decision where people look: changes into the log, all for the replicas."""
        before = context.target_num_replicas
        self._decisions.append(
            {
                "ts": self._wall_clock(),
                "target": decision.target,
                "before": before,
                "running": len(context.running_replicas),
                "term": str(decision.term),
                "reason": decision.reason,
                **_numbers(decision),
            }
        )
        changed = decision.target != before
        if changed:
            logger.info(
                "scaling %s from %d to %d: %s",
                context.deployment_name,
                before,
                decision.target,
                decision.reason,
            )
        known = decision.judgement.mean_service_ms > 0
        if changed or known != self._knew or now_s - self._told_s >= TELL_S:
            self._knew = known
            self._told_s = now_s
            key = scaling_key(context.app_name or "", context.deployment_name)
            value = {
                "slo_ms": self._config.slo_ms,
                "quantile": self._config.quantile,
                "decisions": list(self._decisions),
            }
            self._put(key, json.dumps(value).encode(), now_s)


class LatencyPolicy:
    """Holds ``quantile`` of requests within ``slo_ms``; see docs/autoscaling.md.

    Keyword arguments are those of ``autoscaling.policy.types.Config``, bounds apart: these are
    Ray's own ``min_replicas`` and ``max_replicas``. Raises ConfigError, which names key, value and
    what is allowed.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        store: Store | None = None,
        **options: Any,
    ) -> None:
        config = config_of(options)
        self._scaler = DeploymentScaler(
            config, wall_clock, ClusterStore() if store is None else store
        )
        self._clock = clock
        self._interval_s = config.interval_s
        self._next_s = -math.inf
        self._complaints = OncePerMinute()

    def __call__(self, context: ScalingContext) -> tuple[int, dict[str, Any]]:
        """Return the target and Ray's own state untouched. Holds whatever goes wrong."""
        now_s = self._clock()
        target = context.target_num_replicas
        if now_s >= self._next_s:
            self._next_s = now_s + self._interval_s
            try:
                decision = self._scaler.judge(context, now_s)
                if decision is not None:
                    self._scaler.tell(context, decision, now_s)
                    target = decision.target
            except Exception:
                if self._complaints.due(now_s):
                    logger.exception("scaling of %s holds at %d", context.deployment_name, target)
        return target, context.policy_state or {}


class OncePerMinute:
    """Lets through the first of many complaints, and one a minute."""

    def __init__(self) -> None:
        self._last_s = -math.inf

    def due(self, now_s: float) -> bool:
        if now_s - self._last_s < COMPLAIN_S:
            return False
        self._last_s = now_s
        return True


def config_of(options: Mapping[str, Any]) -> Config:
    """Read a policy's keyword arguments; ConfigError names the key, the value, what is allowed."""
    allowed = [f.name for f in dataclasses.fields(Config) if f.name not in FROM_RAY]
    for key, value in options.items():
        if key not in allowed:
            raise ConfigError(key, value, f"one of the keys {', '.join(allowed)}")
    return Config(**options)


def _fitted_for(config: Config) -> tuple[float, float, int]:
    return config.slo_ms, config.quantile, config.max_ongoing


def _numbers(decision: Decision) -> dict[str, Any]:
    """The judgement as JSON takes it: what is not known is null."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in dataclasses.asdict(decision.judgement).items()
    }
