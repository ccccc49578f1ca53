"""The latency policy for all deployments of an application, under one CPU budget.

Ray Serve takes it as the application's policy; each deployment still has its own bounds:

    applications:
      - name: shop
        import_path: shop.app:build
        autoscaling_policy:
          policy_function: autoscaling.serve_budget:LatencyBudgetPolicy
          policy_kwargs:
            budget_cpus: 16
            deployments:
              Ranking: {slo_ms: 100, cpus: 2}
              Fraud: {slo_ms: 200, quantile: 0.99, caution: 1.0}
        deployments:
          - name: Ranking
            autoscaling_config: {min_replicas: 1, max_replicas: 8, ...}

Each deployment is judged as by ``LatencyPolicy``. While what they want fits the budget all get it;
else ``autoscaling.policy.budget`` divides it. A deployment that the settings do not name is scaled
with the defaults. Nothing here raises once it is made: see ``serve_policy``.
"""

import dataclasses
import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from autoscaling.cluster_store import ClusterStore
from autoscaling.errors import ConfigError
from autoscaling.policy.budget import claim_of, divide
from autoscaling.policy.decide import Decision
from autoscaling.policy.types import Config, Term
from autoscaling.scaler import DeploymentScaler, OncePerMinute, ScalingContext, Store
from autoscaling.serve_policy import config_of

logger = logging.getLogger("ray.serve.treeline.scaling")

INTERVAL_S: Final = 1.0


class LatencyBudgetPolicy:
    """Keeps the CPUs of an application's autoscaled replicas within ``budget_cpus``.

    ``deployments`` gives, by deployment, the keyword arguments of ``LatencyPolicy`` and ``cpus``,
    what one replica takes (1, as in ``ray_actor_options``). Minimums are kept even above the
    budget. Raises ConfigError for what cannot be meant.
    """

    def __init__(
        self,
        *,
        budget_cpus: float,
        deployments: Mapping[str, Mapping[str, Any]] | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        store: Store | None = None,
    ) -> None:
        self._budget_cpus = _positive("budget_cpus", budget_cpus)
        self._cpus: dict[str, float] = {}
        self._configs: dict[str, Config] = {}
        for name, options in (deployments or {}).items():
            rest = dict(options)
            self._cpus[name] = _positive(f"deployments.{name}.cpus", rest.pop("cpus", 1.0))
            self._configs[name] = config_of(rest)
        self._clock = clock
        self._wall_clock = wall_clock
        self._store = ClusterStore() if store is None else store
        self._scalers: dict[str, DeploymentScaler] = {}
        self._next_s = -math.inf
        self._complaints = OncePerMinute()

    def __call__(
        self, contexts: Mapping[Any, ScalingContext]
    ) -> tuple[dict[Any, int], dict[Any, dict[str, Any]]]:
        """Return a target and Ray's own state for each deployment id. Holds whatever goes wrong."""
        now_s = self._clock()
        targets = {key: context.target_num_replicas for key, context in contexts.items()}
        if now_s >= self._next_s:
            self._next_s = now_s + INTERVAL_S
            try:
                by_name = {context.deployment_name: context for context in contexts.values()}
                decided = self._decide(by_name, now_s)
                targets |= {
                    key: decided[context.deployment_name]
                    for key, context in contexts.items()
                    if context.deployment_name in decided
                }
            except Exception:
                if self._complaints.due(now_s):
                    logger.exception("scaling of the application holds at %s", targets)
        return targets, {key: context.policy_state or {} for key, context in contexts.items()}

    def _decide(self, contexts: Mapping[str, ScalingContext], now_s: float) -> dict[str, int]:
        """Judge every deployment, divide the budget, tell each; one not known yet keeps its own."""
        decisions = {
            name: decision
            for name, context in contexts.items()
            if (decision := self._scaler(name).judge(context, now_s)) is not None
        }
        waiting = contexts.keys() - decisions.keys()
        kept_cpus = sum(
            contexts[name].target_num_replicas * self._cpus.get(name, 1.0) for name in waiting
        )
        claims = {
            name: claim_of(
                decision,
                self._scaler(name).bounded(contexts[name]),
                cpus=self._cpus.get(name, 1.0),
                serving=len(contexts[name].running_replicas),
            )
            for name, decision in decisions.items()
        }
        granted = divide(claims, self._budget_cpus - kept_cpus)
        for name, decision in decisions.items():
            final = _granted(decision, granted[name], self._budget_cpus)
            self._scaler(name).tell(contexts[name], final, now_s)
        return granted

    def _scaler(self, name: str) -> DeploymentScaler:
        if name not in self._scalers:
            config = self._configs.get(name, Config())
            self._scalers[name] = DeploymentScaler(config, self._wall_clock, self._store)
        return self._scalers[name]


def _granted(decision: Decision, replicas: int, budget_cpus: float) -> Decision:
    """The decision as the budget allows it."""
    if replicas == decision.target:
        return decision
    return dataclasses.replace(
        decision,
        target=replicas,
        term=Term.BUDGET,
        reason=f"{decision.target} wanted, {budget_cpus:g} CPUs allow {replicas}; "
        f"{decision.reason}",
    )


def _positive(key: str, value: Any) -> float:
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    if not numeric or not 0 < value < math.inf:
        raise ConfigError(key, value, "a number above 0")
    return float(value)
