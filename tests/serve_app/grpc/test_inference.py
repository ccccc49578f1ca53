"""Open Inference Protocol over gRPC: the calls, without Ray and without a network."""

import json
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.admission import Admission
from serve_app.grpc import binding
from serve_app.grpc.inference import Inference
from serve_app.grpc.open_inference_pb2 import (
    ModelInferRequest,
    ModelInferResponse,
    ModelMetadataRequest,
    ModelReadyRequest,
    ServerMetadataRequest,
    ServerReadyRequest,
)
from serve_app.grpc.service import InferenceMethods, add_inference_service
from serve_app.grpc.tensors import fill_response, read_tensors
from serve_app.http.asgi import LARGE_BODY_BYTES
from serve_app.http.tensors import Datatype, OutputTensor
from serve_app.prediction import Predictor
from tests.serve_app.conftest import RememberingRecorder, predictor_of
from tests.serve_app.http.test_openinference import connect


class CallContext:
    """What Ray Serve hands a method, with the metadata that it has set."""

    def __init__(self) -> None:
        self.code: grpc.StatusCode | None = None
        self.details = ""
        self.trailing = [("request_id", "from-metadata")]

    def trailing_metadata(self) -> list[tuple[str, str]]:
        return self.trailing

    def set_trailing_metadata(self, trailing_metadata: list[tuple[str, str]]) -> None:
        self.trailing = trailing_metadata

    def set_code(self, code: grpc.StatusCode) -> None:
        self.code = code

    def set_details(self, details: str) -> None:
        self.details = details


class Client(InferenceMethods):
    """Calls one model's methods as Ray Serve does, and remembers what was rejected."""

    def __init__(self, predictor: Predictor, **changes: Any) -> None:
        self.rejected: list[int] = []
        self.context = CallContext()
        options: dict[str, Any] = {
            "admission": predictor.admission,
            "on_rejected": self.rejected.append,
            "max_body_bytes": 300_000,
            "max_rows": 10_000,
            "retry_after_s": 3,
            **changes,
        }
        self.inference = Inference(predictor, {"1.0.0": predictor}, **options)

    async def infer(self, request: ModelInferRequest) -> ModelInferResponse:
        return await self.ModelInfer(request, self.context)

    async def refused(self, request: ModelInferRequest, code: grpc.StatusCode) -> str:
        assert await self.infer(request) == ModelInferResponse()
        assert self.context.code == code
        return self.context.details


@pytest.fixture
def client(predictor: Predictor) -> Client:
    return Client(predictor)


def good(**changes: Any) -> ModelInferRequest:
    request = ModelInferRequest(model_name="credit", **changes)
    age = request.inputs.add(name="age", datatype="FP64", shape=[2])
    age.contents.fp64_contents.extend([30, 80])
    housing = request.inputs.add(name="housing", datatype="BYTES", shape=[2])
    housing.contents.bytes_contents.extend([b"own", b"?"])
    housing.parameters["missing"].string_param = "?"
    return request


async def test_answers_what_rest_answers(client: Client, predictor: Predictor) -> None:
    response = await client.infer(good(id="mine"))
    document = {
        "id": "mine",
        "inputs": [
            {"name": "age", "shape": [2], "datatype": "FP64", "data": [30, 80]},
            {"name": "housing", "shape": [2], "datatype": "BYTES", "data": ["own", None]},
        ],
    }
    async with connect(predictor, []) as http:
        rest = (await http.post("/v2/models/credit/infer", json=document)).json()
    assert client.context.code is None
    assert (response.model_name, response.model_version, response.id) == ("credit", "1.0.0", "mine")
    label, score, probabilities = response.outputs
    theirs = {output["name"]: output for output in rest["outputs"]}
    assert [text.decode() for text in label.contents.bytes_contents] == theirs["label"]["data"]
    assert list(score.contents.fp64_contents) == theirs["score"]["data"]
    assert list(probabilities.contents.fp64_contents) == theirs["probabilities"]["data"]
    for output in response.outputs:
        assert list(output.shape) == theirs[output.name]["shape"]
        assert output.datatype == theirs[output.name]["datatype"]


async def test_is_captured_as_rest_is(
    client: Client, predictor: Predictor, recorder: RememberingRecorder
) -> None:
    request = good()
    who = {"user_id": "u-1", "tags": {"branch": "north"}}
    request.parameters["context"].string_param = json.dumps(who)
    await client.infer(request)
    (event,) = recorder.events
    assert event["request_id"] == "from-metadata"
    assert [list(row) for row in event["inputs"]] == [[30.0, "own"], [80.0, None]]
    assert (event["user_id"], event["context_tags"]) == ("u-1", {"branch": "north"})
    assert predictor.admission.requests == predictor.admission.pending_rows == 0


