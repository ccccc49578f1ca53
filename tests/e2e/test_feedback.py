"""Feedback end to end: over HTTP to storage, joined to the answers it is about."""

import json
from pathlib import Path

import httpx
import pytest

from tests.e2e.application import Application
from tests.e2e.log import query, verify, wait_for

pytestmark = pytest.mark.ray


def stored(sink: Path) -> list[tuple[object, ...]]:
    if not any(sink.glob("feedback/**/*.parquet")):
        return []
    files = f"read_parquet('{sink}/feedback/**/*.parquet', hive_partitioning=false)"
    return query(
        sink,
        "select f.request_id, f.value, f.number, e.label, e.version "
        f"from {files} f join {{log}} e using (request_id, row) where request_id like 'said-%'",
    )


def test_a_label_is_stored_once_and_joins_its_answer(application: Application, body: bytes) -> None:
    headers = {"X-Request-ID": "said-1"}
    answer = httpx.post(f"{application.url}/predict", content=body, headers=headers)
    label = answer.json()["predictions"][0]["label"]
    said = {"request_id": "said-1", "kind": "label", "value": label, "row": 0}
    assert httpx.post(f"{application.url}/feedback", json=said).status_code == 202
    refused = httpx.post(f"{application.url}/feedback", json={**said, "kind": "no kind"})
    assert refused.status_code == 422
    assert refused.headers["content-type"] == "application/problem+json"
    wait_for(lambda: bool(stored(application.sink)), timeout_s=60, what="the feedback in the log")
    assert stored(application.sink) == [("said-1", label, None, label, "1.0.0")]
    verdict = verify(str(application.sink))
    assert verdict["ok"], json.dumps(verdict["problems"])
