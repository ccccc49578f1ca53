"""Share of late requests for any number of replicas and any rate, and its inversion.

A curve (late share over load) belongs to a replica count. It is the closed form (``erlang``) over
the measured service times, stretched by what simulating the real routing has shown (``fitting``).
Until that is done, the closed form serves as it is with a usual stretch.

The table is fitted for one histogram. A load is rate times *fresh* mean service time, so a
moderate change of speed is followed at once; when the mean or the spread has moved by
``REFIT_CHANGE`` the table is fitted again, and the old one serves meanwhile.
"""

from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from autoscaling.policy import buckets, erlang, fitting
from autoscaling.policy.fitting import FitRun
from autoscaling.policy.service import ServiceState
from autoscaling.policy.types import Config

REFIT_CHANGE: Final = 0.12
#: Replica counts whose stretch is simulated; interpolated in between, the last one above. Larger
#: fleets behave alike: measured 1.25 at 8 replicas, 1.25 at 12.
FITTED: Final = (1, 2, 4, 8)
#: Above full load a queue grows without end. Over some ten seconds, the time until new replicas
#: help, a load of 1.06 already makes nearly every request late: 15 per unit of load. Beyond that
#: every unit counts once more, so that less overload is always better than more.
OVERLOAD_SLOPE: Final = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CapacityState:
    """Fitted stretches by replica count, the histogram they belong to, and work in progress.

    ``curves`` and ``limits`` (highest load within the error budget) by replica count only remember
    results of pure functions: they may be dropped at any time.
    """

    service: ServiceState = field(default_factory=ServiceState)
    stretches: tuple[tuple[int, float], ...] = ()
    pending: tuple[int, ...] = ()
    run: FitRun | None = None
    curves: dict[int, NDArray[np.float64]] = field(default_factory=dict)
    limits: dict[int, float] = field(default_factory=dict)


def update(
    state: CapacityState, measured: ServiceState, needed: int, config: Config
) -> CapacityState:
    """Notice a changed service time and spend one decision's share of work on the table.

    ``needed`` is a recent replica count: the counts near it are fitted first.
    """
    if not measured.known:
        return state
    if _moved(state.service, measured):
        return CapacityState(
            service=measured,
            stretches=state.stretches,
            pending=tuple(sorted(FITTED, key=lambda c: abs(np.log(c / max(needed, 1))))),
        )
    if state.run is None:
        if not state.pending or config.fit_steps == 0:
            return state
        run = fitting.begin(
            state.pending[0],
            config.max_ongoing,
            config.slo_s,
            config.error_budget,
            state.service.counts,
        )
        return replace(state, run=run, pending=state.pending[1:])
    run = fitting.advance(state.run, config.fit_steps)
    if not run.done:
        return replace(state, run=run)
    fitted = {**dict(state.stretches), run.replicas: fitting.stretch(run)}
    return replace(state, run=None, stretches=tuple(sorted(fitted.items())), curves={}, limits={})


def _moved(old: ServiceState, new: ServiceState) -> bool:
    if not old.known:
        return True
    mean = new.mean_s / old.mean_s
    spread = (1.0 + new.squared_cv) / (1.0 + old.squared_cv)
    return max(mean, 1 / mean, spread, 1 / spread) > 1.0 + REFIT_CHANGE


def late_shares(
    state: CapacityState,
    replicas: NDArray[np.int64],
    rps: NDArray[np.float64],
    mean_s: float,
    config: Config,
) -> NDArray[np.float64]:
    """Late shares, one line per replica count (each at least 1), one column per rate.

    Values above 1 rank degrees of overload. Needs a known service time.
    """
    curves = np.stack([_curve(state, int(c), config) for c in replicas])
    load = rps[None, :] * (mean_s / replicas[:, None])
    top = len(erlang.LOADS) - 1
    position = np.minimum(load / erlang.LOADS[-1], 1.0) * top
    left = np.minimum(position.astype(np.int64), top - 1)
    part = position - left
    lines = np.arange(len(replicas))[:, None]
    share = curves[lines, left] * (1.0 - part) + curves[lines, left + 1] * part
    over = np.maximum(load - erlang.LOADS[-1], 0.0)
    return np.asarray(np.minimum(share + over * OVERLOAD_SLOPE, 1.0 + over))


def need(state: CapacityState, rps: float, mean_s: float, config: Config) -> int:
    """Fewest replicas that keep the steady late share within the error budget; at least 1.

    Found by bisection, since more replicas are never worse.
    """
    low, high = 1, config.max_replicas
    while low < high:
        middle = (low + high) // 2
        if rps <= capacity_rps(state, middle, mean_s, config):
            high = middle
        else:
            low = middle + 1
    return low


def capacity_rps(state: CapacityState, replicas: int, mean_s: float, config: Config) -> float:
    """Highest steady rate that ``replicas`` take within the error budget."""
    if replicas < 1:
        return 0.0
    limit = state.limits.get(replicas)
    if limit is None:
        allowed = config.error_budget
        hopeless = float(
            state.service.counts[config.slo_s < buckets.MIDDLE_S].sum() / state.service.counts.sum()
        )
        if hopeless > allowed / 2:
            # Requests that take too long by themselves cannot be helped; judge the others' waits.
            allowed = hopeless + allowed / 2
        limit = float(np.interp(allowed, _curve(state, replicas, config), erlang.LOADS))
        state.limits[replicas] = limit
    return limit * replicas / mean_s


def _curve(state: CapacityState, replicas: int, config: Config) -> NDArray[np.float64]:
    known = state.curves.get(replicas)
    if known is not None:
        return known
    service = state.service.counts / state.service.counts.sum()
    stretch = fitting.USUAL_STRETCH
    if state.stretches:
        counts, values = zip(*state.stretches, strict=True)
        stretch = float(np.interp(np.log(replicas), np.log(counts), values))
    loads = np.maximum(1.0 - (1.0 - erlang.LOADS) / stretch, 0.0)
    curve = np.maximum.accumulate(erlang.late_curve(replicas, loads, config.slo_s, service))
    state.curves[replicas] = curve
    return curve