async def test_raw_values_are_answered_raw(client: Client) -> None:
    spelled = await client.infer(good())
    request = good()
    for tensor in request.inputs:
        tensor.ClearField("contents")
    doubles = b"\0\0\0\0\0\0\x3e\x40\0\0\0\0\0\0\x54\x40"  # 30 and 80
    request.raw_input_contents.extend([doubles, b"\x03\0\0\0own\x01\0\0\0?"])
    raw = await client.infer(request)
    label, score, _ = raw.raw_output_contents
    assert label == b"".join(
        len(text).to_bytes(4, "little") + text
        for text in spelled.outputs[0].contents.bytes_contents
    )
    assert memoryview(score).cast("d").tolist() == list(spelled.outputs[1].contents.fp64_contents)
    assert not any(output.HasField("contents") for output in raw.outputs)


async def test_chosen_outputs_only(client: Client) -> None:
    request = good()
    request.outputs.add(name="score")
    response = await client.infer(request)
    assert [output.name for output in response.outputs] == ["score"]
    request.outputs.add(name="logit")
    detail = await client.refused(request, grpc.StatusCode.INVALID_ARGUMENT)
    assert "'logit' is unknown" in detail


async def test_a_model_or_version_that_is_not_here(client: Client) -> None:
    request = good(model_version="9")
    detail = await client.refused(request, grpc.StatusCode.NOT_FOUND)
    assert detail == "no 'credit' version '9' here; the model served is 'credit', version '1.0.0'"
    ready = await client.ModelReady(ModelReadyRequest(name="debit"), client.context)
    assert not ready.ready
    assert client.rejected == [404, 404]


async def test_all_that_is_wrong_is_named(client: Client) -> None:
    request = good()
    request.inputs[0].name = "aeg"
    detail = await client.refused(request, grpc.StatusCode.INVALID_ARGUMENT)
    assert "inputs.aeg: unknown tensor" in detail
    assert "inputs.age: missing tensor" in detail
    assert client.rejected == [422]


@pytest.mark.parametrize(
    ("field", "values", "expected"),
    [
        ("fp32_contents", [1.0, 2.0], "FP64 values stand in fp64_contents, not fp32_contents"),
        ("fp64_contents", [1.0], "shape [2] does not fit 1 values"),
    ],
)
async def test_values_in_the_wrong_place(
    client: Client, field: str, values: list[float], expected: str
) -> None:
    request = good()
    request.inputs[0].ClearField("contents")
    getattr(request.inputs[0].contents, field).extend(values)
    assert expected in await client.refused(request, grpc.StatusCode.INVALID_ARGUMENT)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ([b"\0" * 16], "1 entries for 2 tensors"),
        ([b"\0" * 15, b""], "shape [2] of FP64 does not fit 15 bytes"),
        ([b"\0" * 16, b"\0" * 12], "more than the 2 texts of its shape"),
        ([b"\0" * 16, b"\0" * 4], "hold 1 texts, its shape 2"),
        ([b"\0" * 16, b"\x05\0\0\0own"], "end within a text"),
        ([b"\0" * 16, b"\x05\0"], "end within a length"),
        ([b"\0" * 16, b"\x01\0\0\0\xff\0\0\0\0"], "not UTF-8"),
    ],
)
async def test_broken_raw_values(client: Client, raw: list[bytes], expected: str) -> None:
    request = good()
    for tensor in request.inputs:
        tensor.ClearField("contents")
    request.raw_input_contents.extend(raw)
    assert expected in await client.refused(request, grpc.StatusCode.INVALID_ARGUMENT)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ([-1], "shape [-1]; [n], [n, 1] and [n, 2] are taken"),
        ([1] * 1_000, "shape [1, 1, 1]"),
        ([], "shape []"),
        ([1, 3], "shape [1, 3]; [n, 2] is taken at most"),
        ([2**62], "4611686018427387904 rows; at most 10000 are taken"),
    ],
)
async def test_shapes_are_refused_before_values_are_read(
    client: Client, shape: list[int], expected: str
) -> None:
    request = good()
    request.inputs[0].ClearField("shape")
    request.inputs[0].shape.extend(shape)
    assert expected in await client.refused(request, grpc.StatusCode.INVALID_ARGUMENT)


