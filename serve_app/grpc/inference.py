"""Open Inference Protocol v2 over gRPC: the calls of ``inference.GRPCInferenceService``.

Ray Serve's gRPC server calls a deployment's methods by the names of the protocol. The checks,
admission, capture and counters are those of HTTP, and so are refusals: a gRPC status stands for
each HTTP status, with the problem's text as details.
"""

import logging
from asyncio import to_thread
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from importlib.metadata import version
from time import perf_counter
from typing import Any, Final, Protocol

import grpc
import msgspec

from serve_app.admission import Admission
from serve_app.grpc import open_inference_pb2 as messages
from serve_app.grpc.binding import require_chosen_host
from serve_app.grpc.open_inference_pb2 import (
    ModelInferRequest,
    ModelInferResponse,
    ModelMetadataRequest,
    ModelMetadataResponse,
    ModelReadyRequest,
    ModelReadyResponse,
    ServerLiveRequest,
    ServerLiveResponse,
    ServerMetadataRequest,
    ServerMetadataResponse,
    ServerReadyRequest,
    ServerReadyResponse,
)
from serve_app.grpc.tensors import MAX_NAME, fill_response, read_tensors
from serve_app.http.asgi import LARGE_BODY_BYTES, REFUSALS, accepted_request_id, refusal
from serve_app.http.openinference import EXTENSIONS, chosen_outputs, describe
from serve_app.http.problems import Problem
from serve_app.http.tensors import output_names, read_rows, write_outputs
from serve_app.logs import log_failure
from serve_app.prediction import Answerer, PredictionFailedError
from serve_app.schema import (
    MAX_ERRORS,
    NO_CONTEXT,
    Context,
    FeatureSpec,
    PredictRequest,
    RequestInvalidError,
    Row,
    read_context,
)

logger = logging.getLogger(__name__)

CODE_OF: Final[dict[int, grpc.StatusCode]] = {
    HTTPStatus.BAD_REQUEST: grpc.StatusCode.INVALID_ARGUMENT,
    HTTPStatus.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: grpc.StatusCode.INVALID_ARGUMENT,
    HTTPStatus.UNPROCESSABLE_ENTITY: grpc.StatusCode.INVALID_ARGUMENT,
    HTTPStatus.TOO_MANY_REQUESTS: grpc.StatusCode.RESOURCE_EXHAUSTED,
}
REQUEST_ID: Final = "request_id"  # Ray Serve's name for it in metadata
MAX_DETAILS: Final = 2_000  # bytes
PUSHBACK: Final = "grpc-retry-pushback-ms"  # gRPC's own retries wait this long: gRFC A6


class CallContext(Protocol):
    """What is used of ``ray.serve.grpc_util.RayServegRPCContext``."""

    def trailing_metadata(self) -> list[tuple[str, str]]: ...

    def set_trailing_metadata(self, trailing_metadata: list[tuple[str, str]]) -> None: ...

    def set_code(self, code: grpc.StatusCode) -> None: ...

    def set_details(self, details: str) -> None: ...


