"""Open Inference Protocol over the ASGI application, without Ray."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autoscaling.signals import ReplicaSignals
from monitoring.events import Feature, Stream
from serve_app.admission import Admission
from serve_app.http.asgi import predict_route
from serve_app.http.openinference import inference_routes
from serve_app.prediction import Predictor, Variant
from serve_app.schema import RequestDecoder
from serve_app.telemetry import VariantTelemetry
from tests.serve_app.conftest import RememberingRecorder, Spec, predictor_of
from tests.serve_app.http.client import client_of

INFER = "/v2/models/credit/infer"


def age(*values: object) -> dict[str, Any]:
    return {"name": "age", "shape": [len(values)], "datatype": "FP64", "data": list(values)}


def housing(*values: object) -> dict[str, Any]:
    return {"name": "housing", "shape": [len(values)], "datatype": "BYTES", "data": list(values)}


GOOD = {"inputs": [age(30, 80), housing("own", None)]}


@pytest.fixture
def rejected() -> list[int]:
    return []


def connect(predictor: Predictor, rejected: list[int]) -> httpx.AsyncClient:
    limits = {"retry_after_s": 3}
    routes = {
        "/predict": {"POST": predict_route(predictor, **limits)},
        **inference_routes(predictor, **limits),
    }
    return client_of(routes, predictor.admission, rejected)


@pytest.fixture
async def client(predictor: Predictor, rejected: list[int]) -> AsyncIterator[httpx.AsyncClient]:
    async with connect(predictor, rejected) as client:
        yield client


def assert_problem(answer: httpx.Response, status: int, slug: str) -> dict[str, Any]:
    document: dict[str, Any] = answer.json()
    assert answer.status_code == document["status"] == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert document["type"] == f"urn:treeline:problem:{slug}"
    assert document["error"] == document["detail"]
    assert {"title", "request_id"} <= set(document)
    return document


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"ready": True, "live": True}),
        ("/v2/models/credit/ready", {"name": "credit", "ready": True}),
        ("/v2/models/credit/versions/1.0.0/ready", {"name": "credit", "ready": True}),
    ],
)
async def test_health(client: httpx.AsyncClient, path: str, expected: dict[str, Any]) -> None:
    answer = await client.get(path)
    assert (answer.status_code, answer.json()) == (200, expected)


@pytest.mark.parametrize("path", ["/v2", "/v2/"])
async def test_server_metadata(client: httpx.AsyncClient, path: str) -> None:
    document = (await client.get(path)).json()
    assert document["name"] == "treeline"
    assert document["version"]
    assert document["extensions"] == ["null_data", "context_parameter"]


@pytest.mark.parametrize("path", ["/v2/models/credit", "/v2/models/credit/versions/1.0.0"])
async def test_model_metadata(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.get(path)).json() == {
        "name": "credit",
        "versions": ["1.0.0"],
        "platform": "sklearn_randomforest",
        "inputs": [
            {"name": "age", "datatype": "FP64", "shape": [-1]},
            {
                "name": "housing",
                "datatype": "BYTES",
                "shape": [-1],
                "parameters": {"nullable": True},
            },
        ],
        "outputs": [
            {"name": "label", "datatype": "BYTES", "shape": [-1]},
            {"name": "score", "datatype": "FP64", "shape": [-1]},
            {
                "name": "probabilities",
                "datatype": "FP64",
                "shape": [-1, 2],
                "parameters": {"classes": ["bad", "good"]},
            },
        ],
    }


@pytest.mark.parametrize("path", [INFER, "/v2/models/credit/versions/1.0.0/infer"])
async def test_inference(client: httpx.AsyncClient, recorder: Any, path: str) -> None:
    answer = await client.post(path, json={**GOOD, "id": "mine-1"})
    assert answer.status_code == 200
    assert answer.json() == {
        "model_name": "credit",
        "model_version": "1.0.0",
        "id": "mine-1",
        "outputs": [
            {"name": "label", "shape": [2], "datatype": "BYTES", "data": ["bad", "good"]},
            {"name": "score", "shape": [2], "datatype": "FP64", "data": [0.7, 0.8]},
            {
                "name": "probabilities",
                "shape": [2, 2],
                "datatype": "FP64",
                "data": [0.7, 0.3, 1 - 0.8, 0.8],
            },
        ],
    }
    (event,) = recorder.events
    assert (event["request_id"], event["status"]) == ("mine-1", 200)
    assert event["inputs"] == [(30.0, "own"), (80.0, None)]


async def test_predict_and_infer_agree_in_answer_and_capture(
    client: httpx.AsyncClient, recorder: Any
) -> None:
    who = {"user_id": "u1", "session_id": 7, "tags": {"channel": "web"}}
    headers = {"X-Request-ID": "same"}
    rows = [{"age": 30, "housing": "own"}, {"age": 80, "housing": None}]
    first = await client.post("/predict", json={"instances": rows, "context": who}, headers=headers)
    second = await client.post(
        INFER, json={**GOOD, "parameters": {"context": who, "other": 1}}, headers=headers
    )
    assert second.json()["id"] == "same"
    scores = next(each for each in second.json()["outputs"] if each["name"] == "score")
    assert scores["data"] == [each["score"] for each in first.json()["predictions"]]
    predicted, inferred = (
        {k: v for k, v in event.items() if k not in ("ts_us", "latency_ms")}
        for event in recorder.events
    )
    assert predicted == inferred


async def test_only_the_outputs_asked_for(client: httpx.AsyncClient) -> None:
    wanted = [{"name": "score", "parameters": {"binary_data": False}}, {"name": "label"}]
    answer = await client.post(INFER, json={**GOOD, "outputs": wanted})
    assert [each["name"] for each in answer.json()["outputs"]] == ["score", "label"]
    answer = await client.post(INFER, json={**GOOD, "outputs": [{"name": "margin"}]})
    assert "'margin'" in assert_problem(answer, 422, "invalid")["detail"]


async def test_a_batch_above_the_inline_limit(client: httpx.AsyncClient) -> None:
    ages = list(range(40))
    answer = await client.post(INFER, json={"inputs": [age(*ages), housing(*[None] * 40)]})
    probabilities = answer.json()["outputs"][2]["data"]
    assert probabilities[1::2] == [each / 100 for each in ages]


@pytest.mark.parametrize(
    "path",
    [
        "/v2/models/other",
        "/v2/models/other/ready",
        "/v2/models/credit/versions/2/ready",
        "/v2/models/credit/versions",
        "/v2/models/credit/",
    ],
)
async def test_unknown_models_and_versions(client: httpx.AsyncClient, path: str) -> None:
    document = assert_problem(await client.get(path), 404, "unknown-model")
    assert "'credit' version '1.0.0'" in document["detail"]
    assert_problem(await client.post(path + "/infer", json=GOOD), 404, "unknown-model")


async def test_paths_and_methods_beside_the_protocol(client: httpx.AsyncClient) -> None:
    assert_problem(await client.get("/v2/health"), 404, "not-found")
    assert_problem(await client.get(INFER), 405, "method")
    assert_problem(await client.post("/v2/health/live"), 405, "method")


async def test_refusals_are_those_of_predict(
    client: httpx.AsyncClient, predictor: Predictor, rejected: list[int], recorder: Any
) -> None:
    assert_problem(await client.post(INFER, content=b"{"), 400, "not-json")
    assert_problem(await client.post(INFER, json={**GOOD, "id": "a\x01"}), 400, "request-id")
    wrong = await client.post(INFER, json={"inputs": [age(1)]})
    assert assert_problem(wrong, 422, "invalid")["errors"] == [
        {"field": "inputs.housing", "detail": "missing tensor"}
    ]
    infinite = await client.post(INFER, json={"inputs": [age(1e300), housing("own")]})
    assert assert_problem(infinite, 422, "invalid")["errors"][0]["field"] == "instances[0].age"
    context = await client.post(INFER, json={**GOOD, "parameters": {"context": "me"}})
    assert_problem(context, 422, "invalid")
    many = {"inputs": [age(*[1] * 51), housing(*[None] * 51)]}
    assert_problem(await client.post(INFER, json=many), 413, "too-large")
    assert_problem(await client.post(INFER, content=b" " * 10_001), 413, "too-large")
    predictor.admission.pending_rows = 1_000
    full = await client.post(INFER, json=GOOD)
    assert_problem(full, 429, "overloaded")
    assert full.headers["retry-after"] == "3"
    assert rejected == [400, 400, 422, 422, 422, 413, 413, 429]
    assert recorder.events == []


async def test_a_failing_model_is_500_under_the_requests_id(
    client: httpx.AsyncClient, recorder: Any, rejected: list[int]
) -> None:
    answer = await client.post(INFER, json={"inputs": [age(-1), housing("own")], "id": "mine-2"})
    assert assert_problem(answer, 500, "internal")["request_id"] == "mine-2"
    assert "secret" not in answer.text
    assert [(e["request_id"], e["status"]) for e in recorder.events] == [("mine-2", 500)]
    assert rejected == []


class TwiceScorer:
    def score(self, rows: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
        return np.array([2 * row[0] + row[1] for row in rows], dtype=np.float64)

    score_at_once = score


async def test_a_regression_on_numbers_takes_one_matrix() -> None:
    stream = Stream(
        model="price",
        version="3",
        feature_set_version="1",
        variant="champion",
        task="regression",
        features=(Feature("rooms", "int64"), Feature("area", "float64")),
    )
    variant = Variant(
        stream=stream,
        decoder=RequestDecoder([Spec("rooms", "int64"), Spec("area", "float64")], classes=0),
        scorer=TwiceScorer(),
        recorder=None,
        telemetry=VariantTelemetry(stream),
    )
    matrix = {"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [[3, 50.5], [4.0, 70]]}
    async with connect(
        Predictor(
            variant,
            Admission(max_requests=100, max_pending_rows=10),
            ReplicaSignals(),
            inline_rows=8,
            max_rows=50,
        ),
        [],
    ) as client:
        metadata = (await client.get("/v2/models/price")).json()
        assert metadata["outputs"] == [{"name": "score", "datatype": "FP64", "shape": [-1]}]
        answer = await client.post("/v2/models/price/infer", json={"inputs": [matrix]})
    assert answer.json()["outputs"] == [
        {"name": "score", "shape": [2], "datatype": "FP64", "data": [56.5, 78.0]}
    ]


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
scalars = scalars.filter(lambda each: each not in (float("inf"), float("-inf")))
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3), max_leaves=6)
tensors = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["age", "housing"]) | st.text(max_size=3),
        "shape": st.lists(st.integers(-1, 3) | st.integers(), max_size=3),
        "datatype": st.sampled_from(["FP64", "FP32", "INT64", "UINT64", "BOOL", "BYTES", "FP8"]),
        "data": st.lists(values, max_size=3) | values,
    }
)
bodies = st.fixed_dictionaries(
    {"inputs": st.lists(tensors, max_size=3) | values},
    optional={
        "id": values,
        "parameters": st.dictionaries(st.just("context") | st.text(max_size=3), values) | values,
        "outputs": st.lists(st.fixed_dictionaries({"name": scalars}), max_size=2) | values,
    },
)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None
)
@given(body=bodies)
async def test_any_json_is_answered_or_refused(client: httpx.AsyncClient, body: Any) -> None:
    answer = await client.post(INFER, json=body)
    if answer.status_code != 200:
        assert answer.status_code in (400, 422)
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["error"]


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200, deadline=None
)
@given(data=st.binary(max_size=200))
async def test_any_bytes_get_problem_json(client: httpx.AsyncClient, data: bytes) -> None:
    answer = await client.post(INFER, content=data)
    assert answer.status_code in (400, 422)
    assert answer.json()["error"]


async def test_a_loaded_version_is_addressed_by_name(
    recorder: RememberingRecorder, rejected: list[int]
) -> None:
    champion = predictor_of(recorder)
    other = predictor_of(recorder, version="2.0.0", role="challenger")
    routes = inference_routes(champion, {"1.0.0": champion, "2.0.0": other}, retry_after_s=1)
    async with client_of(routes, champion.admission, rejected) as client:
        by_default = await client.post(INFER, json=GOOD)
        assert by_default.json()["model_version"] == "1.0.0"
        named = await client.post("/v2/models/credit/versions/2.0.0/infer", json=GOOD)
        assert named.json()["model_version"] == "2.0.0"
        described = (await client.get("/v2/models/credit")).json()
        assert described["versions"] == ["1.0.0", "2.0.0"]
        unknown = await client.post("/v2/models/credit/versions/9/infer", json=GOOD)
        assert unknown.status_code == 404
        assert "versions '1.0.0', '2.0.0'" in unknown.json()["detail"]
