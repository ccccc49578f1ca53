"""A recorded run is read as it was, and simulated again with what was measured in it."""

from pathlib import Path

import numpy as np
import pytest

from autoscaling.errors import TraceError
from autoscaling.loadtest.generator import Target
from autoscaling.loadtest.plan import Kind, Plan
from autoscaling.loadtest.recording import Outcome, Recording
from autoscaling.loadtest.results import Objective, Schedule
from autoscaling.loadtest.scaling import Decision, ScalingHistory
from autoscaling.loadtest.store import save
from autoscaling.loadtest.summary import summarise
from autoscaling.simulator.arrivals import Trace
from autoscaling.simulator.latency import LatencyAutoscaler
from autoscaling.simulator.recorded import in_time, p95_ms, read_recorded, simulate_again
from autoscaling.simulator.run import Run, replay
from autoscaling.simulator.scenario import Scenario, WorkClass

KINDS = (Kind(name="light", rows=1, weight=1.0),)
STARTED_S = 1_700_000_000.0
WORK = WorkClass(weight=1.0, mean_s=0.02, cv=0.1)
TRUTH = Scenario(
    cold_start_s=6.0,
    cold_start_cv=0.05,
    unscored_s=0,
    max_ongoing=2_000,
    max_replicas=3,
    work=(WORK,),
)
STEP = Trace(name="step", rps=np.repeat([10.0, 80.0, 10.0], (30, 40, 20)))


def run_of_a_service() -> Run:
    """A service that behaves as the simulator says: what its recording must lead back to."""
    return replay(STEP, TRUTH, LatencyAutoscaler(TRUTH, max_ongoing=5), seed=7)


def keep(
    run: Run, folder: Path, *, measured: bool = True, scaled: bool = True, failed: int = 0
) -> None:
    """Write a run as `treeline loadtest` would have; the first ``failed`` answers are errors."""
    requests = run.requests
    plan = Plan(
        at_s=requests.arrival_s,
        kind=np.zeros(len(requests.arrival_s), np.uint8),
        kinds=KINDS,
        duration_s=float(STEP.duration_s),
        warmup_s=0.0,
    )
    recording = Recording.empty(plan, "lt-test")
    recording.started_at_s = STARTED_S
    recording.begun_s[:] = recording.sent_s[:] = plan.at_s
    recording.done_s[:] = plan.at_s + requests.latency_s
    recording.status[:] = 200
    recording.status[:failed] = 503
    recording.outcome[:] = Outcome.ANSWERED
    decisions = [
        Decision(
            ts=STARTED_S + second + 0.1,
            target=int(target) if scaled else 1,
            running=int(running) if scaled else 1,
            mean_service_ms=20.0 if measured else None,
            service_cv=0.1 if measured else None,
        )
        for second, (target, running) in enumerate(zip(run.target, run.running, strict=True))
    ]
    result = summarise(
        recording,
        target=Target(url="http://127.0.0.1/predict"),
        schedule=Schedule(rate_rps=1.0, duration_s=plan.duration_s, kinds=KINDS),
        objective=Objective(),
        scaling=ScalingHistory(decisions=tuple(decisions)),
    )
    folder.mkdir()
    save(result, recording, folder)


def test_it_leads_back_to_the_service_it_was_recorded_from(tmp_path: Path) -> None:
    run = run_of_a_service()
    keep(run, tmp_path / "run")
    recorded = read_recorded(tmp_path / "run", min_replicas=1, max_replicas=3)
    assert recorded.live.running.tolist() == run.running.tolist()
    assert recorded.live.latency_s == pytest.approx(run.requests.latency_s, abs=1e-6)
    assert recorded.scenario.work[0].mean_s == 0.02
    assert recorded.starts_s == pytest.approx((6.0, 6.0), abs=1.1)  # decisions are 1 s apart
    again = simulate_again(recorded, seed=1)
    assert in_time(again, recorded) == pytest.approx(in_time(recorded.live, recorded), abs=0.05)
    assert again.replica_seconds == pytest.approx(recorded.live.replica_seconds, rel=0.05)


def test_a_failed_request_is_as_late_as_can_be(tmp_path: Path) -> None:
    keep(run_of_a_service(), tmp_path / "run", failed=40)
    recorded = read_recorded(tmp_path / "run", min_replicas=1, max_replicas=3)
    by_window = p95_ms(recorded.live, recorded, window_s=2)
    assert np.isinf(by_window[0])
    assert by_window[10] < 200.0
    assert len(by_window) == 45


@pytest.mark.parametrize(
    ("missing", "why"), [("measured", "how long the work"), ("scaled", "no replica started")]
)
def test_a_run_that_cannot_be_simulated_says_why(tmp_path: Path, missing: str, why: str) -> None:
    keep(run_of_a_service(), tmp_path / "run", **{missing: False})
    with pytest.raises(TraceError, match=why):
        read_recorded(tmp_path / "run", min_replicas=1, max_replicas=3)