async def test_large_messages_are_read_beside_the_event_loop(
    client: Client, recorder: RememberingRecorder
) -> None:
    request = ModelInferRequest(model_name="credit")
    request.inputs.add(name="age", datatype="FP64", shape=[10_000])
    request.inputs.add(name="housing", datatype="BYTES", shape=[10_000])
    housing = b"\x20\0\0\0" + b"o" * 32
    request.raw_input_contents.extend([b"\0" * 80_000, housing * 5_500])
    threads: set[int] = set()
    read = client.inference._rows_of

    def watched(*arguments: Any) -> Any:
        threads.add(threading.get_ident())
        return read(*arguments)

    client.inference._rows_of = watched  # type: ignore[method-assign]
    assert request.ByteSize() > LARGE_BODY_BYTES
    assert "5500 texts" in await client.refused(request, grpc.StatusCode.INVALID_ARGUMENT)
    await client.infer(good())
    assert len(threads) == 2
    assert threading.get_ident() in threads


async def test_values_given_twice(client: Client) -> None:
    request = good()
    request.raw_input_contents.extend([b"\0" * 16, b""])
    detail = await client.refused(request, grpc.StatusCode.INVALID_ARGUMENT)
    assert "both contents and raw_input_contents" in detail


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"user_id": 1.5}', "[" * 100_000])
async def test_a_context_that_is_none(client: Client, text: str) -> None:
    request = good()
    request.parameters["context"].string_param = text
    detail = await client.refused(request, grpc.StatusCode.INVALID_ARGUMENT)
    assert "context" in detail


async def test_parameters_of_another_type(client: Client) -> None:
    request = good()
    request.parameters["context"].int64_param = 5
    assert "string_param" in await client.refused(request, grpc.StatusCode.INVALID_ARGUMENT)
    request = good()
    request.inputs[1].parameters["missing"].bool_param = True
    assert "string_param" in await client.refused(request, grpc.StatusCode.INVALID_ARGUMENT)


@pytest.mark.parametrize("letter", ["a", "ä"])
async def test_details_fit_into_a_clients_metadata(client: Client, letter: str) -> None:
    long = letter * 250_000
    for request in (good(), ModelInferRequest(model_name=long)):
        for tensor in request.inputs:
            tensor.name = tensor.datatype = long
        detail = await client.refused(request, CODES[bool(request.inputs)])
        assert len(quote(detail)) < 4_000


CODES = {True: grpc.StatusCode.INVALID_ARGUMENT, False: grpc.StatusCode.NOT_FOUND}


