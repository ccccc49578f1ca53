"""Open Inference Protocol v2 over gRPC: answering a call.

The checks, admission, capture and counters are those of HTTP, and so are refusals.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from time import perf_counter
from typing import Final

import msgspec

from serve_app.admission import Admission
from serve_app.grpc.open_inference_pb2 import (
    ModelInferRequest,
    ModelInferResponse,
    ModelMetadataRequest,
    ModelMetadataResponse,
    ModelReadyRequest,
    ModelReadyResponse,
)
from serve_app.grpc.refusals import CallContext, fail, refuse
from serve_app.grpc.tensors import MAX_NAME, fill_response, read_tensors
from serve_app.http.asgi import REFUSALS, accepted_request_id, by_size, refusal
from serve_app.http.openinference import chosen_outputs, describe
from serve_app.http.problems import Problem
from serve_app.http.tensors import output_names, read_rows, write_outputs
from serve_app.logs import log_failure
from serve_app.prediction import Answerer, PredictionFailedError
from serve_app.schema import (
    NO_CONTEXT,
    Context,
    FeatureSpec,
    PredictRequest,
    RequestInvalidError,
    Row,
    read_context,
)

logger = logging.getLogger(__name__)

REQUEST_ID: Final = "request_id"  # Ray Serve's name for it in metadata


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
            fail(context, str(exc))
        except Problem as problem:
            self._refuse(problem, context)
        except REFUSALS as exc:
            self._refuse(refusal(exc, retry_after_s=self._retry_after_s), context)
        except Exception as exc:  # noqa: BLE001  what Ray Serve would make of it repeats inputs
            log_failure(logger, "a call failed", exc, request.id or request_id(context))
            self._on_rejected(HTTPStatus.INTERNAL_SERVER_ERROR)
            fail(context, "the server failed on this request")
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
        rows = await by_size(size, self._rows_of, request, features)
        answer = await answerer.answer(
            PredictRequest(rows, None, context_of(request)), identity, started_s=started_s
        )
        response = ModelInferResponse(
            model_name=answer.model, model_version=answer.version, id=identity
        )
        outputs = write_outputs(answer.predictions, names, classes=len(classes))
        raw = bool(request.raw_input_contents)
        await by_size(size, fill_response, response, outputs, raw)
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
        refuse(context, problem)


def request_id(context: CallContext) -> str:
    """The id that the caller sent as metadata, or that Ray Serve made up; it echoes either."""
    return dict(context.trailing_metadata()).get(REQUEST_ID, "")


def context_of(request: ModelInferRequest) -> Context:
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
