"""The policy on a small honest service, second by second."""

from dataclasses import replace

import numpy as np

from autoscaling.policy import buckets
from autoscaling.policy.decide import Decision, decide
from autoscaling.policy.state import State
from autoscaling.policy.telemetry import ReplicaReport
from autoscaling.policy.types import Config, Observation, Term

WORK_S = 0.02
CONFIG = Config(fit_steps=0)


class Service:
    """Requests of 20 ms spread evenly over replicas that all keep up, unless told to be late."""

    def __init__(self, running: int = 2, work_s: float = WORK_S) -> None:
        self.now_s = 1000.0
        self.work_s = work_s
        self.running = running
        self.done = 0.0
        self.within = 0.0

    def second(self, rps: float, target: int, *, late: bool = False) -> Observation:
        self.now_s += 1.0
        self.done += rps / self.running
        self.within += 0.0 if late else rps / self.running
        counts = np.zeros(buckets.COUNT)
        counts[buckets.bucket_of(self.work_s)] = self.done
        report = ReplicaReport(
            replica_id="r0",
            at_s=self.now_s,
            accepted=self.done,
            completed=self.done,
            within=self.within,
            service_s_sum=self.done * self.work_s,
            service_s_sumsq=self.done * self.work_s**2,
            service_counts=counts,
        )
        reports = tuple(replace(report, replica_id=f"r{i}") for i in range(self.running))
        return Observation(now_s=self.now_s, target=target, running=self.running, reports=reports)


def drive(service: Service, rps: float, seconds: int, decision: Decision | None = None) -> Decision:
    state = decision.state if decision else State()
    target = decision.target if decision else service.running
    assert seconds > 0
    for _ in range(seconds):
        decision = decide(service.second(rps, target), state, CONFIG)
        state, target = decision.state, decision.target
        service.running = max(target, 1)
    assert decision is not None
    return decision


def test_steady_load_settles_near_its_work():
    decision = drive(Service(), rps=200.0, seconds=120)
    assert 4 < decision.target <= 8  # 200 x 20 ms are 4 replicas of pure work
    assert "rps now" in decision.reason


def test_a_jump_is_answered_within_two_seconds():
    service = Service()
    calm = drive(service, rps=100.0, seconds=120)
    jump = drive(service, rps=400.0, seconds=2, decision=calm)
    assert jump.target >= 8


def test_down_waits_for_the_hold():
    service = Service()
    busy = drive(service, rps=400.0, seconds=120)
    soon = drive(service, rps=50.0, seconds=5, decision=busy)
    later = drive(service, rps=50.0, seconds=600, decision=soon)
    assert soon.target >= busy.target - 1
    assert later.target <= 3


def test_a_restarted_controller_does_not_go_down_before_it_has_learned():
    service = Service(running=20)
    state, target = State(), 20
    for _ in range(10):
        decision = decide(service.second(100.0, target), state, CONFIG)
        state = decision.state
        assert decision.target >= 20


def test_between_ticks_nothing_changes():
    service = Service()
    decision = drive(service, rps=100.0, seconds=20)
    again = replace(service.second(100.0, decision.target), now_s=service.now_s - 0.9)
    second = decide(again, decision.state, CONFIG)
    assert second.term is Term.WAIT
    assert second.state is decision.state


def test_late_requests_forbid_going_down():
    service = Service()
    busy = drive(service, rps=400.0, seconds=120)
    state, target = busy.state, busy.target
    for _ in range(120):
        decision = decide(service.second(40.0, target, late=True), state, CONFIG)
        state = decision.state
        assert decision.target >= target
        target = decision.target


def test_work_that_always_takes_too_long_gets_what_shortens_its_waits():
    service = Service(running=16, work_s=0.5)
    state = State()
    for _ in range(120):
        decision = decide(service.second(20.0, 16, late=True), state, CONFIG)
        state = decision.state
        assert decision.target >= 16
    assert 12 < decision.judgement.need < 20  # 20 x 500 ms are 10 replicas of pure work
    assert "100.0% take longer than 200 ms by themselves" in decision.reason
    assert decision.judgement.late_share == 1.0


def test_a_clock_that_jumps_changes_nothing_for_long():
    service = Service()
    before = drive(service, rps=200.0, seconds=120)
    service.now_s -= 86_400.0
    after = drive(service, rps=200.0, seconds=30, decision=before)
    assert abs(after.target - before.target) <= 1


def test_an_idle_fleet_goes_to_zero_and_wakes_up():
    config = replace(CONFIG, idle_s=60.0)
    service = Service()
    state, target = drive(service, rps=50.0, seconds=60).state, 2
    for _ in range(62):
        decision = decide(service.second(0.0, target), state, config)
        state = decision.state
    assert (decision.target, decision.term) == (0, Term.IDLE)
    waiting = Observation(now_s=service.now_s + 60, target=0, running=0, router_queued=1.0)
    assert decide(waiting, state, config).target >= 1


def test_replicas_that_never_start_are_named():
    service = Service(running=1)
    state, target = State(), 1
    for _ in range(120):
        observation = service.second(120.0, target)
        decision = decide(observation, state, CONFIG)
        state, target = decision.state, decision.target
    assert "have not started" in decision.reason


def test_replicas_that_were_refused_hide_no_start_that_is_stuck():
    service = Service(running=1)
    state = State()
    for second in range(120):
        target = 1 if second < 40 else 2  # whatever is wanted, a budget allows one more
        decision = decide(service.second(120.0, target), state, CONFIG)
        assert second < 20 or decision.target > 2
        state = decision.state
    assert "1 ordered 8" in decision.reason
    assert "have not started" in decision.reason
