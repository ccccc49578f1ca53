"""The offline optimum: the least replica-seconds that hold the objective in hindsight.

Method. The oracle knows the rate of every second. In each second it needs ``n(t)``, the fewest
replicas whose steady share of requests in time is at least ``quantile`` at that rate (simulated:
``stationary.capacity_rps``). A replica costs one replica-second per second, and each start costs
its cold start on top; the oracle orders early enough to have it ready on time.

Costs add up over replicas, so the k-th replica can be planned alone: it must be on whenever
``n(t) >= k``, and staying on through a gap is worth it exactly when the gap is shorter than a
cold start. This is the exact minimum of the problem as stated; the tests compare it with trying
every schedule.
"""

import numpy as np
from numpy.typing import NDArray

from autoscaling.simulator.arrivals import Trace
from autoscaling.simulator.run import View
from autoscaling.simulator.scenario import Scenario
from autoscaling.simulator.stationary import capacity_rps


def replicas_needed(
    rps: NDArray[np.float64], capacity: NDArray[np.float64], min_replicas: int
) -> NDArray[np.int64]:
    """Fewest replicas for each second; ``capacity[c - 1]`` is what ``c`` replicas can take.

    A second without load needs ``min_replicas``; above the capacity of all, all of them.
    """
    needed = np.searchsorted(capacity, rps) + 1
    needed = np.where(rps > 0, needed, 0)
    return np.clip(needed, min_replicas, len(capacity))


def cheapest_schedule(needed: NDArray[np.int64], cold_start_s: float) -> NDArray[np.int64]:
    """Replicas that are ready in each second at the least cost, starts included."""
    ready = np.zeros_like(needed)
    for level in range(1, int(needed.max(initial=0)) + 1):
        on = np.flatnonzero(needed >= level)
        ready[on] += 1
        before = np.append(-1, on)  # a replica may also be there from the first second on
        gaps = np.flatnonzero(np.diff(before) > 1)
        for gap in gaps:
            start, end = before[gap] + 1, before[gap + 1]
            if end - start < cold_start_s:
                ready[start:end] += 1
    return ready


def schedule_cost_s(ready: NDArray[np.int64], cold_start_s: float) -> float:
    """Replica-seconds of a schedule: one per ready replica and second, a cold start per start.

    The replicas of the first second are there already.
    """
    starts = np.maximum(np.diff(ready), 0).sum()
    return float(ready.sum() + starts * cold_start_s)


def oracle_schedule(trace: Trace, scenario: Scenario) -> NDArray[np.int64]:
    """Ready replicas per second of the optimal plan for the scored part of a trace."""
    rps = trace.rps[scenario.unscored_s :]
    needed = replicas_needed(rps, capacity_rps(scenario), scenario.min_replicas)
    return cheapest_schedule(needed, scenario.cold_start_s)


def oracle_replica_hours(trace: Trace, scenario: Scenario) -> float:
    """Replica-hours of the optimal plan for the scored part of a trace."""
    return schedule_cost_s(oracle_schedule(trace, scenario), scenario.cold_start_s) / 3600.0


class OracleAutoscaler:
    """The optimal plan as an autoscaler: orders each replica its cold start (and spread) ahead."""

    reason = "plan"

    def __init__(self, scenario: Scenario, trace: Trace) -> None:
        needed = replicas_needed(trace.rps, capacity_rps(scenario), scenario.min_replicas)
        ready = cheapest_schedule(needed, scenario.cold_start_s)
        ahead = int(np.ceil(scenario.cold_start_s * (1 + 2 * scenario.cold_start_cv)))
        padded = np.append(ready, np.repeat(ready[-1], ahead))
        self._orders = np.max([padded[i : i + len(ready)] for i in range(ahead + 1)], axis=0)

    def wanted(self, view: View) -> int:
        """Return the plan's number for this second."""
        return int(self._orders[min(int(view.now_s), len(self._orders) - 1)])
