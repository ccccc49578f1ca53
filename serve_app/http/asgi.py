"""The replica's ASGI application: routes, request ids and error answers.

A raw ASGI callable, since a FastAPI ingress serves about two thirds of its rate (docs/adr/0001).
"""

import logging
import time
import uuid
from asyncio import to_thread
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from http import HTTPStatus
from typing import Any, TypeVar

import msgspec

from serve_app.admission import Admission, OverloadedError
from serve_app.http.problems import Problem
from serve_app.logs import log_failure
from serve_app.prediction import Answerer, PredictionFailedError
from serve_app.schema import (
    RequestInvalidError,
    RequestMalformedError,
    RequestTooLargeError,
    check_request_id,
)

logger = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Result = TypeVar("Result")
Route = Callable[["Request"], Awaitable["Response"]]

JSON = (b"content-type", b"application/json")
LARGE_BODY_BYTES = 256 << 10  # about 500 rows: decoding them would hold up small requests
REFUSALS = (
    RequestMalformedError,
    RequestInvalidError,
    RequestTooLargeError,
    OverloadedError,
)


class Response(msgspec.Struct, frozen=True):
    body: bytes
    status: int = 200
    headers: tuple[tuple[bytes, bytes], ...] = (JSON,)


class Request(msgspec.Struct, frozen=True):
    """What a route sees: the body read whole, and when the request arrived."""

    path: str
    query: bytes
    body: bytes
    request_id: str
    started_s: float


class ClientGoneError(Exception):
    """The client left before its request was read."""


class Application:
    """Routes by method and path; every other answer is problem JSON.

    A key of the routes is an exact path, or ends in ``/*`` and takes every path below it that is no
    key itself: the first such key does.
    """

    def __init__(
        self,
        routes: Mapping[str, Mapping[str, Route]],
        *,
        max_body_bytes: int,
        on_shutdown: Callable[[], Awaitable[None]],
        on_rejected: Callable[[int], None],
        admission: Admission,
    ) -> None:
        """``routes`` maps path, then method, to a route.

        ``on_rejected`` is told the status of each request that reached no model. Ray Serve's
        middleware, which stands before this, sets and echoes ``X-Request-ID``.
        """
        self._routes = routes
        self._prefixes = [
            (key.removesuffix("*"), methods) for key, methods in routes.items() if key[-2:] == "/*"
        ]
        self._max_body_bytes = max_body_bytes
        self._on_shutdown = on_shutdown
        self._on_rejected = on_rejected
        self._admission = admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        self._admission.arrive()
        try:
            await self._answer(scope, receive, send)
        finally:
            self._admission.leave()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        started_s = time.perf_counter()
        request_id = ""
        try:
            request_id = read_request_id(scope)
            route = self._find(scope)
            body = await self._read(scope, receive)
            path = scope["path"]
            request = Request(path, scope["query_string"], body, request_id, started_s)
            response = await route(request)
        except Problem as problem:
            self._on_rejected(int(problem.status))
            response = _problem_response(problem, request_id)
        except ClientGoneError:
            return
        except Exception as exc:  # noqa: BLE001  the client gets an answer whatever happens
            log_failure(logger, "a request failed", exc, request_id)
            self._on_rejected(500)
            response = _problem_response(_internal("the server failed on this request"), request_id)
        headers = [*response.headers, (b"content-length", str(len(response.body)).encode())]
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": response.body})

    def _find(self, scope: Scope) -> Route:
        path: str = scope["path"].removeprefix(scope.get("root_path", ""))
        methods = self._routes.get(path) or self._find_prefix(path)
        if methods is None:
            known = ", ".join(self._routes)
            raise Problem(HTTPStatus.NOT_FOUND, "not-found", f"no {path!r} here; there is {known}")
        route = methods.get(scope["method"])
        if route is None:
            allowed = ", ".join(methods)
            raise Problem(HTTPStatus.METHOD_NOT_ALLOWED, "method", f"{path} takes {allowed}")
        return route

    def _find_prefix(self, path: str) -> Mapping[str, Route] | None:
        for prefix, methods in self._prefixes:
            if path.startswith(prefix):
                return methods
        return None

    async def _read(self, scope: Scope, receive: Receive) -> bytes:
        for name, value in scope["headers"]:
            if name == b"content-length" and value.isdigit() and int(value) > self._max_body_bytes:
                raise self._too_large(int(value))
        message = await _next_message(receive)
        body: bytes = message.get("body", b"")
        if not message.get("more_body", False):
            return self._bounded(body)
        parts = [body]
        size = len(body)
        while message.get("more_body", False):
            message = await _next_message(receive)
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self._max_body_bytes:
                raise self._too_large(size)
        return b"".join(parts)

    def _bounded(self, body: bytes) -> bytes:
        if len(body) > self._max_body_bytes:
            raise self._too_large(len(body))
        return body

    def _too_large(self, size: int) -> Problem:
        return Problem(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            "too-large",
            f"the body has {size} bytes or more; at most {self._max_body_bytes} are taken",
        )

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                await self._on_shutdown()
                await send({"type": "lifespan.shutdown.complete"})
                return


