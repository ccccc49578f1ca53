"""Simulate the real routing over the measured service times, a few steps at a time.

Closed forms do not know that a request waits behind others inside one replica: at a late share of
5 % they can be stretched to fit, at 1 % they promise up to a third too much. So ``SYSTEMS``
independent fleets of ``c`` replicas are simulated at ``LOADS_EACH`` loads, all advanced together by
one arrival per step with NumPy: power of two choices, at most ``max_ongoing`` per replica, one
worker, first come first served. The finish of a request is known when it is placed, as in the
simulator's kernel.

A run is resumable: the policy spends a bounded number of steps per decision. It is deterministic:
its random numbers depend on the replica count and the step only.
"""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from autoscaling.policy import buckets, erlang

#: The highest load is where the stretched closed form is late by so many error budgets; the others
#: are these shares of it. Queues near full load hardly settle, and there the closed form is good.
TOP_BUDGETS: Final = 1.2
LOAD_SHARES: Final = np.array([0.4, 0.55, 0.68, 0.78, 0.86, 0.92, 0.965, 1.0])
LOADS_EACH: Final = len(LOAD_SHARES)
#: Stretch of the closed form's distance to full load until it is measured.
USUAL_STRETCH: Final = 1.25
REPEATS: Final = 48
SYSTEMS: Final = LOADS_EACH * REPEATS


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """What a run has found for one replica count: shares late by their wait, rising with loads."""

    replicas: int
    loads: tuple[float, ...]
    late_shares: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FitRun:
    """A run for one replica count, between two steps. Arrays: one line per system."""

    replicas: int
    slo_s: float
    service: NDArray[np.float64]  # bucket weights, sum 1
    loads: NDArray[np.float64]  # [LOADS_EACH]
    step: int
    arrival_s: NDArray[np.float64]
    placed_s: NDArray[np.float64]
    busy_until_s: NDArray[np.float64]  # [systems, replicas]
    finish_s: NDArray[np.float64]  # [systems, replicas, max_ongoing] last finishes, a ring
    oldest: NDArray[np.int64]  # [systems, replicas] where the ring's oldest finish is
    late: NDArray[np.float64]

    @property
    def warm_up(self) -> NDArray[np.float64]:
        """Steps before late requests are counted, for each load.

        A queue forgets its beginning after about 4 / (1 - load)² arrivals, whatever the number of
        replicas (the relaxation time of M/M/c).
        """
        return np.minimum(50.0 + 4.0 / (1.0 - self.loads) ** 2, 2000.0)

    @property
    def steps(self) -> int:
        """Steps in all: the highest load is counted as long as it settles, at least 1000."""
        settled = float(self.warm_up[-1])
        return int(settled + max(settled, 1000.0))

    @property
    def done(self) -> bool:
        """Whether the run is complete."""
        return self.step >= self.steps


def begin(
    replicas: int, max_ongoing: int, slo_s: float, budget: float, counts: NDArray[np.float64]
) -> FitRun:
    """Start a run with empty fleets; ``counts`` is the histogram of service times."""
    service = counts / counts.sum()
    curve = np.maximum.accumulate(erlang.late_curve(replicas, erlang.LOADS, slo_s, service))
    full = float(np.interp(TOP_BUDGETS * budget, curve, erlang.LOADS))
    return FitRun(
        replicas=replicas,
        slo_s=slo_s,
        service=service,
        loads=max(1.0 - USUAL_STRETCH * (1.0 - full), 0.1) * LOAD_SHARES,
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
    pairs = np.empty((steps, SYSTEMS, 2), np.int64)
    pairs[..., 0] = picks[0] * n
    pairs[..., 1] = (pairs[..., 0] + 1 + (picks[1] * (n - 1)).astype(np.int64)) % n
    counted_from = np.repeat(run.warm_up, REPEATS)
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
        wait_s = _place(moved, gaps[i], services[i], pairs[i])
        late = wait_s > erlang.slack_s(run.slo_s, services[i])
        moved.late[:] += late & (run.step + i >= counted_from)
    return moved


def _place(
    run: FitRun,
    gap_s: NDArray[np.float64],
    service_s: NDArray[np.float64],
    pair: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Let one request arrive in every system and return its wait; mutates the run's arrays."""
    every = np.arange(SYSTEMS)
    places = run.finish_s.shape[2]
    run.arrival_s[:] += gap_s
    now = np.maximum(run.arrival_s, run.placed_s)
    ongoing = (run.finish_s[every[:, None], pair] > now[:, None, None]).sum(axis=2)
    chosen = (ongoing[:, 1] < ongoing[:, 0]).astype(np.int64)
    slot = pair[every, chosen]
    full = np.flatnonzero(ongoing[every, chosen] >= places)
    if len(full):
        # A replica has room once its ring's oldest request is done; take the first to have it.
        rows = full[:, None]
        room = run.finish_s[rows, np.arange(run.replicas)[None, :], run.oldest[full]]
        slot[full] = room.argmin(axis=1)
        now[full] = np.maximum(now[full], room.min(axis=1))
    begin = np.maximum(now, run.busy_until_s[every, slot])
    finish = begin + service_s
    at = run.oldest[every, slot]
    run.finish_s[every, slot, at] = finish
    run.oldest[every, slot] = (at + 1) % places
    run.busy_until_s[every, slot] = finish
    run.placed_s[:] = now
    return np.asarray(begin - run.arrival_s)


def result(run: FitRun) -> Fit:
    """Return the late shares that a complete run has found; more load is never better."""
    counted = run.steps - np.ceil(run.warm_up)
    shares = run.late.reshape(LOADS_EACH, REPEATS).mean(axis=1) / counted
    return Fit(
        replicas=run.replicas,
        loads=tuple(run.loads.tolist()),
        late_shares=tuple(np.maximum.accumulate(shares).tolist()),
    )
