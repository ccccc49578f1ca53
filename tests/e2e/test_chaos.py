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
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.e2e.application import REPOSITORY, Application
from tests.e2e.blows import Blow, Change, Fill, Target, plan
from tests.e2e.chaos import Cluster, Stage, Traffic, audit, strike
from tests.e2e.log import query, verify, wait_for
from tests.e2e.releases import changed, set_clocks, with_application, with_own_folder
from tests.e2e.s3 import FaultProxy, S3Server
from tests.e2e.started import started

pytestmark = [pytest.mark.ray, pytest.mark.s3, pytest.mark.timeout(900)]

SINK = "log/treeline"
QUOTA_BYTES = 2 * 1024 * 1024  # a minute of a replica's requests, ten seconds of ``FILL_PER_S``


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
        "capture": {"journal": {"segment_bytes": 256 * 1024, "quota_bytes": QUOTA_BYTES}},
        "serving": {"num_replicas": 2, "num_cpus": 0.1},
    }
    folder = tmp_path_factory.mktemp("chaos")
    document = with_own_folder(with_application(document, {"args": changes}), folder)
    environment = s3_server.environment(endpoint=s3_proxy.endpoint)
    with started(Application(folder, document, environment)) as running:
        yield running


@pytest.fixture(scope="module")
def local_sink(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mirror")


def check_log(
    server: S3Server, local_sink: Path, traffic: Traffic, before: Counter[str]
) -> Counter[str]:
    """Answered requests are stored once each, nothing else is, and the ledger agrees.

    Those for which a journal had no room are counted instead; returns these drops. ``before`` are
    the drops of earlier load. A request that failed at its client may be among them as well.
    """

    def accounted() -> bool:
        server.mirror(SINK, local_sink)
        verdict = verify(str(local_sink))
        full = (Counter(verdict["dropped"]) - before)["journal_full"]
        missing = len(audit(local_sink, traffic).missing)
        return bool(verdict["ok"]) and missing <= full <= missing + len(traffic.failed)

    wait_for(accounted, timeout_s=300, what="every answered request stored or counted")
    found = audit(local_sink, traffic)
    assert dataclasses.replace(found, missing=set()).clean, found
    dropped = dropped_events(server, local_sink) - before
    assert dropped.keys() <= {"journal_full", "torn"}, dropped
    print(
        f"{traffic.prefix}: {dict(traffic.outcomes)}; stored once but {len(found.missing)}"
        f" of {dropped['journal_full']} dropped for want of room"
    )
    return dropped


def run_chaos(
    stage: Stage,
    server: S3Server,
    local_sink: Path,
    blows: list[Blow],
    *,
    kills_until_s: float = 0.0,
    mean_wait_s: float,
) -> Counter[str]:
    """Carry a plan out, and more kills of the same kinds until then; return what was dropped."""
    before = dropped_events(server, local_sink)
    with stage.traffic:
        strike(blows, stage)
        while time.monotonic() < kills_until_s:
            strike(plan(stage.rng, kills=1, mean_wait_s=mean_wait_s), stage)
        stage.traffic.wait_for_answers(300)
    return check_log(server, local_sink, stage.traffic, before)


def stage_for(
    application: Application,
    proxy: FaultProxy,
    body: bytes,
    *,
    prefix: str,
    seed: int = 0,
    rate_per_s: float = 150.0,
) -> Stage:
    url = f"{application.url}/predict"
    return Stage(
        application=application,
        cluster=Cluster(application.ray_folder),
        proxy=proxy,
        traffic=Traffic(url, body, prefix=prefix, rate_per_s=rate_per_s),
        rng=random.Random(seed),
    )


def test_killing_everything_loses_and_doubles_nothing(
    application: Application,
    s3_server: S3Server,
    s3_proxy: FaultProxy,
    local_sink: Path,
    body: bytes,
) -> None:
    stage = stage_for(application, s3_proxy, body, prefix="chaos1", seed=1)
    blows = plan(stage.rng, mean_wait_s=2, kills=7, outages=2, skews=1)
    dropped = run_chaos(stage, s3_server, local_sink, blows, mean_wait_s=2)
    assert "journal_full" not in dropped
    assert set(stage.cluster.killed) == set(Target)
    assert stage.cluster.killed.total() == 7


def test_releases_and_scaling_down_under_load_lose_and_double_nothing(
    application: Application,
    s3_server: S3Server,
    s3_proxy: FaultProxy,
    local_sink: Path,
    body: bytes,
) -> None:
    """Changed args, changed code, then one replica instead of two, each while requests come."""
    document = application.document
    before = dropped_events(s3_server, local_sink)
    stage = stage_for(application, s3_proxy, body, prefix="release")
    with stage.traffic as traffic:
        for change in Change:
            document = changed(document, change, application.folder)
            application.deploy(document)
            traffic.wait_for_answers(300)
        wait_for(
            lambda: len(stage.cluster.pids(Target.REPLICA)) == 1,
            timeout_s=120,
            what="one replica",
        )
    answer = httpx.post(f"{application.url}/predict", content=body)
    assert answer.headers["x-release"] == "2"
    logs = application.ray_folder.glob("ray/session_latest/logs/serve/replica_*ModelServer*.log")
    assert not [log for log in logs if "no fast path" in log.read_text()]
    assert not check_log(s3_server, local_sink, traffic, before)


def test_a_full_quota_costs_counted_events_and_no_request(
    application: Application,
    s3_server: S3Server,
    s3_proxy: FaultProxy,
    local_sink: Path,
    body: bytes,
) -> None:
    """The agent stands still until the journal is full: stored and counted drops are all answers.

    Runs on what the releases left: one replica.
    """
    before = dropped_events(s3_server, local_sink)
    stage = stage_for(application, s3_proxy, body, prefix="quota")
    with stage.traffic as traffic:
        strike([Fill(wait_s=0.0)], stage)
        traffic.wait_for_answers(300)
    assert not traffic.failed, traffic.outcomes
    dropped = check_log(s3_server, local_sink, traffic, before)
    assert dropped.keys() == {"journal_full"}


def dropped_events(server: S3Server, local_sink: Path) -> Counter[str]:
    server.mirror(SINK, local_sink)
    return Counter(verify(str(local_sink))["dropped"])


def test_clocks_that_jump_by_hours_lose_and_double_nothing(
    application: Application,
    s3_server: S3Server,
    s3_proxy: FaultProxy,
    local_sink: Path,
    body: bytes,
) -> None:
    """The wall clocks of replica and agent jump, and the agent is killed under each of them.

    Slowly, for the agent is away for half a minute in all and the journal's quota is small.
    """
    before = dropped_events(s3_server, local_sink)
    began_s = time.time()
    stage = stage_for(application, s3_proxy, body, prefix="clock", rate_per_s=40)
    with stage.traffic as traffic:
        for ahead_s in (3 * 3600, -2 * 3600, 0):
            set_clocks(application.folder, ahead_s)
            traffic.wait_for_answers(60)
            stage.cluster.kill(Target.AGENT, stage.rng)
            traffic.wait_for_answers(60)
    assert not check_log(s3_server, local_sink, traffic, before)
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
    seed = int(os.environ.get("TREELINE_SOAK_SEED", "7"))
    stage = stage_for(application, s3_proxy, body, prefix=f"soak{seed}", seed=seed)
    mean_wait_s = minutes * 60 / kills / 2  # a kill costs about as long until answers come again
    blows = plan(
        stage.rng,
        mean_wait_s=mean_wait_s,
        kills=kills,
        outages=int(os.environ.get("TREELINE_SOAK_OUTAGES", "7")),
        skews=3,
        fills=2,
        releases=3,
    )
    until_s = time.monotonic() + minutes * 60
    dropped = run_chaos(
        stage, s3_server, local_sink, blows, mean_wait_s=mean_wait_s, kills_until_s=until_s
    )
    killed = stage.cluster.killed
    print(f"killed {killed.total()}: {dict(killed)}; dropped {dict(dropped)}")
    assert killed.total() >= kills
    assert dropped["journal_full"]
