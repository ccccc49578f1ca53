"""How many replicas the load needs: likely peaks weighed against late requests, and a backlog."""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from autoscaling.policy import backlog, capacity, forecast, starts
from autoscaling.policy.state import State
from autoscaling.policy.telemetry import Flow
from autoscaling.policy.types import Config, Judgement, Observation, Term

#: A backlog is worth extra replicas when it takes the fleet longer than this to work off.
DRAIN_S: Final = 10.0
#: Where on the way to a peak rates are looked at.
ON_THE_WAY: Final = np.array([0.125, 0.375, 0.625, 0.875])
LEAST_RPS: Final = 1e-3
#: Smaller corrections are not worth finding out whether they changed the answer.
FELT_CORRECTION: Final = 1.005


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """A wanted number of replicas before holding and bounds, with the term that asked for it."""

    replicas: int
    lasting: int  # without a burst's guess, which is not held once it proves wrong
    term: Term
    judgement: Judgement

    def words(self, config: Config) -> str:
        """Say what is needed and why."""
        j = self.judgement
        extra = f", {j.backlog:.0f} will wait" if self.term is Term.DRAIN else ""
        extra += f", corrected by {j.correction:.2f}" if j.correction > FELT_CORRECTION else ""
        return (
            f"{self.term}: {j.arrivals_rps:.0f} rps now, up to {j.peak_rps:.0f} within "
            f"{j.horizon_s:.0f} s ({j.expert}), {j.mean_service_ms:.2f} ms of work each{extra}: "
            f"{'1 replica takes' if self.replicas == 1 else f'{self.replicas} replicas take'} "
            f"{j.capacity_rps:.0f} rps, "
            f"{j.late_share:.2%} late expected at {config.slo_ms:g} ms"
        )


def horizon_s(state: State, config: Config) -> int:
    """Seconds a decision must look ahead: a start, one interval, one second of stale telemetry."""
    cold_s = starts.cold_start_s(state.starts, config.cold_start_prior_s)
    ahead = math.ceil(cold_s + config.interval_s)
    return min(max(ahead, forecast.PEAK_S), forecast.LONGEST_HORIZON_S)


def assess(
    observation: Observation,
    state: State,
    config: Config,
    flow: Flow,
    burst_peaks: NDArray[np.float64] | None,
) -> Need:
    """Weigh replicas against late requests over the likely peaks, then add what a backlog takes."""
    ahead_s = horizon_s(state, config)
    spoken = forecast.speak(state.forecast, ahead_s)
    assert spoken is not None and flow.arrivals_rps is not None
    mean_s = state.service.mean_s
    correction = state.feedback.correction
    peaks = spoken.peaks_rps
    term = Term.FORECAST
    now_rps = max(spoken.level_rps, flow.arrivals_rps) * correction
    replicas, late_share = _cheapest(state, config, now_rps, peaks * correction, mean_s)
    if correction > FELT_CORRECTION:
        plain, _ = _cheapest(state, config, now_rps / correction, peaks, mean_s)
        term = Term.FEEDBACK if plain < replicas else term
    drain, waiting = _drain(observation, state, config, flow, spoken.level_rps)
    if drain > replicas:
        replicas, term = drain, Term.DRAIN
    lasting = replicas
    if burst_peaks is not None:
        peaks = np.maximum(peaks, burst_peaks)
        higher, late_share = _cheapest(state, config, now_rps, peaks * correction, mean_s)
        if higher > replicas:
            replicas, term = higher, Term.BURST
    return Need(
        replicas=replicas,
        lasting=lasting,
        term=term,
        judgement=Judgement(
            arrivals_rps=flow.arrivals_rps,
            peak_rps=float(peaks[int(forecast.LOSS_QUANTILE * len(peaks))]),
            horizon_s=float(ahead_s),
            expert=spoken.expert,
            mean_service_ms=mean_s * 1000.0,
            service_cv=math.sqrt(state.service.squared_cv),
            capacity_rps=capacity.capacity_rps(state.capacity, replicas, mean_s, config),
            late_share=min(late_share + capacity.hopeless_share(state.capacity, config), 1.0),
            backlog=waiting,
            need=replicas,
            correction=correction,
        ),
    )


def _cheapest(
    state: State, config: Config, now_rps: float, peaks: NDArray[np.float64], mean_s: float
) -> tuple[int, float]:
    """Return the replicas with the least cost, and the late share to expect with them.

    The cost of ``c`` replicas is ``c`` over the usual need, plus price times the mean late share:
    a newsvendor's choice between stock and shortage. Each likely peak is thought to be reached on
    a straight line from the rate of now, and every rate on the way counts by its requests. So
    replicas that are too few for a crowd still serve its beginning, and are worth that much.
    """
    usual = capacity.need(state.capacity, float(peaks[len(peaks) // 2]), mean_s, config)
    low = max(1, math.floor(0.6 * usual))
    highest = capacity.need(state.capacity, float(peaks[-1]), mean_s, config)
    high = min(max(highest, usual) + 3, max(3 * usual, 8), config.max_replicas)
    candidates = np.arange(min(low, high), high + 1)
    few = peaks[1::3]
    rates = np.maximum(now_rps + np.outer(ON_THE_WAY, few - now_rps), LEAST_RPS).ravel()
    late = capacity.late_shares(state.capacity, candidates, rates, mean_s, config) @ rates
    late /= rates.sum()
    best = int(np.argmin(candidates / usual + config.price * late))
    return int(candidates[best]), float(late[best])


def _drain(
    observation: Observation, state: State, config: Config, flow: Flow, level_rps: float
) -> tuple[int, float]:
    """Return replicas that work off what will wait, and how much that will be."""
    mean_s = state.service.mean_s
    running = observation.running
    # One in service and one behind it in each replica is how a busy fleet looks when all is well.
    waiting = max(flow.waiting - 2.0 * max(running, 1), 0.0)
    rps = max(level_rps, flow.arrivals_rps or 0.0) * state.feedback.correction
    later = backlog.when_help_arrives(
        waiting,
        rps,
        1.0 / mean_s,
        running,
        state.starts.orders,
        starts.cold_start_s(state.starts, config.cold_start_prior_s),
        state.steady_s,
    )
    if later <= config.slo_s * max(rps, 1.0 / mean_s):
        return 0, later
    return capacity.need(state.capacity, rps + later / DRAIN_S, mean_s, config), later
