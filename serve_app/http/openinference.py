"""Open Inference Protocol v2 over REST: health, metadata and inference under ``/v2``.

Specification: github.com/kserve/open-inference-protocol, ``inference_rest.md``. Errors are problem
JSON as everywhere, whose member ``error`` is the one that the protocol asks for.
"""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from importlib.metadata import version
from typing import Any, Final, NoReturn

import msgspec

from serve_app.http.asgi import (
    REFUSALS,
    Request,
    Response,
    Route,
    accepted_request_id,
    by_size,
    failure,
    refusal,
)
from serve_app.http.problems import Problem
from serve_app.http.tensors import (
    DATATYPE_OF,
    Datatype,
    InferRequest,
    OutputTensor,
    decode_infer,
    output_names,
    read_rows,
    write_outputs,
)
from serve_app.prediction import Answerer, PredictionFailedError
from serve_app.schema import (
    NO_CONTEXT,
    Context,
    FeatureSpec,
    PredictRequest,
    RequestInvalidError,
    read_context,
)

PLATFORM: Final = "sklearn_randomforest"
EXTENSIONS: Final = ("null_data", "context_parameter")  # docs/http.md explains both


class TensorMetadata(msgspec.Struct, frozen=True, omit_defaults=True):
    """``shape`` has -1 where the number of rows stands."""

    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    parameters: dict[str, Any] | None = None


class ModelMetadata(msgspec.Struct, frozen=True):
    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class InferResponse(msgspec.Struct, frozen=True):
    model_name: str
    model_version: str
    id: str
    outputs: list[OutputTensor]


def inference_routes(
    predictor: Answerer, versions: Mapping[str, Answerer] | None = None, *, retry_after_s: int
) -> dict[str, dict[str, Route]]:
    """Every path of the protocol for one model, with its version in the path and without.

    Without a version ``predictor`` answers, which may choose one; ``versions`` answer by name, and
    are the one that ``predictor`` is when none are given.
    """
    stream = predictor.variant.stream
    loaded = versions or {stream.version: predictor}
    unknown = _unknown_model(stream.model, tuple(loaded))
    server = {
        "GET": _fixed(
            {"name": "treeline", "version": version("treeline-serve"), "extensions": EXTENSIONS}
        )
    }
    routes: dict[str, dict[str, Route]] = {
        "/v2": server,
        "/v2/": server,
        # A replica takes requests from the moment its model is loaded and proved: it is ready.
        "/v2/health/live": {"GET": _fixed({"live": True})},
        # The specification's text calls this member `live`, its clients read `ready`.
        "/v2/health/ready": {"GET": _fixed({"ready": True, "live": True})},
        "/v2/models/*": {"GET": unknown, "POST": unknown},
    }
    name = f"/v2/models/{stream.model}"
    paths = {name: predictor}
    paths |= {f"{name}/versions/{each}": answerer for each, answerer in loaded.items()}
    for path, answerer in paths.items():
        routes[path] = {"GET": _fixed(describe(answerer, tuple(loaded)))}
        routes[f"{path}/ready"] = {"GET": _fixed({"name": stream.model, "ready": True})}
        routes[f"{path}/infer"] = {"POST": infer_route(answerer, retry_after_s=retry_after_s)}
    return routes


def describe(answerer: Answerer, versions: tuple[str, ...]) -> ModelMetadata:
    stream = answerer.variant.stream
    return ModelMetadata(
        name=stream.model,
        versions=versions,
        platform=PLATFORM,
        inputs=describe_inputs(answerer.variant.decoder.features),
        outputs=describe_outputs(stream.classes),
    )


def infer_route(predictor: Answerer, *, retry_after_s: int) -> Route:
    """``POST …/infer``: the same checks, admission and capture as ``POST /predict``."""
    features = predictor.variant.decoder.features
    classes = predictor.variant.stream.classes
    encode = msgspec.json.Encoder().encode

    async def infer(request: Request) -> Response:
        identity = request.request_id
        try:
            size = len(request.body)
            decoded = await by_size(size, decode_infer, request.body)
            if decoded.id:
                identity = accepted_request_id(decoded.id, "id")
            wanted = [output.name for output in decoded.outputs or ()]
            names = chosen_outputs(wanted, output_names(classes))
            rows = await by_size(size, read_rows, decoded.inputs, features)
            answer = await predictor.answer(
                PredictRequest(rows, None, context_of(decoded)),
                identity,
                started_s=request.started_s,
            )
        except REFUSALS as exc:
            raise refusal(exc, retry_after_s=retry_after_s) from exc
        except PredictionFailedError as exc:
            return failure(exc, identity)
        outputs = write_outputs(answer.predictions, names, classes=len(classes))
        response = InferResponse(answer.model, answer.version, identity, outputs)
        return Response(await by_size(size, encode, response))

    return infer


def chosen_outputs(wanted: Sequence[str], known: Sequence[str]) -> Sequence[str]:
    """The outputs wanted, in the order asked for; all of them when none is named."""
    if not wanted:
        return known
    names = list(dict.fromkeys(wanted))
    for name in names:
        if name not in known:
            detail = f"`outputs`: {name!r} is unknown; this model has {', '.join(known)}"
            raise RequestInvalidError(detail, [{"field": "outputs", "detail": detail}])
    return names


def context_of(request: InferRequest) -> Context:
    """Who asked: the parameter ``context``, as in ``POST /predict``."""
    raw = (request.parameters or {}).get("context")
    if raw is None:
        return NO_CONTEXT
    if not isinstance(raw, dict):
        raise RequestInvalidError("`parameters.context`: expected an object")
    return read_context(raw)


def describe_inputs(features: Sequence[FeatureSpec]) -> list[TensorMetadata]:
    return [
        TensorMetadata(
            spec.name,
            DATATYPE_OF[spec.dtype],
            (-1,),
            {"nullable": True} if spec.nullable else None,
        )
        for spec in features
    ]


def describe_outputs(classes: Sequence[str]) -> list[TensorMetadata]:
    """Describe the outputs; ``probabilities`` names the classes in the order of its columns."""
    described = {
        "label": TensorMetadata("label", "BYTES", (-1,)),
        "score": TensorMetadata("score", "FP64", (-1,)),
        "probabilities": TensorMetadata(
            "probabilities", "FP64", (-1, len(classes)), {"classes": list(classes)}
        ),
    }
    return [described[name] for name in output_names(classes)]


def _fixed(document: object) -> Route:
    """A route whose answer does not change while the replica lives."""
    response = Response(msgspec.json.encode(document))

    async def answer(_: Request) -> Response:
        return response

    return answer


def _unknown_model(name: str, versions: tuple[str, ...]) -> Route:
    loaded = ", ".join(map(repr, versions))
    known = f"version {loaded}" if len(versions) == 1 else f"versions {loaded}"

    async def refuse(request: Request) -> NoReturn:
        detail = (
            f"no {request.path!r} here; the model served is {name!r} {known}, "
            "with the endpoints /ready and /infer"
        )
        raise Problem(HTTPStatus.NOT_FOUND, "unknown-model", detail)

    return refuse
