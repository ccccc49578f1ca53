"""The policy: one observation in, one decision and the next state out."""

import math
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from autoscaling.policy import burst, capacity, feedback, forecast, hold, service, starts, telemetry
from autoscaling.policy.need import Need, assess, horizon_s
from autoscaling.policy.plausible import plausible
from autoscaling.policy.state import State
from autoscaling.policy.telemetry import COMPLETED, WITHIN, Flow
from autoscaling.policy.types import Config, Judgement, Observation, Term

#: Longest time between two decisions that is believed; beyond it the clock has jumped.
LONGEST_GAP_S: Final = 30.0
#: After a start or a restart, go up only, until so many seconds of load have been seen.
LEARN_S: Final = 15
#: A burst's need outlives its second by this much, so that noise does not cancel what it ordered.
BURST_HOLD_S: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """How many replicas, why, and what to remember. ``reason`` is for people."""

    target: int
    term: Term
    reason: str
    judgement: Judgement
    state: State


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
    state, flow = _take_in(observation, state, elapsed_s)
    if flow.arrivals_rps is None:
        return _without_data(observation, state, config, flow)
    state, burst_peaks = _learn(state, config, flow, elapsed_s)
    if config.idle_s is not None and state.idle_s >= config.idle_s and not flow.doubtful:
        reason = f"no request for {state.idle_s:.0f} s: to zero"
        return _finish(state, config, 0, Term.IDLE, reason, Judgement())
    if not state.service.known:
        return _before_service_is_known(observation, state, config, flow)
    need = assess(observation, state, config, flow, burst_peaks)
    return _hold_and_guard(observation, state, config, flow, need)


def _take_in(observation: Observation, state: State, elapsed_s: float) -> tuple[State, Flow]:
    """Bring telemetry, service times and the account of starts up to date."""
    steady_s = state.steady_s + elapsed_s
    flow, seen = telemetry.merge(
        observation.reports,
        observation.router_queued,
        state.telemetry,
        steady_s=steady_s,
        elapsed_s=elapsed_s,
    )
    state = replace(
        state,
        now_s=observation.now_s,
        steady_s=steady_s,
        telemetry=seen,
        service=service.update(state.service, flow.counts, elapsed_s),
        target=observation.target,
        starts=starts.observe(
            state.starts,
            observation.startups_s,
            starting=max(observation.target - observation.running, 0),
            ordered=0 if state.target is None else observation.target - state.target,
            ordered_s=state.steady_s,
        ),
    )
    return state, flow


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


def _hold_and_guard(
    observation: Observation, state: State, config: Config, flow: Flow, need: Need
) -> Decision:
    """Go up at once and down with patience, and never down while there is a reason to stay."""
    state, window_s = _hold(observation, state, config, flow, need)
    term, why = need.term, need.words(config)
    target = max(int(state.hold.needs[-window_s:].max()), *state.recent_needs)
    if target > need.replicas:
        term, why = Term.HOLD, f"needed {target} within the last {window_s} s; now {why}"
    hopeless = capacity.hopeless_share(state.capacity, config)
    if hopeless > config.error_budget:
        why = f"{hopeless:.1%} take longer than {config.slo_ms:g} ms by themselves; {why}"
    obstacle = _obstacle(state, config, flow) if target < observation.target else None
    if obstacle is not None:
        term, said = obstacle
        target, why = observation.target, f"{said}: not down; {why}"
    judgement = replace(need.judgement, hold_s=float(window_s))
    return _finish(state, config, target, term, why, judgement)


def _hold(
    observation: Observation, state: State, config: Config, flow: Flow, need: Need
) -> tuple[State, int]:
    """Take the need into the holds and the outcome into feedback; say which hold is best, in s."""
    ahead_s = horizon_s(state, config)
    rps = need.judgement.arrivals_rps * state.feedback.correction
    served = np.append(hold.served(state.hold, ahead_s), max(observation.running, 1))
    rates = np.array([rps])
    late = capacity.late_shares(state.capacity, served, rates, state.service.mean_s, config)[:, 0]
    holding = hold.judge(state.hold, need.lasting, rps, late[:-1], ahead_s)
    hopeless = capacity.hopeless_share(state.capacity, config)
    enough = observation.running > 0 and float(late[-1]) + hopeless < config.error_budget / 2
    done, within = float(flow.counts[COMPLETED]), float(flow.counts[WITHIN])
    state = replace(
        state,
        hold=holding,
        recent_needs=(*state.recent_needs, need.replicas)[-BURST_HOLD_S:],
        feedback=feedback.update(
            state.feedback,
            done,
            done - within,
            config.error_budget,
            config.interval_s,
            honest=enough and need.judgement.backlog <= 0,
        ),
    )
    return state, hold.best_window_s(holding, config.price, ahead_s)


def _obstacle(state: State, config: Config, flow: Flow) -> tuple[Term, str] | None:
    """Say what forbids going down now, if anything."""
    done, within = float(flow.counts[COMPLETED]), float(flow.counts[WITHIN])
    if within < config.quantile * done:
        return Term.VIOLATED, f"{within / done:.1%} in time, wanted {config.quantile:.1%}"
    if flow.doubtful:
        return Term.NO_DATA, f"{flow.doubtful} reports may be late or of restarted replicas"
    if state.seconds < LEARN_S:
        return Term.WARMING, f"seen {state.seconds} s of load"
    return None


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
