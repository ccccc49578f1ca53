"""Decisions as Prometheus text."""

import json
import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from serve_app.scaling import ScalingRecord, scaling_exposition
from tests.autoscaling.test_serve_policy import Clock, Fleet, Memory, policy


def samples(record: ScalingRecord | None) -> dict[str, float]:
    families = text_string_to_metric_families(scaling_exposition(record).decode())
    return {sample.name: sample.value for family in families for sample in family.samples}


def decided(seconds: int) -> ScalingRecord:
    clock, store = Clock(), Memory()
    fleet, scaler = Fleet(clock, rps=60, work_s=0.01), policy(clock, store)
    for _ in range(seconds):
        scaler(fleet.pass_second())
    return ScalingRecord(**json.loads(store["scaling/treeline/ModelServer"]))


def test_the_newest_decision_is_told_in_base_units() -> None:
    record = decided(seconds=30)
    told = samples(record)
    assert (
        told["treeline_scaling_target_replicas"] == told["treeline_scaling_running_replicas"] == 2
    )
    assert told["treeline_scaling_arrivals_per_second"] == 120.0
    assert told["treeline_scaling_objective_seconds"] == 0.2
    assert 0 <= told["treeline_scaling_late_ratio"] < 0.05
    assert told["treeline_scaling_decision_timestamp_seconds"] == record.decisions[-1]["ts"]
    assert told["treeline_scaling_decision"] == 1
    assert f'term="{record.decisions[-1]["term"]}"' in scaling_exposition(record).decode()


def test_the_grafana_dashboard_asks_for_metrics_that_exist() -> None:
    dashboard = (Path(__file__).parents[2] / "configs/grafana/scaling.json").read_text()
    asked = set(re.findall(r"treeline_scaling_\w+", dashboard))
    assert asked <= samples(decided(seconds=30)).keys()
    assert len(asked) >= 8


def test_what_is_not_known_has_no_sample() -> None:
    told = samples(decided(seconds=1))
    assert told["treeline_scaling_target_replicas"] == 2
    assert "treeline_scaling_late_ratio" not in told


def test_without_a_policy_there_is_nothing() -> None:
    assert scaling_exposition(None) == b""
    assert scaling_exposition(ScalingRecord(slo_ms=200.0, quantile=0.95, decisions=[])) == b""