async def test_what_nobody_foresaw_is_counted_and_keeps_its_secrets(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> None:
        raise KeyError("a secret input")

    monkeypatch.setattr("serve_app.grpc.inference.read_rows", broken)
    detail = await client.refused(good(id="odd-1"), grpc.StatusCode.INTERNAL)
    assert detail == "the server failed on this request"
    assert client.rejected == [500]
    assert [record.request_id for record in caplog.records] == ["odd-1"]  # type: ignore[attr-defined]


async def test_an_id_that_no_log_can_hold(client: Client) -> None:
    await client.refused(good(id="a\nb"), grpc.StatusCode.INVALID_ARGUMENT)
    assert client.rejected == [400]


async def test_a_message_too_large(predictor: Predictor) -> None:
    client = Client(predictor, max_body_bytes=50)
    detail = await client.refused(good(), grpc.StatusCode.INVALID_ARGUMENT)
    assert "at most 50 are taken" in detail
    assert client.rejected == [413]


async def test_overload_asks_clients_to_wait(recorder: RememberingRecorder) -> None:
    full = Admission(max_requests=0, max_pending_rows=10)
    client = Client(predictor_of(recorder, admission=full))
    await client.refused(good(), grpc.StatusCode.RESOURCE_EXHAUSTED)
    assert ("grpc-retry-pushback-ms", "3000") in client.context.trailing
    assert client.rejected == [429]
    assert full.requests == 0


async def test_a_model_that_fails_keeps_its_secrets(client: Client) -> None:
    request = good()
    request.inputs[0].contents.fp64_contents[:] = [-1, 1]  # breaks the fake
    detail = await client.refused(request, grpc.StatusCode.INTERNAL)
    assert detail == "the model failed on this request"
    assert client.rejected == []  # it reached a model, and is counted there


async def test_metadata(client: Client) -> None:
    described = await client.ModelMetadata(ModelMetadataRequest(name="credit"), client.context)
    assert list(described.versions) == ["1.0.0"]
    assert [(t.name, t.datatype, list(t.shape)) for t in described.inputs] == [
        ("age", "FP64", [-1]),
        ("housing", "BYTES", [-1]),
    ]
    assert [t.name for t in described.outputs] == ["label", "score", "probabilities"]
    assert (await client.ServerReady(ServerReadyRequest())).ready
    server = await client.ServerMetadata(ServerMetadataRequest())
    assert list(server.extensions) == ["missing_parameter", "context_parameter"]


VALUES: dict[Datatype, st.SearchStrategy[Any]] = {
    "BOOL": st.booleans(),
    "BYTES": st.text(),
    "FP64": st.floats(allow_nan=False),
    "FP32": st.floats(width=32, allow_nan=False),
    "INT8": st.integers(-(2**7), 2**7 - 1),
    "INT64": st.integers(-(2**63), 2**63 - 1),
    "UINT32": st.integers(0, 2**32 - 1),
    "UINT64": st.integers(0, 2**64 - 1),
}


@given(data=st.data(), datatype=st.sampled_from(sorted(VALUES)), raw=st.booleans())
def test_values_survive_both_ways(data: st.DataObject, datatype: Datatype, raw: bool) -> None:
    values = data.draw(st.lists(VALUES[datatype], min_size=1))
    response = ModelInferResponse()
    fill_response(response, [OutputTensor("x", [len(values)], datatype, values)], raw=raw)
    request = ModelInferRequest(raw_input_contents=response.raw_output_contents)
    sent = request.inputs.add(name="x", datatype=datatype, shape=[len(values)])
    sent.contents.CopyFrom(response.outputs[0].contents)
    if raw:
        sent.ClearField("contents")
    sent_over = ModelInferRequest.FromString(request.SerializeToString())
    (read,) = read_tensors(sent_over, max_rows=len(values), max_columns=1)
    assert read.data == values


def test_nan_is_missing() -> None:
    request = ModelInferRequest()
    tensor = request.inputs.add(name="x", datatype="FP32", shape=[2])
    tensor.contents.fp32_contents.extend([math.nan, 1])
    assert read_tensors(request, max_rows=2, max_columns=1)[0].data == [None, 1]


class Server:
    """Stands for Ray Serve's gRPC server."""

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self.handlers: list[Any] = []

    def add_insecure_port(self, address: str) -> None:
        self.addresses.append(address)

    def add_generic_rpc_handlers(self, handlers: tuple[Any, ...]) -> None:
        self.handlers.extend(handlers)


@pytest.fixture
def rays_opener(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Ray Serve's module as it is in a process that has not imported ours."""

    def opener(server: Server, address: str) -> None:
        server.add_insecure_port(address)

    monkeypatch.setattr(binding.default_impl, "add_grpc_address", opener)
    return binding.default_impl


def test_nothing_listens_on_all_interfaces(rays_opener: Any) -> None:
    server: Any = Server()
    with pytest.raises(binding.NotOnLoopbackError, match=r"configs/grpc\.yaml"):
        add_inference_service(InferenceMethods(), server)
    assert binding.middlewares() == []
    add_inference_service(InferenceMethods(), server)
    rays_opener.add_grpc_address(server, "[::]:9000")
    assert server.addresses == ["127.0.0.1:9000"]


def test_the_operator_chooses_another_host(
    rays_opener: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    binding.listen_on_chosen_host()
    server: Any = Server()
    for host in ("0.0.0.0", "::1", "[::]", ""):
        monkeypatch.setenv("TREELINE_GRPC_HOST", host)
        rays_opener.add_grpc_address(server, "[::]:9000")
    assert server.addresses == ["0.0.0.0:9000", "[::1]:9000", "[::]:9000", "127.0.0.1:9000"]


def test_a_host_that_is_not_here_is_named(
    rays_opener: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TREELINE_GRPC_HOST", "192.0.2.1")
    binding.listen_on_chosen_host()
    with pytest.raises(RuntimeError, match=r"192\.0\.2\.1:9000 \(TREELINE_GRPC_HOST\)"):
        rays_opener.add_grpc_address(grpc.server(ThreadPoolExecutor(1)), "[::]:9000")


def test_messages_are_bounded_as_bodies_are() -> None:
    assert binding.variables({}, 5_000) == {"RAY_SERVE_GRPC_MAX_MESSAGE_SIZE": "5000"}
    assert binding.variables({"RAY_SERVE_GRPC_MAX_MESSAGE_SIZE": "9"}, 5_000) == {}


def test_every_method_of_the_protocol_is_served(rays_opener: Any) -> None:
    binding.listen_on_chosen_host()
    server: Any = Server()
    add_inference_service(InferenceMethods(), server)
    (handler,) = server.handlers
    names = {"ServerLive", "ServerReady", "ModelReady"}
    names |= {"ServerMetadata", "ModelMetadata", "ModelInfer"}
    assert set(handler._method_handlers) == {f"/inference.GRPCInferenceService/{n}" for n in names}
