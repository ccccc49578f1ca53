"""Everything is killed, storage goes away, releases roll: no answered request is lost or doubled.

The short form is part of `make test`; `make soak` runs the long one. Its parameters come from the
environment: TREELINE_SOAK_SEED, and at least TREELINE_SOAK_KILLS, TREELINE_SOAK_OUTAGES and
TREELINE_SOAK_MINUTES.
"""

import dataclasses
import json
import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.e2e.application import REPOSITORY, Application, merge
from tests.e2e.chaos import Cluster, Target, Traffic, audit, plan, strike, wait_until_stored
from tests.e2e.log import query, verify, wait_for
from tests.e2e.s3 import FaultProxy, S3Server

pytestmark = [pytest.mark.ray, pytest.mark.s3, pytest.mark.timeout(900)]

SINK = "log/treeline"


@pytest.fixture(scope="module")
def application(
    tmp_path_factory: pytest.TempPathFactory,
    demo_root: Path,
    s3_server: S3Server,
    s3_proxy: FaultProxy,
) -> Iterator[Application]:
    """Two replicas whose log goes to a real S3 server through a proxy that can fail."""
    document = yaml.safe_load((REPOSITORY / "configs/s3.yaml").read_text())
    changes = {
        "model_root": str(demo_root),
        "agent": {"file_max_age_s": 3},
        "serving": {"num_replicas": 2, "num_cpus": 0.1},
    }
    application = document["applications"][0]
    application["args"] = merge(application["args"], changes)
    folder = tmp_path_factory.mktemp("chaos")
    running = Application(folder, document, s3_server.environment(endpoint=s3_proxy.endpoint))
    try:
        running.start()
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="module")
def local_sink(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mirror")


def predict_url(application: Application) -> str:
    return f"{application.url}/predict"


def check_log(server: S3Server, local_sink: Path, traffic: Traffic, prefix: str) -> None:
    """Answered requests are stored once each, nothing else is, and the ledger agrees."""
    wait_until_stored(server, SINK, local_sink, traffic, prefix)
    wait_for(lambda: settled(server, local_sink), timeout_s=240, what="a ledger without gaps")
    found = audit(local_sink, traffic, prefix)
    assert found.clean, found
    verdict = verify(str(local_sink))
    assert verdict["ok"], verdict["problems"]
    counts = {name: verdict[name] for name in ("received", "written", "sampled_out", "dropped")}
    print(f"{prefix}: {dict(traffic.outcomes)}; all answered stored once; ledger {counts}")


def settled(server: S3Server, local_sink: Path) -> bool:
    """Files of one producer's numbers may reach storage out of order while a backlog drains."""
    server.mirror(SINK, local_sink)
    ok: bool = verify(str(local_sink))["ok"]
    return ok


def run_chaos(
    application: Application,
    server: S3Server,
    proxy: FaultProxy,
    local_sink: Path,
    body: bytes,
    *,
    seed: int,
    kills: int,
    outages: int,
    mean_wait_s: float,
    least_s: float = 0.0,
) -> Cluster:
    """Carry a plan out, and more kills of the same kinds until ``least_s`` seconds are over."""
    rng = random.Random(seed)
    blows = plan(rng, kills=kills, outages=outages, mean_wait_s=mean_wait_s)
    cluster = Cluster(application.ray_folder)
    prefix = f"chaos{seed}"
    ends_s = time.monotonic() + least_s
    with Traffic(predict_url(application), body, prefix=prefix) as traffic:
        strike(blows, cluster, proxy, traffic, rng)
        while time.monotonic() < ends_s:
            more = plan(rng, kills=1, outages=0, mean_wait_s=mean_wait_s)
            strike(more, cluster, proxy, traffic, rng)
        traffic.wait_for_answers(300)
    check_log(server, local_sink, traffic, prefix)
    return cluster


def test_killing_everything_loses_and_doubles_nothing(
    application: Application,
    s3_server: S3Server,
    s3_proxy: FaultProxy,
    local_sink: Path,
    body: bytes,
) -> None:
    cluster = run_chaos(
        application,
        s3_server,
        s3_proxy,
        local_sink,
        body,
        seed=1,
        kills=7,
        outages=1,
        mean_wait_s=2,
    )
    assert set(cluster.killed) == set(Target)
    assert cluster.killed.total() == 7


def test_releases_and_scaling_down_under_load_lose_and_double_nothing(
    application: Application,
    s3_server: S3Server,
    local_sink: Path,
    body: bytes,
) -> None:
    """Changed args, changed code, then one replica instead of two, each while requests come."""
    document = application.document
    with Traffic(predict_url(application), body, prefix="release") as traffic:
        for release in (changed_args, changed_code, scaled_down):
            document = release(document, application.folder)
            application.deploy(document)
            traffic.wait_for_answers(300)
        wait_for(
            lambda: len(Cluster(application.ray_folder).pids(Target.REPLICA)) == 1,
            timeout_s=120,
            what="one replica",
        )
    answer = httpx.post(predict_url(application), content=body)
    assert answer.headers["x-release"] == "2"
    check_log(s3_server, local_sink, traffic, "release")


def changed_args(document: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Other limits and another file age: replicas and agents are both replaced."""
    journal = {"segment_bytes": 64 * 1024, "quota_bytes": 512 * 1024}
    args = {"capture": {"batch_rows": 200, "journal": journal}, "agent": {"file_max_age_s": 2}}
    return with_application(document, {"args": args})


def changed_code(document: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A second release of the code: the same application, whose answers say that they are new.

    The clocks of its processes can be set, see ``SCRIPTED_CLOCK``.
    """
    (folder / "release_two.py").write_text(RELEASE_TWO)
    (folder / "sitecustomize.py").write_text(SCRIPTED_CLOCK.format(file=str(folder / "clock")))
    new = {
        "import_path": "release_two:build",
        "runtime_env": {"env_vars": {"PYTHONPATH": f"{folder}:{REPOSITORY}"}},
    }
    return with_application(document, new)


RELEASE_TWO = """
from serve_app import app, model_server


class ModelServer(model_server.ModelServer):
    def __serve_build_asgi_app__(self):
        inner = super().__serve_build_asgi_app__()

        async def outer(scope, receive, send):
            async def tagged(message):
                if message["type"] == "http.response.start":
                    headers = [*message["headers"], (b"x-release", b"2")]
                    message = {**message, "headers": headers}
                await send(message)

            await inner(scope, receive, tagged)

        return outer


app.ModelServer = ModelServer
build = app.build
"""


# Python runs this before anything else in every process that finds it on its path. The file holds
# seconds that are added to the wall clock; the monotonic clock goes on as it does.
SCRIPTED_CLOCK = """
import os
import time

real_ns = time.time_ns


def ahead_ns():
    try:
        with open({file!r}) as file:
            return int(float(file.read() or 0) * 1e9)
    except OSError:
        return 0


time.time_ns = lambda: real_ns() + ahead_ns()
time.time = lambda: time.time_ns() / 1e9
"""


def scaled_down(document: dict[str, Any], folder: Path) -> dict[str, Any]:
    deployment = document["applications"][0]["deployments"][0] | {"num_replicas": 1}
    return with_application(document, {}) | {
        "applications": [document["applications"][0] | {"deployments": [deployment]}]
    }


def with_application(document: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return document | {"applications": [merge(document["applications"][0], changes)]}


def test_a_full_quota_costs_counted_events_and_no_request(
    application: Application, s3_server: S3Server, local_sink: Path, body: bytes
) -> None:
    """The agent stands still until the journal is full: stored and counted drops are all answers.

    Runs on what the releases left: one replica, whose journal may use 512 KiB.
    """
    before = dropped_events(s3_server, local_sink)
    (agent,) = Cluster(application.ray_folder).pids(Target.AGENT)
    with Traffic(predict_url(application), body, prefix="quota", rate_per_s=300) as traffic:
        traffic.wait_for_answers(100)
        os.kill(agent, signal.SIGSTOP)
        try:
            wait_for(
                lambda: any("past the quota" in line for line in warnings(application)),
                timeout_s=60,
                what="a warning of the full journal",
            )
            traffic.wait_for_answers(1000)
        finally:
            os.kill(agent, signal.SIGCONT)
        traffic.wait_for_answers(300)
    assert not traffic.failed, traffic.outcomes

    def accounted() -> bool:
        dropped = dropped_events(s3_server, local_sink) - before
        missing = len(audit(local_sink, traffic, "quota").missing)
        return missing == dropped.total() and verify(str(local_sink))["ok"]

    wait_for(accounted, timeout_s=240, what="stored and dropped events that make all answers")
    dropped = dropped_events(s3_server, local_sink) - before
    assert dropped.keys() == {"journal_full"}
    found = audit(local_sink, traffic, "quota")
    assert dataclasses.replace(found, missing=set()).clean, found
    print(f"quota: {dict(traffic.outcomes)}, dropped {dict(dropped)}")


def warnings(application: Application) -> list[str]:
    answer = httpx.get(f"{application.url}/monitor/api/health", timeout=30).json()
    found: list[str] = answer["warnings"]
    return found


def dropped_events(server: S3Server, local_sink: Path) -> Counter[str]:
    server.mirror(SINK, local_sink)
    return Counter(verify(str(local_sink))["dropped"])


def test_clocks_that_jump_by_hours_lose_and_double_nothing(
    application: Application, s3_server: S3Server, local_sink: Path, body: bytes
) -> None:
    """The wall clocks of replica and agent jump, and the agent is killed under each of them.

    Slowly, for the journal's quota is small here and the agent away for half a minute in all.
    """
    clock = application.folder / "clock"
    cluster = Cluster(application.ray_folder)
    began_s = time.time()
    with Traffic(predict_url(application), body, prefix="clock", rate_per_s=20) as traffic:
        for ahead_s in (3 * 3600, -2 * 3600, 0):
            clock.write_text(str(ahead_s))
            traffic.wait_for_answers(60)
            cluster.kill(Target.AGENT, random.Random(1))
            traffic.wait_for_answers(60)
    check_log(s3_server, local_sink, traffic, "clock")
    rows = query(
        local_sink,
        "select epoch(ts), strftime(ts, 'date=%Y-%m-%d/hour=%H'), filename from {log} "
        "where request_id like 'clock-%'",
    )
    earliest_s, latest_s = began_s - 2 * 3600, time.time() + 3 * 3600
    assert all(earliest_s <= ts_s <= latest_s for ts_s, _, _ in rows)
    assert {round((ts_s - began_s) / 3600) for ts_s, _, _ in rows} == {3, -2, 0}
    assert all(hour in file for _, hour, file in rows), "a row lies in another hour than its own"


def test_a_file_removed_or_doubled_by_hand_is_found(
    application: Application, local_sink: Path, tmp_path: Path
) -> None:
    """Works on the copy of the log that the tests before have left."""
    assert verify(str(local_sink))["ok"]
    files = sorted((local_sink / "events").rglob("*.parquet"))
    victim = files[len(files) // 2]
    coverage = coverage_of(victim)
    copy = tmp_path / "removed"
    shutil.copytree(local_sink, copy)
    (copy / victim.relative_to(local_sink)).unlink()
    assert ranges(verify(str(copy)), "gap") == coverage

    copy = tmp_path / "doubled"
    shutil.copytree(local_sink, copy)
    original = copy / victim.relative_to(local_sink)
    shutil.copy(original, original.with_name(f"copy-of-{original.name}"))
    assert ranges(verify(str(copy)), "overlap") == coverage


def coverage_of(file: Path) -> set[tuple[str, int, int]]:
    import pyarrow.parquet as pq

    covered = json.loads(pq.read_metadata(file).metadata[b"treeline.coverage"])
    return {(p, part["first"], part["last"]) for p, parts in covered.items() for part in parts}


def ranges(verdict: dict[str, Any], kind: str) -> set[tuple[str, int, int]]:
    assert not verdict["ok"]
    found = [p for p in verdict["problems"] if p["kind"] == kind]
    return {(p["producer"], p["first"], p["last"]) for p in found}


@pytest.mark.soak
@pytest.mark.timeout(2 * 3600)
def test_soak(
    application: Application,
    s3_server: S3Server,
    s3_proxy: FaultProxy,
    local_sink: Path,
    body: bytes,
) -> None:
    kills = int(os.environ.get("TREELINE_SOAK_KILLS", "60"))
    minutes = float(os.environ.get("TREELINE_SOAK_MINUTES", "30"))
    cluster = run_chaos(
        application,
        s3_server,
        s3_proxy,
        local_sink,
        body,
        seed=int(os.environ.get("TREELINE_SOAK_SEED", "7")),
        kills=kills,
        outages=int(os.environ.get("TREELINE_SOAK_OUTAGES", "5")),
        mean_wait_s=minutes * 60 / kills / 2,  # a kill costs about as long until answers come again
        least_s=minutes * 60,
    )
    print(f"killed {cluster.killed.total()}: {dict(cluster.killed)}")
    assert cluster.killed.total() >= kills