async def _next_message(receive: Receive) -> MutableMapping[str, Any]:
    try:
        message = await receive()
    except Exception as exc:  # Ray's own proxy raises where a client has left
        raise ClientGoneError from exc
    if message["type"] == "http.disconnect":
        raise ClientGoneError
    return message


def predict_route(predictor: Answerer, *, retry_after_s: int) -> Route:
    """``POST /predict``: see docs/http.md."""
    decode = predictor.variant.decoder.decode
    encode = msgspec.json.Encoder().encode

    async def predict(request: Request) -> Response:
        try:
            size = len(request.body)
            decoded = await by_size(size, decode, request.body)
            response = await predictor.answer(
                decoded, request.request_id, started_s=request.started_s
            )
        except REFUSALS as exc:
            raise refusal(exc, retry_after_s=retry_after_s) from exc
        except PredictionFailedError as exc:
            # An answer, not a rejection: the request reached a model, and is counted there.
            return failure(exc, request.request_id)
        return Response(await by_size(size, encode, response))

    return predict


async def by_size(size: int, work: Callable[..., Result], *arguments: Any) -> Result:
    """Do the work of a body of ``size`` bytes: here if it is small, in a thread if it is large."""
    if size > LARGE_BODY_BYTES:
        return await to_thread(work, *arguments)
    return work(*arguments)


def refusal(exc: Exception, *, retry_after_s: int) -> Problem:
    """The answer to one of ``REFUSALS``: a request that no model saw."""
    match exc:
        case RequestMalformedError():
            return Problem(HTTPStatus.BAD_REQUEST, "not-json", str(exc))
        case RequestInvalidError():
            status = HTTPStatus.UNPROCESSABLE_ENTITY
            return Problem(status, "invalid", str(exc), errors=exc.errors)
        case RequestTooLargeError():
            return Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too-large", str(exc))
        case OverloadedError():
            status = HTTPStatus.TOO_MANY_REQUESTS
            return Problem(status, "overloaded", str(exc), retry_after_s=retry_after_s)
        case _:
            raise TypeError(f"{type(exc).__name__} is not one of REFUSALS") from exc


def failure(exc: PredictionFailedError, request_id: str) -> Response:
    """The answer when the model failed on valid input."""
    return _problem_response(_internal(str(exc)), request_id)


def read_request_id(scope: Scope) -> str:
    """The caller's ``X-Request-ID``, or a fresh one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and value:
            return accepted_request_id(value.decode("utf-8", "replace"), "X-Request-ID")
    return str(uuid.uuid4())


def accepted_request_id(text: str, where: str) -> str:
    """The id as it is, or the problem that it cannot stand in a log."""
    try:
        return check_request_id(text, where)
    except RequestInvalidError as exc:
        raise Problem(HTTPStatus.BAD_REQUEST, "request-id", str(exc)) from exc


def _internal(detail: str) -> Problem:
    return Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "internal", detail)


def _problem_response(problem: Problem, request_id: str) -> Response:
    return Response(problem.body(request_id), int(problem.status), tuple(problem.headers()))
