"""One deployment, judged again and again: what is known of it, and what came of it."""

import dataclasses
import json
import logging
import math
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

import msgspec

from autoscaling.cluster_store import memory_key, scaling_key
from autoscaling.policy.capacity import CapacityState
from autoscaling.policy.decide import Decision, decide
from autoscaling.policy.feedback import FeedbackState
from autoscaling.policy.state import State, StateError, from_dict, to_dict
from autoscaling.policy.telemetry import TelemetryState
from autoscaling.policy.types import Config, Observation
from autoscaling.signals import read_reports
from autoscaling.start_clock import StartClock

logger = logging.getLogger("ray.serve.treeline.scaling")

KEPT_DECISIONS: Final = 300
TELL_S: Final = 2.0
COMPLAIN_S: Final = 60.0
#: A new policy waits so long for a word from every replica: see ``_all_known``.
SETTLE_S: Final = 5.0

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


class OncePerMinute:
    """Lets through the first of many complaints, and one a minute."""

    def __init__(self) -> None:
        self._last_s = -math.inf

    def due(self, now_s: float) -> bool:
        if now_s - self._last_s < COMPLAIN_S:
            return False
        self._last_s = now_s
        return True


def _fitted_for(config: Config) -> tuple[float, float, int]:
    return config.slo_ms, config.quantile, config.max_ongoing


def _numbers(decision: Decision) -> dict[str, Any]:
    """The judgement as JSON takes it: what is not known is null."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in dataclasses.asdict(decision.judgement).items()
    }
