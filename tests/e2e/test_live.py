"""Live windows and drift on a real cluster: a shift alarms, and an agent's death loses nothing."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.e2e.application import Application, quickstart
from tests.e2e.log import wait_for
from tests.e2e.processes import pids_of
from tests.e2e.started import started
from tests.monitoring.live.receiver import Receiver

pytestmark = pytest.mark.ray

WINDOW_S = 6
ROWS = 60
PATIENCE_S = 90.0
PUBLIC_URL = "https://loans.example"
JUDGED = 120


class Traffic:
    """Sends batches of training rows, as they are or with older applicants."""

    def __init__(self, application: Application, client: httpx.Client, models: Path) -> None:
        self.url = f"{application.url}/predict"
        self.client = client
        table = pq.read_table(models / "credit/1.0.0/baseline.parquet")
        features = [name for name in table.column_names if name.startswith("x_")]
        names = [name.removeprefix("x_") for name in features]
        self.rows = table.select(features).rename_columns(names).to_pylist()
        self.rng = np.random.default_rng(3)
        self.sent = 0

    def send(self, *, older_by: int = 0) -> None:
        chosen = [self.rows[i] for i in self.rng.integers(0, len(self.rows), ROWS)]
        moved = [row | {"age_in_years": row["age_in_years"] + older_by} for row in chosen]
        answer = self.client.post(self.url, json={"instances": moved})
        if answer.status_code == 200:
            self.sent += 1

    def until(self, application: Application, good: Any, *, older_by: int = 0) -> dict[str, Any]:
        """Keep sending until what the application says is good."""
        found: dict[str, Any] = {}

        def is_good() -> bool:
            nonlocal found
            self.send(older_by=older_by)
            answer = self.client.get(f"{application.url}/monitor/api/drift")
            if answer.status_code != 200:
                return False
            found = answer.json()
            return good(found)

        wait_for(is_good, timeout_s=PATIENCE_S, what="a good answer", seen=lambda: found)
        return found


@pytest.fixture(scope="module")
def receiver():
    made = Receiver()
    yield made
    made.close()


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, demo_root: Path, receiver: Receiver):
    args = {
        "alerts": {"webhook_url": receiver.url, "public_url": PUBLIC_URL},
        "model_root": str(demo_root),
        "live": {"drift_window_s": WINDOW_S, "late_s": 2, "false_alarms_per_month": 1_000},
    }
    with started(Application(tmp_path_factory.mktemp("live"), quickstart(args=args))) as running:
        yield running


def counted(application: Application) -> int:
    answer = httpx.get(f"{application.url}/monitor/api/windows?step=day", timeout=30)
    if answer.status_code != 200:
        return -1
    windows = answer.json()["windows"]
    streams = answer.json()["streams"]
    events = sum(window["figures"]["events"] for window in windows)
    assert events == sum(stream["events"] for stream in streams)
    assert all(stream["missed_events"] == 0 for stream in streams)
    return events


def test_shifted_traffic_alarms_an_agent_dies_and_calm_traffic_resolves(
    watched: Application, demo_root: Path, receiver: Receiver
) -> None:
    with httpx.Client(timeout=30) as client:
        follow_a_drift(watched, Traffic(watched, client, demo_root))
    wait_for(lambda: len(receiver.messages) >= 2, timeout_s=PATIENCE_S, what="two messages")
    told = [(message["state"], message["number"]) for message in receiver.messages]
    assert told == [("open", 1), ("resolved", 1)]
    assert "age_in_years" in receiver.messages[0]["text"]
    path = receiver.messages[0]["link"].removeprefix(PUBLIC_URL)
    link = httpx.get(f"{watched.url}{path}", timeout=30)
    assert link.json()["streams"][0]["windows"]
    known = httpx.get(f"{watched.url}/monitor/api/alerts", timeout=30).json()
    assert (known["open"], [alert["state"] for alert in known["alerts"]]) == (0, ["resolved"])
    assert "s3cr3t" not in watched.log.read_text()


def test_wrong_answers_are_flagged_by_their_labels(
    watched: Application, demo_root: Path, receiver: Receiver
) -> None:
    """The opposite of every answer is said to be true, twice; half of it is taken back again."""
    with httpx.Client(timeout=30) as client:
        row = Traffic(watched, client, demo_root).rows[0]
        for number in range(JUDGED):
            answer = client.post(
                f"{watched.url}/predict",
                json={"instances": [row]},
                headers={"X-Request-ID": f"judged-{number}"},
            )
            label = answer.json()["predictions"][0]["label"]
            wrong = "good" if label == "bad" else "bad"
            for value in (wrong, wrong, *([label] if number % 2 else [])):
                said = {"request_id": f"judged-{number}", "kind": "label", "value": value}
                client.post(f"{watched.url}/feedback", json=said).raise_for_status()

    def outcomes() -> dict[str, Any]:
        answer = httpx.get(f"{watched.url}/monitor/api/feedback?step=day", timeout=30)
        return answer.raise_for_status().json()

    wanted = {"credit": {"used": JUDGED, "duplicate": JUDGED, "corrected": JUDGED // 2}}
    wait_for(
        lambda: outcomes()["feedback"] == wanted,
        timeout_s=PATIENCE_S,
        what="that all feedback is joined",
        seen=outcomes,
    )
    (stream,) = outcomes()["streams"]
    assert stream["needs_retraining"] is True
    assert sum(window["requests"] for window in stream["windows"]) == JUDGED
    assert stream["standings"][0]["rate"]["value"] == pytest.approx(0.5, abs=0.1)
    metrics = httpx.get(f"{watched.url}/metrics", timeout=30).text
    labels = '{metric="accuracy",model="credit",variant="champion",version="1.0.0"}'
    assert f"treeline_needs_retraining{labels} 1.0" in metrics
    wait_for(
        lambda: any(message["kind"] == "quality" for message in receiver.messages),
        timeout_s=PATIENCE_S,
        what="an alert of quality",
        seen=lambda: receiver.messages,
    )


def follow_a_drift(watched: Application, traffic: Traffic) -> None:
    judged = traffic.until(watched, lambda drift: any(s["windows"] for s in drift["streams"]))
    assert judged["alarm"] is False
    assert judged["streams"][0]["baseline"] is None

    opened = traffic.until(watched, lambda drift: drift["alarm"], older_by=12)
    (stream,) = opened["streams"]
    alarmed = [w for w in stream["windows"] if w["budget_alarm"]]
    assert "age_in_years" in [f["name"] for f in alarmed[0]["features"] if f["alarm"]]
    metrics = httpx.get(f"{watched.url}/metrics", timeout=30).text
    labels = '{model="credit",variant="champion",version="1.0.0"}'
    assert f"treeline_drift_alarm{labels} 1.0" in metrics

    (pid,) = pids_of(watched, "ray::MonitoringAgentActor")
    os.kill(pid, signal.SIGKILL)
    for _ in range(10):
        traffic.send()
        time.sleep(0.1)
    resolved = traffic.until(watched, lambda drift: not drift["alarm"])
    assert resolved["streams"][0]["judged_to_s"] > stream["judged_to_s"]

    wait_for(
        lambda: counted(watched) >= traffic.sent,
        timeout_s=PATIENCE_S,
        what=f"that {traffic.sent} requests are counted",
        seen=lambda: counted(watched),
    )
    assert counted(watched) == traffic.sent