class Inference:
    """Answers the protocol's calls for one model and its loaded versions."""

    def __init__(
        self,
        predictor: Answerer,
        versions: Mapping[str, Answerer],
        *,
        admission: Admission,
        on_rejected: Callable[[int], None],
        max_body_bytes: int,
        max_rows: int,
        retry_after_s: int,
    ) -> None:
        """``predictor`` answers calls that name no version; ``versions`` answer by name.

        ``on_rejected`` is told the HTTP status that stands for each request no model saw.
        """
        self._predictor = predictor
        self._versions = versions
        self._model = predictor.variant.stream.model
        self._admission = admission
        self._on_rejected = on_rejected
        self._max_body_bytes = max_body_bytes
        self._max_rows = max_rows
        self._retry_after_s = retry_after_s

    async def infer(self, request: ModelInferRequest, context: CallContext) -> ModelInferResponse:
        """The same checks, admission and capture as ``POST …/infer``."""
        started_s = perf_counter()
        self._admission.arrive()
        try:
            return await self._infer(request, context, started_s)
        except PredictionFailedError as exc:
            _fail(context, str(exc))
        except Problem as problem:
            self._refuse(problem, context)
        except REFUSALS as exc:
            self._refuse(refusal(exc, retry_after_s=self._retry_after_s), context)
        except Exception as exc:  # noqa: BLE001  what Ray Serve would make of it repeats inputs
            log_failure(logger, "a call failed", exc, request.id or request_id(context))
            self._on_rejected(HTTPStatus.INTERNAL_SERVER_ERROR)
            _fail(context, "the server failed on this request")
        finally:
            self._admission.leave()
        return ModelInferResponse()

    async def _infer(
        self, request: ModelInferRequest, context: CallContext, started_s: float
    ) -> ModelInferResponse:
        answerer = self._find(request.model_name, request.model_version)
        identity = accepted_request_id(request.id or request_id(context), "id")
        size = request.ByteSize()
        if size > self._max_body_bytes:
            detail = f"the message has {size} bytes; at most {self._max_body_bytes} are taken"
            raise Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too-large", detail)
        variant = answerer.variant
        classes = variant.stream.classes
        wanted = [output.name for output in request.outputs]
        names = chosen_outputs(wanted, output_names(classes))
        features = variant.decoder.features
        if size > LARGE_BODY_BYTES:
            rows = await to_thread(self._rows_of, request, features)
        else:
            rows = self._rows_of(request, features)
        answer = await answerer.answer(
            PredictRequest(rows, None, read_parameter(request)), identity, started_s=started_s
        )
        response = ModelInferResponse(
            model_name=answer.model, model_version=answer.version, id=identity
        )
        outputs = write_outputs(answer.predictions, names, classes=len(classes))
        fill_response(response, outputs, raw=bool(request.raw_input_contents))
        return response

    def _rows_of(self, request: ModelInferRequest, features: Sequence[FeatureSpec]) -> list[Row]:
        limits = {"max_rows": self._max_rows, "max_columns": len(features)}
        return read_rows(read_tensors(request, **limits), features)

    def metadata(
        self, request: ModelMetadataRequest, context: CallContext
    ) -> ModelMetadataResponse:
        try:
            answerer = self._find(request.name, request.version)
        except Problem as problem:
            self._refuse(problem, context)
            return ModelMetadataResponse()
        described = describe(answerer, tuple(self._versions))
        response = ModelMetadataResponse(
            name=described.name, versions=described.versions, platform=described.platform
        )
        for ours, theirs in (
            (described.inputs, response.inputs),
            (described.outputs, response.outputs),
        ):
            for tensor in ours:
                theirs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        return response

    def is_ready(self, request: ModelReadyRequest, context: CallContext) -> ModelReadyResponse:
        try:
            self._find(request.name, request.version)
        except Problem as problem:
            self._refuse(problem, context)
            return ModelReadyResponse()
        return ModelReadyResponse(ready=True)

    def _find(self, model: str, wanted: str) -> Answerer:
        answerer = self._versions.get(wanted) if wanted else self._predictor
        if model != self._model or answerer is None:
            model, wanted = model[:MAX_NAME], wanted[:MAX_NAME]
            asked = f"{model!r} version {wanted!r}" if wanted else repr(model)
            loaded = ", ".join(map(repr, self._versions))
            detail = f"no {asked} here; the model served is {self._model!r}, version {loaded}"
            raise Problem(HTTPStatus.NOT_FOUND, "unknown-model", detail)
        return answerer

    def _refuse(self, problem: Problem, context: CallContext) -> None:
        self._on_rejected(int(problem.status))
        context.set_code(CODE_OF[problem.status])
        context.set_details(details_of(problem))
        if problem.retry_after_s is not None:
            pushback = (PUSHBACK, str(1_000 * problem.retry_after_s))
            context.set_trailing_metadata([*context.trailing_metadata(), pushback])


def _fail(context: CallContext, detail: str) -> None:
    context.set_code(grpc.StatusCode.INTERNAL)
    context.set_details(detail)


