from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serve_app.http.feedback import feedback_route
from tests.serve_app.http.client import client_of

NOW_S = 1_790_000_000.5


class Remembering:
    def __init__(self) -> None:
        self.said: list[dict[str, Any]] = []
        self.full = False

    def record(self, **said: Any) -> bool:
        self.said.append(said)
        return not self.full


@pytest.fixture
def recorder() -> Remembering:
    return Remembering()


@pytest.fixture
async def client(recorder: Remembering) -> AsyncIterator[httpx.AsyncClient]:
    route = feedback_route(recorder, retry_after_s=3, clock=lambda: NOW_S)
    async with client_of({"/feedback": {"POST": route}}) as client:
        yield client


async def test_feedback_is_accepted_and_recorded(client, recorder) -> None:
    body = {"request_id": "r-1", "kind": "label", "value": "good", "row": 1}
    answer = await client.post("/feedback", json=body)
    assert answer.status_code == 202
    assert answer.json() == {"request_id": "r-1", "kind": "label", "accepted": True}
    assert recorder.said == [
        {
            "received_us": 1_790_000_000_500_000,
            "request_id": "r-1",
            "kind": "label",
            "value": "good",
            "row": 1,
            "outcome_us": None,
        }
    ]


@pytest.mark.parametrize("value", ["good", 1, 0.25, True, False, "", -3])
async def test_values_keep_their_type(client, recorder, value) -> None:
    body = {"request_id": "r", "kind": "click", "value": value}
    assert (await client.post("/feedback", json=body)).status_code == 202
    assert recorder.said[0]["value"] == value
    assert type(recorder.said[0]["value"]) is type(value)


@pytest.mark.parametrize(
    ("ts", "microseconds"),
    [
        ("2026-09-21T14:00:00Z", 1_790_000_000_000_000 - 800_000_000),
        ("2026-09-21T16:00:00+02:00", 1_790_000_000_000_000 - 800_000_000),
        (1_790_000_000, 1_790_000_000_000_000),
        (1_790_000_000.25, 1_790_000_000_250_000),
    ],
)
async def test_a_moment_may_be_text_or_seconds(client, recorder, ts, microseconds) -> None:
    body = {"request_id": "r", "kind": "label", "value": 1, "ts": ts}
    assert (await client.post("/feedback", json=body)).status_code == 202
    assert recorder.said[0]["outcome_us"] == microseconds


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"request_id": ""}, "request_id"),
        ({"request_id": "x" * 257}, "request_id"),
        ({"request_id": "a\nb"}, "request_id"),
        ({"request_id": None}, "request_id"),
        ({"kind": "no spaces"}, "kind"),
        ({"kind": ""}, "kind"),
        ({"kind": "x" * 65}, "kind"),
        ({"value": None}, "value"),
        ({"value": [1]}, "value"),
        ({"value": "x" * 1_025}, "value"),
        ({"value": 2**60}, "value"),
        ({"row": -1}, "row"),
        ({"row": 2**31}, "row"),
        ({"row": 1.5}, "row"),
        ({"ts": "yesterday"}, "ts"),
        ({"ts": "2026-09-21T14:00:00"}, "ts"),
        ({"ts": -1}, "ts"),
        ({"ts": 1e300}, "ts"),
        ({"ts": "0001-01-01T00:00:00Z"}, "ts"),
        ({"surprise": 1}, "surprise"),
    ],
)
async def test_what_does_not_fit_is_named(client, recorder, change, said) -> None:
    body = {"request_id": "r", "kind": "label", "value": 1} | change
    answer = await client.post("/feedback", json=body)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert said in answer.json()["detail"]
    assert recorder.said == []


@pytest.mark.parametrize("missing", ["request_id", "kind", "value"])
async def test_what_is_missing_is_named(client, missing) -> None:
    body = {"request_id": "r", "kind": "label", "value": 1}
    del body[missing]
    answer = await client.post("/feedback", json=body)
    assert answer.status_code == 422
    assert missing in answer.json()["detail"]


async def test_what_could_not_be_kept_is_asked_for_again(client, recorder) -> None:
    recorder.full = True
    answer = await client.post("/feedback", json={"request_id": "r", "kind": "label", "value": 1})
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "3"
    assert answer.json()["type"].endswith("not-kept")


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=64) | st.text().map(str.encode))
async def test_anything_else_is_problem_json(client, data: bytes) -> None:
    answer = await client.post("/feedback", content=data)
    assert answer.status_code in (400, 422)
    assert answer.headers["content-type"] == "application/problem+json"
