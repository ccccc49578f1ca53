"""The ASGI application without Ray: every answer a client can get from it."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serve_app.http.asgi import predict_route
from serve_app.prediction import Predictor
from tests.serve_app.http.client import client_of

GOOD = {"instances": [{"age": 30, "housing": "own"}]}


@pytest.fixture
def rejected() -> list[int]:
    return []


@pytest.fixture
async def client(predictor: Predictor, rejected: list[int]) -> AsyncIterator[httpx.AsyncClient]:
    routes = {"/predict": {"POST": predict_route(predictor, retry_after_s=3)}}
    async with client_of(routes, predictor.admission, rejected) as client:
        yield client


def assert_problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    document: dict[str, Any] = answer.json()
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert {"type", "title", "status", "detail", "request_id"} <= set(document)
    assert document["status"] == status
    assert "Traceback" not in answer.text
    return document


async def test_prediction_carries_the_callers_request_id(
    client: httpx.AsyncClient, recorder: Any
) -> None:
    answer = await client.post("/predict", json=GOOD, headers={"X-Request-ID": "abc-1"})
    assert answer.status_code == 200
    assert answer.headers["x-request-id"] == answer.json()["request_id"] == "abc-1"
    assert answer.json()["predictions"] == [
        {"label": "bad", "score": 0.7, "probabilities": [0.7, 0.3]}
    ]
    assert answer.json()["classes"] == ["bad", "good"]
    assert [event["request_id"] for event in recorder.events] == ["abc-1"]


async def test_a_fresh_request_id_is_made(client: httpx.AsyncClient) -> None:
    first, second = [await client.post("/predict", json=GOOD) for _ in range(2)]
    assert first.headers["x-request-id"] == first.json()["request_id"]
    assert first.json()["request_id"] != second.json()["request_id"]


async def test_top_k_ranks_labels(client: httpx.AsyncClient, recorder: Any) -> None:
    answer = await client.post("/predict", json={**GOOD, "top_k": 2})
    assert answer.json()["predictions"][0]["top_k"] == [
        {"label": "bad", "score": 0.7},
        {"label": "good", "score": 0.3},
    ]
    assert recorder.events[0]["top_k"] == [["bad", "good"]]


async def test_batches_above_the_inline_limit_are_the_same(client: httpx.AsyncClient) -> None:
    rows = [{"age": age, "housing": None} for age in range(40)]
    answer = await client.post("/predict", json={"instances": rows})
    assert [p["probabilities"][1] for p in answer.json()["predictions"]] == [
        age / 100 for age in range(40)
    ]


async def test_context_reaches_the_recorder_not_the_answer(
    client: httpx.AsyncClient, recorder: Any
) -> None:
    context = {"user_id": "u1", "session_id": "s1", "tags": {"channel": "web"}}
    answer = await client.post("/predict", json={**GOOD, "context": context})
    assert "u1" not in answer.text
    event = recorder.events[0]
    assert (event["user_id"], event["session_id"]) == ("u1", "s1")
    assert event["context_tags"] == {"channel": "web"}


async def test_not_json_is_400(client: httpx.AsyncClient, rejected: list[int]) -> None:
    assert_problem(await client.post("/predict", content=b"{"), 400)
    assert rejected == [400]


async def test_wrong_features_are_422_and_named(client: httpx.AsyncClient, recorder: Any) -> None:
    answer = await client.post("/predict", json={"instances": [{"aeg": 3, "housing": "own"}]})
    document = assert_problem(answer, 422)
    assert {e["field"] for e in document["errors"]} == {"instances[0].age", "instances[0].aeg"}
    assert recorder.events == []


async def test_infinite_input_is_422_and_named(client: httpx.AsyncClient) -> None:
    answer = await client.post("/predict", json={"instances": [[1e300, "own"]]})
    assert assert_problem(answer, 422)["errors"][0]["field"] == "instances[0].age"


async def test_large_bodies_and_batches_are_413(client: httpx.AsyncClient) -> None:
    assert_problem(await client.post("/predict", content=b"x" * 10_001), 413)
    rows = [[1, "own"]] * 51
    assert_problem(await client.post("/predict", json={"instances": rows}), 413)


async def test_streamed_body_is_bounded(client: httpx.AsyncClient) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield b" " * 1_000

    assert_problem(await client.post("/predict", content=chunks()), 413)


async def test_waiting_requests_are_bounded_too(
    client: httpx.AsyncClient, predictor: Predictor
) -> None:
    predictor.admission.requests = 100
    answer = await client.post("/predict", json=GOOD)
    assert "101 requests are waiting" in assert_problem(answer, 429)["detail"]
    assert predictor.admission.requests == 100


async def test_overload_is_429_with_retry_after(
    client: httpx.AsyncClient, predictor: Predictor
) -> None:
    predictor.admission.pending_rows = 1_000
    answer = await client.post("/predict", json=GOOD)
    assert_problem(answer, 429)
    assert answer.headers["retry-after"] == "3"


async def test_a_failing_model_is_500_without_its_words_and_captured(
    client: httpx.AsyncClient, recorder: Any, rejected: list[int]
) -> None:
    answer = await client.post("/predict", json={"instances": [[-1, "own"]]})
    assert_problem(answer, 500)
    assert "secret" not in answer.text
    assert [event["status"] for event in recorder.events] == [500]
    assert rejected == []  # counted with its variant, not as a rejection


@pytest.mark.parametrize("age", [-1, 1e300])
async def test_no_input_reaches_the_log(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture, age: float
) -> None:
    await client.post("/predict", json={"instances": [[age, "alice@example.com"]]})
    assert caplog.records
    assert "alice" not in caplog.text


async def test_errors_named_in_an_answer_are_bounded(client: httpx.AsyncClient) -> None:
    row = {f"unknown {number}": 1 for number in range(200)}
    answer = await client.post("/predict", json={"instances": [row]})
    assert len(assert_problem(answer, 422)["errors"]) == 20


async def test_unknown_path_and_method(client: httpx.AsyncClient) -> None:
    assert_problem(await client.get("/nowhere"), 404)
    assert_problem(await client.get("/predict"), 405)


@pytest.mark.parametrize("bad", ["x" * 300, "a\x01b"])
async def test_request_ids_that_would_spoil_logs_are_refused(
    client: httpx.AsyncClient, bad: str
) -> None:
    assert_problem(await client.post("/predict", json=GOOD, headers={"X-Request-ID": bad}), 400)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(data=st.binary(max_size=200))
async def test_any_body_gets_problem_json(client: httpx.AsyncClient, data: bytes) -> None:
    answer = await client.post("/predict", content=data)
    assert answer.status_code in (400, 422)
    assert_problem(answer, answer.status_code)
