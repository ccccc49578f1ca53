"""The policy: one observation in, one decision and the next state out."""

import math
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from autoscaling.policy import (
    backlog,
    burst,
    capacity,
    feedback,
    forecast,
    hold,
    service,
    starts,
    telemetry,
)
from autoscaling.policy.plausible import plausible
from autoscaling.policy.state import State
from autoscaling.policy.telemetry import COMPLETED, WITHIN, Flow
from autoscaling.policy.types import Config, Judgement, Observation, Term

#: Longest time between two decisions that is believed; beyond it the clock has jumped.
LONGEST_GAP_S: Final = 30.0
#: After a start or a restart, go up only, until so many seconds of load have been seen.
LEARN_S: Final = 15
#: A backlog is worth extra replicas when it takes the fleet longer than this to work off.
DRAIN_S: Final = 10.0
#: Where on the way to a peak rates are looked at.
ON_THE_WAY: Final = np.array([0.125, 0.375, 0.625, 0.875])
LEAST_RPS: Final = 1e-3
#: A burst's need outlives its second by this much, so that noise does not cancel what it ordered.
BURST_HOLD_S: Final = 4
#: Smaller corrections are not worth finding out whether they changed the answer.
FELT_CORRECTION: Final = 1.005


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """How many replicas, why, and what to remember. ``reason`` is for people."""

    target: int
    term: Term
    reason: str
    judgement: Judgement
    state: State


@dataclass(frozen=True, slots=True, kw_only=True)
class _Need:
    """A wanted number of replicas before holding and bounds, with the term that asked for it."""

    replicas: int
    lasting: int  # without a burst's guess, which is not held once it proves wrong
    term: Term
    judgement: Judgement


def decide(observation: Observation, state: State, config: Config) -> Decision:
    """Decide the number of replicas; never raises, whatever the telemetry says.

    Without fresh telemetry the target stays. It never falls while measured requests violate the
    objective or a report is in doubt, nor in the first seconds after a start. Called again before
    ``interval_s`` has passed it repeats the target. Bounds always hold, except that idle fleets may
    go to zero.
    """
    observation = plausible(observation, config)
    if not math.isfinite(observation.now_s):
        return _stay(observation, state, config, Term.NO_DATA, "hold: the clock gives no number")
    elapsed_s = config.interval_s
    if state.now_s is not None:
        elapsed_s = observation.now_s - state.now_s
        if 0 <= elapsed_s < 0.9 * config.interval_s:
            return _stay(observation, state, config, Term.WAIT, "hold: between two ticks")
        if not 0 < elapsed_s <= LONGEST_GAP_S:
            elapsed_s = config.interval_s  # the clock was set, or we were away
    flow, seen = telemetry.merge(
        observation.reports,
        observation.router_queued,
        state.telemetry,
        steady_s=state.steady_s + elapsed_s,
        elapsed_s=elapsed_s,
    )
    starting = max(observation.target - observation.running, 0)
    state = replace(
        state,
        now_s=observation.now_s,
        steady_s=state.steady_s + elapsed_s,
        telemetry=seen,
        service=service.update(state.service, flow.counts, elapsed_s),
        target=observation.target,
        starts=starts.observe(
            state.starts,
            observation.startups_s,
            starting=starting,
            ordered=0 if state.target is None else observation.target - state.target,
            ordered_s=state.steady_s,
        ),
    )
    if flow.arrivals_rps is None:
        return _without_data(observation, state, config, flow)
    state, burst_peaks = _learn(state, config, flow, elapsed_s)
    if config.idle_s is not None and state.idle_s >= config.idle_s and not flow.doubtful:
        reason = f"no request for {state.idle_s:.0f} s: to zero"
        return _finish(state, config, 0, Term.IDLE, reason, Judgement())
    if not state.service.known:
        return _before_service_is_known(observation, state, config, flow)
    need = _need(observation, state, config, flow, burst_peaks)
    return _hold_and_guard(observation, state, config, flow, need)


def horizon_s(state: State, config: Config) -> int:
    """Seconds a decision must look ahead: a start, one interval, one second of stale telemetry."""
    cold_s = starts.cold_start_s(state.starts, config.cold_start_prior_s)
    ahead = math.ceil(cold_s + config.interval_s)
    return min(max(ahead, forecast.PEAK_S), forecast.LONGEST_HORIZON_S)


def _learn(
    state: State, config: Config, flow: Flow, elapsed_s: float
) -> tuple[State, NDArray[np.float64] | None]:
    """Bring forecast, burst detector and capacity table up to date."""
    assert flow.arrivals_rps is not None
    ahead_s = horizon_s(state, config)
    passed = math.floor(state.steady_s) - math.floor(state.steady_s - elapsed_s)
    forecasts, bursts, peaks = state.forecast, state.burst, None
    for _ in range(passed):
        forecasts = forecast.update(forecasts, flow.arrivals_rps, ahead_s)
        bursts, peaks = burst.update(bursts, forecasts.rates, ahead_s)
    busy = flow.arrivals_rps > 0 or flow.waiting > 0 or flow.counts[COMPLETED] > 0
    recent = int(state.hold.needs[-1])
    learned = replace(
        state,
        seconds=state.seconds + passed,
        idle_s=0.0 if busy else state.idle_s + elapsed_s,
        forecast=forecasts,
        burst=bursts,
        capacity=capacity.update(state.capacity, state.service, recent, config),
    )
    return learned, peaks


