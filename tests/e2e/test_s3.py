"""The log on a real S3-protocol server: wrong credentials, and storage that goes away in many ways.

One application on one `state_dir`, started twice: first with credentials the server refuses.
"""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import httpx
import numpy as np
import pytest
import yaml

from tests.e2e.application import REPOSITORY, Application, merge
from tests.e2e.blows import Target
from tests.e2e.chaos import Cluster, Traffic
from tests.e2e.log import count, query, verify, wait_for
from tests.e2e.s3 import Fault, FaultProxy, S3Server
from tests.e2e.started import started
from tests.e2e.traffic import load

pytestmark = [pytest.mark.ray, pytest.mark.s3, pytest.mark.timeout(600)]

SINK = "s3://log/treeline"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("app")


def s3_application(folder: Path, demo_root: Path, environment: dict[str, str]) -> Application:
    """`configs/s3.yaml`, with files young enough for a test."""
    document = yaml.safe_load((REPOSITORY / "configs/s3.yaml").read_text())
    application = document["applications"][0]
    changes = {"model_root": str(demo_root), "agent": {"file_max_age_s": 2}}
    application["args"] = merge(application["args"], changes)
    return Application(folder, document, environment)


@pytest.fixture(scope="module")
def application(
    folder: Path, demo_root: Path, s3_server: S3Server, s3_proxy: FaultProxy, body: bytes
) -> Iterator[Application]:
    """The second life, with the right credentials; the first has answered 300 requests."""
    right = s3_server.environment(endpoint=s3_proxy.endpoint)
    wrong = right | {"AWS_SECRET_ACCESS_KEY": "not-the-secret"}
    with started(s3_application(folder, demo_root, wrong)) as first:
        answers = load(f"{first.url}/predict", body, requests=300, concurrency=4, prefix="refused")
        assert answers.statuses == {200: 300}
        wait_for(lambda: bool(complaints(first)), timeout_s=60, what="the error about credentials")
    errors = complaints(first)
    assert len(errors) == 1, errors
    assert f"cannot write to {SINK} at {s3_proxy.endpoint}" in errors[0]
    assert "not-the-secret" not in first.log.read_text()
    with started(s3_application(folder, demo_root, right)) as running:
        yield running


def complaints(application: Application) -> list[str]:
    """Lines of the agent about its sink, as `serve run` shows them."""
    return [line for line in application.log.read_text().splitlines() if "cannot write to" in line]


def stored(server: S3Server, folder: Path, prefix: str) -> int:
    local = folder / "mirror"
    server.mirror("log/treeline", local)
    return count(local, prefix)


def wait_until_stored(server: S3Server, folder: Path, prefix: str, requests: int) -> None:
    """Every request once. The agent's waits between attempts double, so this may take a minute."""
    wait_for(
        lambda: stored(server, folder, prefix) >= requests,
        timeout_s=150,
        what=f"{requests} requests {prefix!r} on storage",
    )
    ids = f"select count(*), count(distinct event_id), count(distinct request_id) from {{log}} where request_id like '{prefix}-%'"  # noqa: E501
    assert query(folder / "mirror", ids) == [(requests, requests, requests)]


def test_events_taken_under_wrong_credentials_are_stored_once_they_are_right(
    application: Application, s3_server: S3Server, folder: Path
) -> None:
    wait_until_stored(s3_server, folder, "refused", 300)


def test_a_request_is_read_back_from_s3(
    application: Application, s3_server: S3Server, folder: Path, body: bytes
) -> None:
    headers = {"X-Request-ID": "one-1"}
    answer = httpx.post(f"{application.url}/predict", content=body, headers=headers)
    assert answer.status_code == 200
    wait_until_stored(s3_server, folder, "one", 1)
    sql = "select version, weight, label from {log} where request_id = 'one-1'"
    label = answer.json()["predictions"][0]["label"]
    assert query(folder / "mirror", sql) == [("1.0.0", 1.0, label)]


