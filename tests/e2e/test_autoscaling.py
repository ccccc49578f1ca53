"""The latency policy in a real Ray Serve: a step in demand, and a controller that dies."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, groupby
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from autoscaling.loadtest.store import load
from autoscaling.simulator.recorded import in_time, read_recorded, simulate_again
from tests.e2e import slow_model
from tests.e2e.application import REPOSITORY, Application, merge
from tests.e2e.log import wait_for
from tests.e2e.processes import pids_of
from tests.e2e.started import started
from tests.e2e.step import Step, read_run

# The first of its fixtures starts a cluster and replays 84 s.
pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

SLO_MS = 200
LOW_RPS, HIGH_RPS = 0.2 * slow_model.CAPACITY_RPS, 1.6 * slow_model.CAPACITY_RPS
STEP_AT_S, KILL_AT_S, STEP_ENDS_S, ENDS_S = 20, 60, 82, 84
BODY = {"instances": [{"a": 0.1, "b": -0.2, "c": 0.3}]}
BUDGET_CPUS = 3


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
    scaling = application["deployments"][0]["autoscaling_config"]
    scaling["max_replicas"] = 3  # each start costs seconds of CPU
    document["applications"].append(shop_under_a_budget(scaling))
    path = {"PYTHONPATH": str(REPOSITORY)}
    with started(Application(folder, document, environment=path)) as running:
        yield running


def shop_under_a_budget(scaling: dict[str, Any]) -> dict[str, Any]:
    """An application whose two deployments share CPUs; late requests of Fraud are dearer."""
    options = {"autoscaling_config": {**scaling, "policy": None, "max_replicas": 2}}
    del options["autoscaling_config"]["policy"]
    return {
        "name": "shop",
        "route_prefix": "/shop",
        "import_path": "tests.e2e.shop:build",
        "autoscaling_policy": {
            "policy_function": "autoscaling.serve_budget:LatencyBudgetPolicy",
            "policy_kwargs": {
                "budget_cpus": BUDGET_CPUS,
                "deployments": {"Fraud": {"caution": 4.0}},
            },
        },
        "deployments": [
            {"name": name, "ray_actor_options": {"num_cpus": 0.1}, **options}
            for name in ("Ranking", "Fraud")
        ],
    }


def decisions(application: Application) -> list[dict[str, Any]]:
    answer = httpx.get(f"{application.url}/monitor/api/scaling", timeout=10)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["decisions"]
    return found


@dataclass(frozen=True, kw_only=True)
class Replay:
    """A step in demand in the middle of which the controller was killed."""

    folder: Path
    killed_s: float  # on the load test's own clock
    judged_after_s: float


@pytest.fixture(scope="module")
def replay(slow: Application) -> Replay:
    """Replay the step with `treeline loadtest`, one row a request."""
    wait_for(lambda: decisions(slow) != [], timeout_s=30, what="a first decision")
    rates = [LOW_RPS] * STEP_AT_S + [HIGH_RPS] * (STEP_ENDS_S - STEP_AT_S)
    rates += [LOW_RPS] * (ENDS_S - STEP_ENDS_S)
    lines = [f"{second},{rate}" for second, rate in enumerate(rates)]
    (slow.folder / "step.csv").write_text("\n".join(["t_s,rps", *lines]) + "\n")
    (slow.folder / "body.json").write_text(json.dumps(BODY))
    folder = slow.folder / "loadtest"
    options = {
        "--url": f"{slow.url}/predict",
        "--trace": str(slow.folder / "step.csv"),
        "--mix": "1",
        "--rows": "1",
        "--body": str(slow.folder / "body.json"),
        "--slo-ms": str(SLO_MS),
        "--connections": "1000",
        "--timeout": "60",
        "--out": str(folder),
    }
    treeline = str(Path(sys.executable).with_name("treeline"))
    command = [treeline, "loadtest", *chain(*options.items()), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        # The generator takes a second or two to begin: `killed_s` is on its own clock.
        time.sleep(KILL_AT_S)
        (controller,) = pids_of(slow, "ray::ServeController")
        killed_at_s = time.time()
        os.kill(controller, signal.SIGKILL)
        judged_after_s = wait_for(
            lambda: knows(decisions(slow)[-1], since_s=killed_at_s),
            timeout_s=60,
            what="a judgement by the new controller",
        )
        _, errors = running.communicate(timeout=120)
    assert running.returncode in (0, 1), errors
    started_s = datetime.fromisoformat(load(folder).started_at).timestamp()
    return Replay(folder=folder, killed_s=killed_at_s - started_s, judged_after_s=judged_after_s)


def knows(decision: dict[str, Any], *, since_s: float) -> bool:
    """Whether it was made since then, from a rate and a service time."""
    judged = decision["arrivals_rps"] is not None and decision["mean_service_ms"] is not None
    return judged and decision["ts"] > since_s


def test_replicas_follow_a_step(replay: Replay) -> None:
    # Until the controller dies: what its death costs is judged on its own, below.
    step = Step.measure(replay.folder, at_s=STEP_AT_S, until_s=replay.killed_s, slo_ms=SLO_MS)
    print(step)
    assert step.ordered_s <= 5.0, step  # so all serve within a cold start plus 5 s
    assert step.p95_back_s - step.serving_s <= 15.0, step
    requests, _ = read_run(replay.folder)
    assert not (requests["status"] >= 500).any()
    recovered = requests[requests["planned_s"] >= STEP_AT_S + step.p95_back_s]
    assert (recovered["status"] == 200).all()


def test_a_dead_controller_costs_neither_replicas_nor_judgement(replay: Replay) -> None:
    _, decided = read_run(replay.folder)
    before = [each for each in decided if each.ts < replay.killed_s][-1]
    after = [each for each in decided if replay.killed_s <= each.ts < STEP_ENDS_S]
    whole = Step.measure(replay.folder, at_s=replay.killed_s, until_s=STEP_ENDS_S, slo_ms=SLO_MS)
    print(
        f"judged again after {replay.judged_after_s:.1f} s, p95 back after {whole.p95_back_s:.0f}"
    )
    assert whole.p95_back_s < STEP_ENDS_S - replay.killed_s  # a controller that starts takes CPU
    assert before.running >= 2
    assert {each.target for each in after} == {before.target}
    assert {each.running for each in after} == {before.running}
    # The new controller's process has to start first: 10 s on two cores at a load of 7, 12 at 10.
    assert replay.judged_after_s <= 20.0


def test_replicas_come_back_down_without_flapping(slow: Application, replay: Replay) -> None:
    took_s = wait_for(lambda: decisions(slow)[-1]["running"] == 1, timeout_s=90, what="1 replica")
    print(f"down {took_s:.0f} s after the load")
    _, decided = read_run(replay.folder)
    targets = [each.target for each in decided] + [each["target"] for each in decisions(slow)]
    turns = [target for target, _ in groupby(targets)]
    top = turns.index(max(turns))
    assert turns == sorted(turns[:top]) + sorted(turns[top:], reverse=True)  # up once, down once
    metrics = httpx.get(f"{slow.url}/metrics").text
    assert "treeline_scaling_target_replicas 1.0" in metrics


@pytest.mark.soak  # two cores for load generator, cluster and replicas: no verdict for each change
def test_simulation_and_life_agree(replay: Replay) -> None:
    """With work and starts as measured in the run, and nothing fitted."""
    recorded = read_recorded(replay.folder, min_replicas=1, max_replicas=3)
    simulated = simulate_again(recorded, seed=1)
    live = recorded.live
    print(in_time(live, recorded), in_time(simulated, recorded), recorded.starts_s)
    assert in_time(simulated, recorded) == pytest.approx(in_time(live, recorded), abs=0.15)
    assert simulated.replica_seconds == pytest.approx(live.replica_seconds, rel=0.15)
    assert simulated.running.max() == live.running.max()


def test_an_applications_deployments_keep_within_its_budget(slow: Application) -> None:
    def newest() -> dict[str, Any]:
        answer = httpx.get(f"{slow.url}/shop", timeout=10)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    wait_for(lambda: newest()["Fraud"]["running"] == 2, timeout_s=60, what="two Fraud replicas")
    shop = newest()
    assert shop["Fraud"]["target"] + shop["Ranking"]["target"] == BUDGET_CPUS
    assert shop["Ranking"]["term"] == "budget"