def _need(
    observation: Observation,
    state: State,
    config: Config,
    flow: Flow,
    burst_peaks: NDArray[np.float64] | None,
) -> _Need:
    """Weigh replicas against late requests over the likely peaks, then add what a backlog takes."""
    spoken = forecast.speak(state.forecast, horizon_s(state, config))
    assert spoken is not None and flow.arrivals_rps is not None
    mean_s = state.service.mean_s
    ahead_s = horizon_s(state, config)
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
    return _Need(
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


def _hold_and_guard(
    observation: Observation, state: State, config: Config, flow: Flow, need: _Need
) -> Decision:
    """Go up at once and down with patience; count feedback; never down while too many are late."""
    ahead_s = horizon_s(state, config)
    mean_s = state.service.mean_s
    rps = need.judgement.arrivals_rps * state.feedback.correction
    rate = np.array([rps])
    served = np.append(hold.served(state.hold, ahead_s), max(observation.running, 1))
    late = capacity.late_shares(state.capacity, served, rate, mean_s, config)[:, 0]
    holding = hold.judge(state.hold, need.lasting, rps, late[:-1], ahead_s)
    window_s = hold.best_window_s(holding, config.price, ahead_s)
    done, within = float(flow.counts[COMPLETED]), float(flow.counts[WITHIN])
    hopeless = capacity.hopeless_share(state.capacity, config)
    enough = observation.running > 0 and float(late[-1]) + hopeless < config.error_budget / 2
    recent = (*state.recent_needs, need.replicas)[-BURST_HOLD_S:]
    state = replace(
        state,
        hold=holding,
        recent_needs=recent,
        feedback=feedback.update(
            state.feedback,
            done,
            done - within,
            config.error_budget,
            config.interval_s,
            honest=enough and need.judgement.backlog <= 0,
        ),
    )
    judgement = replace(need.judgement, hold_s=float(window_s))
    target = max(int(holding.needs[-window_s:].max()), *recent)
    term, why = need.term, _words(need, config)
    if target > need.replicas:
        term, why = Term.HOLD, f"needed {target} within the last {window_s} s; now {why}"
    if hopeless > config.error_budget:
        why = f"{hopeless:.1%} take longer than {config.slo_ms:g} ms by themselves; {why}"
    if target < observation.target:
        if within < config.quantile * done:
            share = within / done
            term = Term.VIOLATED
            why = f"{share:.1%} in time, wanted {config.quantile:.1%}: not down; {why}"
            target = observation.target
        elif flow.doubtful:
            term = Term.NO_DATA
            why = f"{flow.doubtful} reports may be late or of restarted replicas: not down; {why}"
            target = observation.target
        elif state.seconds < LEARN_S:
            term, why = Term.WARMING, f"seen {state.seconds} s of load: not down; {why}"
            target = observation.target
    return _finish(state, config, target, term, why, judgement)


def _words(need: _Need, config: Config) -> str:
    j = need.judgement
    extra = f", {j.backlog:.0f} will wait" if need.term is Term.DRAIN else ""
    extra += f", corrected by {j.correction:.2f}" if j.correction > 1.005 else ""
    return (
        f"{need.term}: {j.arrivals_rps:.0f} rps now, up to {j.peak_rps:.0f} within "
        f"{j.horizon_s:.0f} s ({j.expert}), {j.mean_service_ms:.2f} ms of work each{extra}: "
        f"{need.replicas} replicas take {j.capacity_rps:.0f} rps, {j.late_share:.2%} late expected "
        f"at {config.slo_ms:g} ms"
    )


def _without_data(observation: Observation, state: State, config: Config, flow: Flow) -> Decision:
    queued = observation.router_queued
    if observation.target == 0 and 0 < queued < telemetry.IMPLAUSIBLE:
        reason = f"{queued:.0f} requests wait and no replica is there: wake up"
        return _finish(state, config, 1, Term.NO_DATA, reason, Judgement())
    reason = f"hold: no fresh telemetry ({flow.invalid} invalid reports)"
    return _stay(observation, state, config, Term.NO_DATA, reason)


def _before_service_is_known(
    observation: Observation, state: State, config: Config, flow: Flow
) -> Decision:
    """Without service times only the queue can be judged: grow by half of what it would fill."""
    full = max(observation.running, 1) * config.max_ongoing
    target = max(observation.target, 1 if flow.waiting > 0 else 0)
    nothing_on_order = observation.running >= observation.target
    if flow.waiting > full and nothing_on_order:
        target += max(1, target // 2)
    reason = f"service times not known yet, {flow.waiting:.0f} requests in the house"
    return _finish(state, config, target, Term.WARMING, reason, Judgement())


def _finish(
    state: State,
    config: Config,
    target: int,
    term: Term,
    reason: str,
    judgement: Judgement,
) -> Decision:
    """Apply bounds, say what does not start."""
    low = 0 if term is Term.IDLE else config.min_replicas
    bounded = min(max(target, low), config.max_replicas)
    if bounded != target:
        term, reason = Term.BOUND, f"{target} is outside {low} to {config.max_replicas}; {reason}"
    usual_s = starts.cold_start_s(state.starts, config.cold_start_prior_s)
    missing, age_s = starts.stuck(state.starts, usual_s, state.steady_s)
    if missing:
        reason += f"; {missing} ordered {age_s:.0f} s ago have not started"
    return Decision(target=bounded, term=term, reason=reason, judgement=judgement, state=state)


def _stay(
    observation: Observation, state: State, config: Config, term: Term, reason: str
) -> Decision:
    low = 0 if config.idle_s is not None else config.min_replicas
    target = min(max(observation.target, low), config.max_replicas)
    return Decision(target=target, term=term, reason=reason, judgement=Judgement(), state=state)
