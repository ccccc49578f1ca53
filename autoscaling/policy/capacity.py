"""Share of late requests for any number of replicas and any rate, and its inversion.

Late means late by its wait, all along: requests whose work alone takes longer than the objective
(``hopeless_share``) are late with any number of replicas, and replicas can only shorten their wait.

A curve (late share over load) belongs to a replica count. A few counts are simulated
(``fitting``); until that is done, the closed form (``erlang``) serves with a usual stretch, and
above the highest simulated load it goes on from there. Between and above the simulated counts, the
distance to full load that keeps a given late share is a power of the count: a queue shared by more
replicas bears more load (square-root staffing), while waits behind a heavy request inside one
replica hardly change. Both exponents follow from the two neighbours.

The table is fitted for one histogram. A load is rate times *fresh* mean service time, so a
moderate change of speed is followed at once; when the mean or the spread has moved by
``REFIT_CHANGE`` the table is fitted again, and the old one serves meanwhile.
"""

from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from autoscaling.policy import buckets, erlang, fitting
from autoscaling.policy.fitting import Fit, FitRun
from autoscaling.policy.service import ServiceState
from autoscaling.policy.types import Config

REFIT_CHANGE: Final = 0.12
#: Replica counts that are simulated.
FITTED: Final = (1, 2, 4, 8, 16)
#: Late shares at which curves are described.
LEVELS: Final = np.geomspace(5e-4, 1.0, 32)
#: Above full load a queue grows without end. Over some ten seconds, the time until new replicas
#: help, a load of 1.06 already makes nearly every request late: 15 per unit of load.
OVERLOAD_SLOPE: Final = 15.0
#: A request cannot be more than late. This much per unit of load only breaks ties, so that less
#: overload is better than more: counted in full it would buy replicas against bursts that they
#: are too few to help with.
HOPELESS_SLOPE: Final = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class CapacityState:
    """Simulated counts, the histogram they belong to, and work in progress.

    ``curves`` (one matrix, lines by replica count from 1) and ``limits`` (highest load within the
    error budget by replica count) only remember results of pure functions: they may be dropped at
    any time.
    """

    service: ServiceState = field(default_factory=ServiceState)
    fits: tuple[Fit, ...] = ()
    pending: tuple[int, ...] = ()
    run: FitRun | None = None
    curves: list[NDArray[np.float64]] = field(default_factory=list)
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
            fits=state.fits,
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
    found = fitting.result(run)
    others = tuple(fit for fit in state.fits if fit.replicas != found.replicas)
    return replace(state, run=None, fits=(*others, found), curves=[], limits={})


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
    curves = _curves(state, int(replicas.max()), config)
    load = rps[None, :] * (mean_s / replicas[:, None])
    top = len(erlang.LOADS) - 1
    position = np.minimum(load / erlang.LOADS[-1], 1.0) * top
    left = np.minimum(position.astype(np.int64), top - 1)
    part = position - left
    lines = replicas[:, None] - 1
    share = curves[lines, left] * (1.0 - part) + curves[lines, left + 1] * part
    over = np.maximum(load - erlang.LOADS[-1], 0.0)
    share = np.minimum(share + over * OVERLOAD_SLOPE, 1.0)
    return np.asarray(share + over * HOPELESS_SLOPE)


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
        # Where hopeless requests use up the budget, half of it is still left to waits.
        budget = config.error_budget
        allowed = max(budget - hopeless_share(state, config), budget / 2)
        curve = _curves(state, replicas, config)[replicas - 1]
        limit = float(np.interp(allowed, curve, erlang.LOADS))
        state.limits[replicas] = limit
    return limit * replicas / mean_s


def hopeless_share(state: CapacityState, config: Config) -> float:
    """Share of requests that take longer than the objective by themselves."""
    counts = state.service.counts
    return float(counts[config.slo_s < buckets.MIDDLE_S].sum() / counts.sum())


def _curves(state: CapacityState, highest: int, config: Config) -> NDArray[np.float64]:
    """Late shares at ``erlang.LOADS`` for all replica counts up to ``highest`` at least."""
    if state.curves and len(state.curves[0]) >= highest:
        return state.curves[0]
    counts = np.arange(1, max(2 * highest, 32) + 1)
    fits = {fit.replicas: fit for fit in state.fits}
    # [fitted, levels]: logarithm of the distance to full load.
    distance = np.log([1.0 - _loads(state, c, fits.get(c), config) for c in FITTED])
    place = np.log2(counts)
    known = np.log2(FITTED)
    left = np.minimum(np.searchsorted(known, place, side="right") - 1, len(known) - 2)
    part = ((place - known[left]) / (known[left + 1] - known[left]))[:, None]
    loads = 1.0 - np.exp(distance[left] * (1.0 - part) + distance[left + 1] * part)
    curves = np.empty((len(counts), len(erlang.LOADS)))
    for i, line in enumerate(np.maximum.accumulate(np.maximum(loads, 0.0), axis=1)):
        curves[i] = np.interp(erlang.LOADS, [0.0, *line], [0.0, *LEVELS])
    state.curves[:] = [curves]
    return curves


def _loads(
    state: CapacityState, replicas: int, fit: Fit | None, config: Config
) -> NDArray[np.float64]:
    """Load at each of ``LEVELS``: as simulated, above that the closed form from there on."""
    service = state.service.counts / state.service.counts.sum()
    closed = np.maximum.accumulate(erlang.late_curve(replicas, erlang.LOADS, config.slo_s, service))
    full = np.interp(LEVELS, closed, erlang.LOADS)
    if fit is None:
        return np.clip(1.0 - fitting.USUAL_STRETCH * (1.0 - full), 0.0, 0.995)
    late = np.array(fit.late_shares)
    seen = late > LEVELS[0] / 4
    if np.count_nonzero(seen) < 2:
        return np.clip(1.0 - fitting.USUAL_STRETCH * (1.0 - full), 0.0, 0.995)
    level, load = np.log(late[seen]), np.array(fit.loads)[seen]
    wanted = np.log(LEVELS)
    loads = np.interp(wanted, level, load)
    slope = (load[1] - load[0]) / max(level[1] - level[0], 0.1)
    loads = np.where(wanted < level[0], load[0] + slope * (wanted - level[0]), loads)
    stretch = (1.0 - load[-1]) / (1.0 - float(np.interp(late[seen][-1], closed, erlang.LOADS)))
    loads = np.where(wanted > level[-1], 1.0 - stretch * (1.0 - full), loads)
    return np.asarray(np.clip(loads, 0.0, 0.995))
