"""The latency policy in a real Ray Serve: a step in demand, and a controller that dies."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest
import yaml

from tests.e2e import slow_model
from tests.e2e.application import REPOSITORY, Application, merge
from tests.e2e.log import wait_for
from tests.e2e.processes import pids_of

pytestmark = pytest.mark.ray

SLO_MS = 200
LOW_RPS, HIGH_RPS = 0.2 * slow_model.CAPACITY_RPS, 1.6 * slow_model.CAPACITY_RPS
STEP_AT_S, STEP_ENDS_S, ENDS_S = 20, 110, 112
BODY = {"instances": [{"a": 0.1, "b": -0.2, "c": 0.3}]}


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    folder = tmp_path_factory.mktemp("scaling")
    slow_model.store(folder / "models", folder)
    document = yaml.safe_load((REPOSITORY / "configs/autoscaling.yaml").read_text())
    application = document["applications"][0]
    application["args"] = merge(
        application["args"],
        {
            "model": {"name": "slow", "version": "1.0.0"},
            "model_root": str(folder / "models"),
            "serving": {"num_cpus": 0.1},
        },
    )
    application["deployments"][0]["autoscaling_config"]["max_replicas"] = (
        3  # each start costs seconds of CPU
    )
    running = Application(folder, document, environment={"PYTHONPATH": str(REPOSITORY)})
    try:
        running.start()
        yield running
    finally:
        running.stop()


def decisions(application: Application) -> list[dict[str, Any]]:
    answer = httpx.get(f"{application.url}/monitor/api/scaling", timeout=10)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["decisions"]
    return found


def loadtest(application: Application, trace: Path, out: Path) -> dict[str, Any]:
    """Replay a trace with `treeline loadtest`, one row a request."""
    (application.folder / "body.json").write_text(json.dumps(BODY))
    options = {
        "--url": f"{application.url}/predict",
        "--trace": str(trace),
        "--mix": "1",
        "--rows": "1",
        "--body": str(application.folder / "body.json"),
        "--slo-ms": str(SLO_MS),
        "--connections": "500",
        "--timeout": "60",
        "--out": str(out),
    }
    treeline = str(Path(sys.executable).with_name("treeline"))
    done = subprocess.run(
        [treeline, "loadtest", *chain(*options.items()), "--json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode in (0, 1), done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_replicas_follow_a_step_and_come_back(slow: Application) -> None:
    wait_for(lambda: decisions(slow) != [], timeout_s=30, what="a first decision")
    trace = slow.folder / "step.csv"
    rates = [LOW_RPS] * STEP_AT_S + [HIGH_RPS] * (STEP_ENDS_S - STEP_AT_S)
    rates += [LOW_RPS] * (ENDS_S - STEP_ENDS_S)
    lines = [f"{second},{rate}" for second, rate in enumerate(rates)]
    trace.write_text("\n".join(["t_s,rps", *lines]) + "\n")
    out = slow.folder / "loadtest"
    loadtest(slow, trace, out)
    requests = pq.read_table(out / "requests.parquet").to_pandas()
    assert not (requests["status"] >= 500).any()
    planned_s = (requests["planned_at"] - requests["planned_at"].min()).dt.total_seconds()
    late = requests[planned_s.between(STEP_ENDS_S - 10, STEP_ENDS_S - 1)]
    assert (late["status"] == 200).all()
    assert late["latency_ms"].quantile(0.95) < SLO_MS
    made = decisions(slow)
    assert max(each["running"] for each in made) >= 2
    assert any("burst" in each["reason"] or "forecast" in each["reason"] for each in made)
    wait_for(lambda: decisions(slow)[-1]["running"] == 1, timeout_s=120, what="scaling down")
    targets = [each["target"] for each in decisions(slow)]
    rises = sum(after > before for before, after in pairwise(targets))
    assert rises <= 6, targets  # up in a few steps, and no flapping on the way down
    assert "treeline_scaling_target_replicas 1.0" in httpx.get(f"{slow.url}/metrics").text


def test_a_dead_controller_costs_neither_replicas_nor_judgement(slow: Application) -> None:
    before = decisions(slow)[-1]
    (controller,) = pids_of(slow, "ray::ServeController")
    os.kill(controller, signal.SIGKILL)

    def judged() -> bool:
        """Ask for a little work, all of it answered, and see whether the policy has taken note."""
        for _ in range(2):
            assert httpx.post(f"{slow.url}/predict", json=BODY, timeout=10).status_code == 200
        newest = decisions(slow)[-1]
        return newest["ts"] > before["ts"] + 2 and newest["arrivals_rps"] is not None

    wait_for(judged, timeout_s=90, what="a judgement by the new controller")
    assert decisions(slow)[-1]["running"] >= before["running"]
    assert all(each["target"] >= before["target"] for each in decisions(slow))
