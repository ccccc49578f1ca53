"""Simulate the real routing over the measured service times, a few steps at a time.

Closed forms do not know that a request waits behind others inside one replica. So ``SYSTEMS``
independent fleets of ``c`` replicas are simulated, all advanced together by one arrival per step
with NumPy: power of two choices, at most ``max_ongoing`` per replica, one worker, first come first
served. The finish of a request is known when it is placed, as in the simulator's kernel.

What is learned is one number per replica count: the ``stretch``, by which the distance to full
load must be multiplied for the closed form to give the simulated share of late requests. One
number from all systems and loads is steady where a share at a single load would be noisy.

A run is resumable: the policy spends a bounded number of steps per decision. It is deterministic:
its random numbers depend on the replica count and the step only.
"""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from autoscaling.policy import buckets, erlang

#: Expected late shares at which the fleets are loaded, in error budgets.
BUDGETS: Final = (0.4, 0.7, 1.0, 1.5)
#: First guess of the stretch, only used to choose the loads.
USUAL_STRETCH: Final = 1.25
REPEATS: Final = 64
SYSTEMS: Final = len(BUDGETS) * REPEATS


@dataclass(frozen=True, slots=True, kw_only=True)
class FitRun:
    """A run for one replica count, between two steps. Arrays: one line per system."""

    replicas: int
    slo_s: float
    service: NDArray[np.float64]  # bucket weights, sum 1
    loads: NDArray[np.float64]  # [len(BUDGETS)]
    step: int
    arrival_s: NDArray[np.float64]
    placed_s: NDArray[np.float64]
    busy_until_s: NDArray[np.float64]  # [systems, replicas]
    finish_s: NDArray[np.float64]  # [systems, replicas, max_ongoing] last finishes, a ring
    oldest: NDArray[np.int64]  # [systems, replicas] where the ring's oldest finish is
    late: NDArray[np.float64]

    @property
    def warm_up(self) -> int:
        """Steps before late requests are counted; large busy fleets take longer to settle."""
        return 100 + 30 * self.replicas**2

    @property
    def steps(self) -> int:
        """Steps in all."""
        return 2 * self.warm_up

    @property
    def done(self) -> bool:
        """Whether the run is complete."""
        return self.step >= self.steps


def begin(
    replicas: int, max_ongoing: int, slo_s: float, budget: float, counts: NDArray[np.float64]
) -> FitRun:
    """Start a run with empty fleets; ``counts`` is the histogram of service times."""
    service = counts / counts.sum()
    curve = erlang.late_curve(replicas, erlang.LOADS, slo_s, service)
    full = np.interp(np.array(BUDGETS) * budget, np.maximum.accumulate(curve), erlang.LOADS)
    return FitRun(
        replicas=replicas,
        slo_s=slo_s,
        service=service,
        loads=np.maximum(1.0 - USUAL_STRETCH * (1.0 - full), 0.05),
        step=0,
        arrival_s=np.zeros(SYSTEMS),
        placed_s=np.zeros(SYSTEMS),
        busy_until_s=np.zeros((SYSTEMS, replicas)),
        # More than a handful of places per replica changes nothing at loads worth running at.
        finish_s=np.zeros((SYSTEMS, replicas, min(max_ongoing, 16))),
        oldest=np.zeros((SYSTEMS, replicas), np.int64),
        late=np.zeros(SYSTEMS),
    )


def advance(run: FitRun, steps: int) -> FitRun:
    """Do at most ``steps`` more steps."""
    steps = min(steps, run.steps - run.step)
    rng = np.random.default_rng((run.replicas, run.step))
    mean_s = float(run.service @ buckets.MIDDLE_S)
    scale = np.repeat(mean_s / (run.replicas * run.loads), REPEATS)
    gaps = rng.exponential(1.0, (steps, SYSTEMS)) * scale
    picks = rng.random((2, steps, SYSTEMS))
    cumulative = np.cumsum(run.service)
    drawn = np.searchsorted(cumulative, rng.random((steps, SYSTEMS)) * cumulative[-1])
    services = buckets.MIDDLE_S[np.minimum(drawn, buckets.COUNT - 1)]
    n = run.replicas
    first = (picks[0] * n).astype(np.int64)
    second = (first + 1 + (picks[1] * (n - 1)).astype(np.int64)) % n
    moved = replace(
        run,
        step=run.step + steps,
        arrival_s=run.arrival_s.copy(),
        placed_s=run.placed_s.copy(),
        busy_until_s=run.busy_until_s.copy(),
        finish_s=run.finish_s.copy(),
        oldest=run.oldest.copy(),
        late=run.late.copy(),
    )
    for i in range(steps):
        latency_s = _place(moved, gaps[i], services[i], first[i], second[i])
        if run.step + i >= run.warm_up:
            moved.late[:] += latency_s > run.slo_s
    return moved


def _place(
    run: FitRun,
    gap_s: NDArray[np.float64],
    service_s: NDArray[np.float64],
    first: NDArray[np.int64],
    second: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Let one request arrive in every system and return its latency; mutates the run's arrays."""
    every = np.arange(SYSTEMS)
    places = run.finish_s.shape[2]
    run.arrival_s[:] += gap_s
    now = np.maximum(run.arrival_s, run.placed_s)
    ongoing_1 = (run.finish_s[every, first] > now[:, None]).sum(axis=1)
    ongoing_2 = (run.finish_s[every, second] > now[:, None]).sum(axis=1)
    slot = np.where(ongoing_1 <= ongoing_2, first, second)
    full = np.flatnonzero(np.minimum(ongoing_1, ongoing_2) >= places)
    if len(full):
        # A replica has room once its ring's oldest request is done; take the first to have it.
        rows = full[:, None]
        room = run.finish_s[rows, np.arange(run.replicas)[None, :], run.oldest[full]]
        slot[full] = room.argmin(axis=1)
        now[full] = np.maximum(now[full], room.min(axis=1))
    finish = np.maximum(now, run.busy_until_s[every, slot]) + service_s
    at = run.oldest[every, slot]
    run.finish_s[every, slot, at] = finish
    run.oldest[every, slot] = (at + 1) % places
    run.busy_until_s[every, slot] = finish
    run.placed_s[:] = now
    return finish - run.arrival_s


def stretch(run: FitRun) -> float:
    """Return the stretch with which the closed form is late as often as the complete run was.

    Found by bisection between 0.7 and 3; the closed form falls as the stretch falls.
    """
    seen = float(run.late.sum()) / ((run.steps - run.warm_up) * SYSTEMS)
    low, high = 0.7, 3.0
    for _ in range(20):
        middle = (low + high) / 2
        loads = np.maximum(1.0 - (1.0 - run.loads) / middle, 0.0)
        late = erlang.late_curve(run.replicas, loads, run.slo_s, run.service)
        if float(late.mean()) < seen:
            low = middle
        else:
            high = middle
    return (low + high) / 2