def details_of(problem: Problem) -> str:
    """The problem's text and, where several things are wrong, each of them on a line.

    Cut to ``MAX_DETAILS``: clients take a status and all metadata with it to have at most 8 KiB.
    """
    lines = [problem.detail]
    if len(problem.errors) > 1:
        lines += [f"{error['field']}: {error['detail']}" for error in problem.errors[:MAX_ERRORS]]
    return shortened("\n".join(lines), MAX_DETAILS)


def shortened(text: str, budget: int) -> str:
    """Cut a text to ``budget`` bytes as HTTP/2 carries it, where all but plain ASCII takes more.

    >>> shortened("schön", 6), shortened("schon", 6)
    ('sch…', 'schon')
    """
    used = 0
    for place, char in enumerate(text):
        used += 1 if " " <= char <= "~" else 3 * len(char.encode())  # percent-encoded
        if used > budget:
            return f"{text[:place]}…"
    return text


def request_id(context: CallContext) -> str:
    """The id that the caller sent as metadata, or that Ray Serve made up; it echoes either."""
    return dict(context.trailing_metadata()).get(REQUEST_ID, "")


def read_parameter(request: ModelInferRequest) -> Context:
    """Who asked: the parameter ``context``, a text with the JSON that REST takes there."""
    if "context" not in request.parameters:
        return NO_CONTEXT
    parameter = request.parameters["context"]
    if parameter.WhichOneof("parameter_choice") != "string_param":
        raise RequestInvalidError("`parameters.context`: expected a text (string_param) with JSON")
    try:
        raw = msgspec.json.decode(parameter.string_param)
    except msgspec.DecodeError as exc:
        raise RequestInvalidError(f"`parameters.context`: {exc}") from exc
    except RecursionError as exc:
        raise RequestInvalidError("`parameters.context`: JSON is nested too deeply") from exc
    if not isinstance(raw, dict):
        raise RequestInvalidError("`parameters.context`: expected a JSON object")
    return read_context(raw)


class InferenceMethods:
    """The protocol's methods, for a deployment whose ``inference`` answers them.

    ``grpc_context`` is the name under which Ray Serve hands a method its call's context.
    """

    inference: Inference

    async def ServerLive(self, _: ServerLiveRequest) -> ServerLiveResponse:  # noqa: N802
        return ServerLiveResponse(live=True)

    async def ServerReady(self, _: ServerReadyRequest) -> ServerReadyResponse:  # noqa: N802
        # A replica takes requests from the moment its model is loaded and proved: it is ready.
        return ServerReadyResponse(ready=True)

    async def ServerMetadata(self, _: ServerMetadataRequest) -> ServerMetadataResponse:  # noqa: N802
        return ServerMetadataResponse(
            name="treeline", version=version("treeline-serve"), extensions=EXTENSIONS
        )

    async def ModelReady(  # noqa: N802
        self, request: ModelReadyRequest, grpc_context: CallContext
    ) -> ModelReadyResponse:
        return self.inference.is_ready(request, grpc_context)

    async def ModelMetadata(  # noqa: N802
        self, request: ModelMetadataRequest, grpc_context: CallContext
    ) -> ModelMetadataResponse:
        return self.inference.metadata(request, grpc_context)

    async def ModelInfer(  # noqa: N802
        self, request: ModelInferRequest, grpc_context: CallContext
    ) -> ModelInferResponse:
        return await self.inference.infer(request, grpc_context)


def add_inference_service(servicer: Any, server: grpc.Server) -> None:
    """Name the service to Ray Serve's gRPC server: an entry of ``grpc_servicer_functions``.

    Ray Serve puts handlers of its own in the place of ``servicer``'s methods. Raises
    NotOnLoopbackError where the server would listen on all interfaces unasked.
    """
    require_chosen_host()
    service = messages.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    handlers = {
        method.name: grpc.unary_unary_rpc_method_handler(
            getattr(servicer, method.name),
            request_deserializer=getattr(messages, method.input_type.name).FromString,
            response_serializer=getattr(messages, method.output_type.name).SerializeToString,
        )
        for method in service.methods
    }
    generic = grpc.method_handlers_generic_handler(service.full_name, handlers)
    server.add_generic_rpc_handlers((generic,))
