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
import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from autoscaling.cluster_store import ClusterStore
from autoscaling.errors import ConfigError
from autoscaling.policy.types import Config
from autoscaling.scaler import DeploymentScaler, OncePerMinute, ScalingContext, Store

logger = logging.getLogger("ray.serve.treeline.scaling")

FROM_RAY: Final = ("min_replicas", "max_replicas")


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


def config_of(options: Mapping[str, Any]) -> Config:
    """Read a policy's keyword arguments; ConfigError names the key, the value, what is allowed."""
    allowed = [f.name for f in dataclasses.fields(Config) if f.name not in FROM_RAY]
    for key in options:
        if key not in allowed:
            raise ConfigError("key", key, f"one of {', '.join(allowed)}")
    return Config(**options)
