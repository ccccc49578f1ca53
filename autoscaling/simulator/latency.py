"""Our policy inside the simulator: builds the same observation that Ray Serve's adapter builds."""

from autoscaling.policy.decide import decide
from autoscaling.policy.state import State
from autoscaling.policy.telemetry import ReplicaReport
from autoscaling.policy.types import Config, Observation, Term
from autoscaling.simulator.run import View
from autoscaling.simulator.scenario import Scenario


def observe(view: View) -> Observation:
    """Write a view of the simulated cluster as the policy's observation."""
    seen = view.telemetry
    counters, ongoing = seen.counters.tolist(), seen.ongoing.tolist()
    reports = tuple(
        ReplicaReport(
            replica_id=replica_id,
            at_s=seen.at_s,
            accepted=counters[i][0],
            completed=counters[i][1],
            within=counters[i][2],
            service_s_sum=counters[i][3],
            service_s_sumsq=counters[i][4],
            service_counts=seen.service_counts[i],
            ongoing=ongoing[i],
        )
        for i, replica_id in enumerate(seen.replica_ids)
    )
    return Observation(
        now_s=view.now_s,
        target=view.target,
        running=view.running,
        reports=reports,
        router_queued=float(seen.queued),
        startups_s=tuple(s.running_s - s.requested_s for s in view.startups),
    )


class LatencyAutoscaler:
    """``decide`` with its state, for one run."""

    def __init__(
        self, scenario: Scenario, caution: float = 0.5, max_ongoing: int | None = None
    ) -> None:
        """``max_ongoing`` is what the policy believes, where that is not the scenario's truth."""
        self._config = Config(
            slo_ms=scenario.slo_ms,
            quantile=scenario.quantile,
            min_replicas=scenario.min_replicas,
            max_replicas=scenario.max_replicas,
            max_ongoing=max_ongoing or scenario.max_ongoing,
            interval_s=float(scenario.interval_s),
            caution=caution,
        )
        self._state = State()
        self._term = Term.WARMING

    @property
    def reason(self) -> str:
        """The term that won the last decision."""
        return self._term.value

    def wanted(self, view: View) -> int:
        """Decide."""
        decision = decide(observe(view), self._state, self._config)
        self._state, self._term = decision.state, decision.term
        return decision.target
