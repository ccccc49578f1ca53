"""Under steady load each rule wants what its own formula says."""

import math

import numpy as np
import pytest

from autoscaling.simulator.arrivals import Trace
from autoscaling.simulator.scenario import Scenario
from autoscaling.simulator.study import Job, replay_job

SCENARIO = Scenario(max_replicas=32)
STEADY = Trace(name="steady", rps=np.full(900, 400.0))
BUSY = 400.0 * SCENARIO.mean_service_s  # replicas' worth of work


@pytest.mark.parametrize(
    ("policy", "settings", "share"),
    [
        ("hpa-cpu", {}, 0.8),
        ("hpa-cpu", {"target": 0.5}, 0.5),
        ("hpa-requests", {}, 0.7),
        ("hpa-requests", {"target": 0.4}, 0.4),
        ("sagemaker", {}, 0.7),
        ("inferline", {}, 0.6),
    ],
)
def test_a_target_share_of_capacity_is_kept(policy, settings, share):
    job = Job(policy=policy, settings=settings, trace=STEADY, seed=1, scenario=SCENARIO)
    targets = replay_job(job).target[-300:]
    need = math.ceil(BUSY / share)
    # Rules look at peaks of some seconds, or hold the highest need of minutes: noise adds a fifth.
    assert need <= targets.mean() <= 1.2 * need
    assert targets.max() - targets.min() <= 2


def test_latency_within_its_target_is_no_reason_to_grow():
    calm = Trace(name="calm", rps=np.full(600, 20.0))
    job = Job(policy="hpa-p95", settings={}, trace=calm, seed=1, scenario=SCENARIO)
    assert replay_job(job).target[-300:].max() == 1