@pytest.mark.parametrize("fault", [fault for fault in Fault if fault is not Fault.PASS])
def test_requests_are_answered_while_storage_fails(
    application: Application, s3_proxy: FaultProxy, body: bytes, fault: Fault
) -> None:
    failures = failed_uploads(application)
    s3_proxy.switch(fault)
    try:
        url = f"{application.url}/predict"
        answers = load(url, body, requests=400, concurrency=4, prefix=f"away_{fault}")
        assert answers.statuses == {200: 400}
        if fault not in (Fault.HANG, Fault.DELAY):  # noticed after the time-out at the earliest
            wait_for(
                lambda: failed_uploads(application) > failures,
                timeout_s=90,
                what=f"a failed upload under {fault}",
            )
    finally:
        s3_proxy.switch(Fault.PASS)


def test_all_of_it_is_stored_once_when_storage_is_back(
    application: Application,
    s3_proxy: FaultProxy,
    s3_server: S3Server,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for fault in Fault:
        if fault is not Fault.PASS:
            wait_until_stored(s3_server, folder, f"away_{fault}", 400)
    assert s3_proxy.dropped_responses > 0
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    verdict = verify(SINK)
    assert verdict["ok"], verdict["problems"]
    assert verdict["received"] == verdict["written"]


@dataclass(frozen=True, kw_only=True)
class Window:
    """Ten seconds under load: what clients saw, what the processes held at its end."""

    p50_ms: float
    p99_ms: float
    replica_mib: float
    agent_mib: float


WINDOW_S = 10.0


def watch(traffic: Traffic, cluster: Cluster, seconds: float) -> list[Window]:
    """Measure window by window while the load goes on."""
    windows = []
    ends_s = time.monotonic() + seconds
    while time.monotonic() < ends_s:
        before = len(traffic.latencies_s)
        time.sleep(WINDOW_S)
        p50, p99 = (np.percentile(traffic.latencies_s[before:], [50, 99]) * 1e3).tolist()
        replica, agent = (cluster.memory_mib(kind) for kind in (Target.REPLICA, Target.AGENT))
        windows.append(Window(p50_ms=p50, p99_ms=p99, replica_mib=replica, agent_mib=agent))
        print(f"{traffic.outcomes.total():>7} requests, {windows[-1]}", flush=True)
    return windows


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_storage_away_for_minutes_under_load(
    application: Application,
    s3_proxy: FaultProxy,
    s3_server: S3Server,
    folder: Path,
    body: bytes,
) -> None:
    """Storage is here, away, and here again; medians over windows of 10 s are compared.

    TREELINE_SOAK_OUTAGE_MINUTES and TREELINE_SOAK_RATE (requests a second) set its size.
    """
    away_s = 60 * float(os.environ.get("TREELINE_SOAK_OUTAGE_MINUTES", "5"))
    rate = float(os.environ.get("TREELINE_SOAK_RATE", "500"))
    cluster = Cluster(application.ray_folder)
    url = f"{application.url}/predict"
    with Traffic(url, body, prefix="long", rate_per_s=rate) as traffic:
        before = watch(traffic, cluster, away_s / 2)
        s3_proxy.switch(Fault.REFUSE)
        try:
            away = watch(traffic, cluster, away_s)
        finally:
            s3_proxy.switch(Fault.PASS)
        after = watch(traffic, cluster, away_s / 2)
    here = [*before, *after]
    for name, windows in (("here", here), ("away", away)):
        p50 = median(w.p50_ms for w in windows)
        p99 = median(w.p99_ms for w in windows)
        memory = [max(w.replica_mib for w in windows), max(w.agent_mib for w in windows)]
        print(f"storage {name}: p50 {p50:.2f} p99 {p99:.2f} ms, replica, agent MiB {memory}")
    assert not traffic.failed, traffic.outcomes
    # A window's p99 is the noise of the machine; half as much again is far outside it.
    assert median(w.p99_ms for w in away) < 1.5 * median(w.p99_ms for w in here) + 1
    # What waits, waits on disk: 300 bytes of each of 150,000 requests in memory would be 45 MB.
    assert away[-1].replica_mib < away[0].replica_mib + 16
    assert away[-1].agent_mib < max(w.agent_mib for w in before) + 64
    wait_until_stored(s3_server, folder, "long", len(traffic.answered))


def failed_uploads(application: Application) -> float:
    text = httpx.get(f"{application.url}/metrics", timeout=20).text
    (line,) = [line for line in text.splitlines() if line.startswith(FAILURES)]
    return float(line.rsplit(" ", 1)[1])


FAILURES = "treeline_sink_failures_total "
