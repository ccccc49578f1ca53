"""The fast path: small requests reach the application ahead of Ray Serve's own request handling.

Ray Serve's handling of a request takes the replica's event loop more than half as long as uvicorn
and Treeline together: metadata, a context, two tasks that watch the client, a log record. A small
request does without: most are scored on the event loop, where nothing can cancel them. So a
middleware that Ray Serve puts around its HTTP server calls the application itself, and keeps Ray
Serve's accounts: slots of ``max_ongoing_requests``, request metrics, and the count of ongoing
requests, which a stopping replica waits for.

This leans on the inside of the one Ray release that Treeline is built for. Where that inside is not
as expected, and for every other request, Ray Serve's own way is taken: docs/adr/0014.
"""

import asyncio
import logging
import time
import uuid
from collections.abc import Mapping
from types import MethodType
from typing import Any, Final, Protocol, cast

from ray.serve._private.common import RequestMetadata, RequestProtocol
from ray.serve._private.constants import SERVE_LOGGER_NAME
from ray.serve._private.http_util import RequestIdMiddleware
from ray.serve._private.logging_utils import log_access_log_filter
from ray.serve._private.tracing_utils import is_tracing_enabled
from ray.serve.config import HTTPOptions
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.grpc import binding
from serve_app.http.asgi import Application
from serve_app.logs import log_failure

logger = logging.getLogger(__name__)
serve_logger = logging.getLogger(SERVE_LOGGER_NAME)

CALLBACK_VARIABLE: Final = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
SMALL_BODY_BYTES: Final = 16 << 10  # about 30 rows of 20 features
TIMEOUT_HEADER: Final = b"x-request-timeout-seconds"  # a wish that Ray Serve grants


class RayMetrics(Protocol):
    """What is used of a replica's ``_metrics_manager``."""

    def inc_num_ongoing_requests(self, request_metadata: RequestMetadata) -> None: ...

    def dec_num_ongoing_requests(self, request_metadata: RequestMetadata) -> None: ...

    def record_request_metrics(
        self, *, route: str, latency_ms: float, is_error: bool, exception_type: str | None = None
    ) -> None: ...

    def _should_emit_request_ingress_metrics(self, protocol: RequestProtocol) -> bool: ...


class RayUserCallable(Protocol):
    """What is used of a replica's ``_user_callable_wrapper``."""

    @property
    def event_loop(self) -> asyncio.AbstractEventLoop: ...


class RayReplica(Protocol):
    """What is used of ``ray.serve._private.replica.Replica``."""

    _route_prefix: str | None  # changes with a new configuration
    _http_options: HTTPOptions | None
    _user_callable_asgi_app: Any
    _user_callable_wrapper: RayUserCallable
    _semaphore: asyncio.Semaphore
    _metrics_manager: RayMetrics

    def _can_accept_request(self, request_metadata: RequestMetadata) -> bool: ...


class FastPath:
    """Answers small POST requests with a replica's application, on Ray Serve's accounts."""

    def __init__(self, replica: RayReplica) -> None:
        """Raise AttributeError or TypeError where the replica is not as expected."""
        application = replica._user_callable_asgi_app
        if not isinstance(application, Application):
            raise TypeError(f"its application is a {type(application).__name__}")
        if replica._user_callable_wrapper.event_loop is not asyncio.get_running_loop():
            raise TypeError("its application runs on a thread of its own")
        metrics = replica._metrics_manager
        if metrics._should_emit_request_ingress_metrics(RequestProtocol.HTTP):
            raise TypeError("no HAProxy counts its requests")
        if replica._http_options is None or replica._http_options.request_timeout_s is not None:
            raise TypeError("request_timeout_s is set, which Ray Serve sees to")
        self._application = application
        self._replica = replica
        self._semaphore = replica._semaphore
        self._begin = metrics.inc_num_ongoing_requests
        self._end = metrics.dec_num_ongoing_requests
        self._record = metrics.record_request_metrics
        self._is_accepted = replica._can_accept_request
        self._metadata = RequestMetadata(
            request_id="",
            internal_request_id="",
            _request_protocol=RequestProtocol.HTTP,
            is_direct_ingress=True,
        )

    @property
    def _prefix(self) -> str:
        return self._replica._route_prefix or ""

    def takes(self, scope: Scope) -> bool:
        """Whether Ray Serve would let this request pass at once, and note it in no access log."""
        return (
            scope["path"].startswith(scope.get("root_path", "") + self._prefix)
            and not self._semaphore.locked()
            and self._is_accepted(self._metadata)
            and not access_is_logged()
        )

    async def answer(self, scope: Scope, receive: Receive, send: Send, request_id: bytes) -> None:
        """Call the application as Ray Serve's replica would, and echo the request id."""
        prefix = self._prefix
        if prefix != "/":
            scope["root_path"] = scope.get("root_path", "") + prefix

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"].append((b"x-request-id", request_id))
            await send(message)

        error: str | None = None
        started_s = time.perf_counter()
        await self._semaphore.acquire()  # at once: it was not locked
        self._begin(self._metadata)
        try:
            await self._application(scope, receive, send_with_id)
        except BaseException as exc:
            error = type(exc).__name__
            if isinstance(exc, Exception):  # the server around this logs nothing
                log_failure(logger, "a request failed", exc, request_id.decode("latin-1"))
            raise
        finally:
            self._end(self._metadata)
            self._semaphore.release()
            latency_ms = (time.perf_counter() - started_s) * 1e3
            self._record(
                route=prefix,
                latency_ms=latency_ms,
                is_error=error is not None,
                exception_type=error,
            )


class SmallRequestsFirst:
    """The middleware: small requests take the fast path, all others Ray Serve's way."""

    def __init__(self, app: ASGIApp) -> None:
        self._ray_serve = app
        self._looked = False
        self._fast_path: FastPath | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            request_id = small_request(scope)
            if request_id is not None:
                # Ray Serve starts its server after its replica: now there is one to look at.
                fast_path = self._fast_path if self._looked else self._look()
                if fast_path is not None and fast_path.takes(scope):
                    await fast_path.answer(scope, receive, send, request_id)
                    return
        await self._ray_serve(scope, receive, send)

    def _look(self) -> FastPath | None:
        self._looked = True
        if is_tracing_enabled():
            logger.info("requests are traced, so all take Ray Serve's own way")
            return None
        try:
            self._fast_path = FastPath(replica_behind(self._ray_serve))
        except (AttributeError, TypeError) as exc:
            logger.warning("no fast path for small requests: Ray Serve's replica differs: %s", exc)
        else:
            logger.info("small requests take the fast path")
        return self._fast_path


def small_request(scope: Scope) -> bytes | None:
    """The request id of a request with a small body, a fresh one where it has none; else None.

    A fresh id is put among the headers, where the application finds it.
    """
    request_id = b""
    small = False
    for name, value in scope["headers"]:
        if name == b"content-length":
            small = value.isdigit() and int(value) <= SMALL_BODY_BYTES
        elif name == b"x-request-id":
            request_id = request_id or value
        elif name == TIMEOUT_HEADER:
            return None
    if not small:
        return None
    if not request_id:
        request_id = str(uuid.uuid4()).encode()
        scope["headers"] = [*scope["headers"], (b"x-request-id", request_id)]
    return request_id


def access_is_logged() -> bool:
    """Whether Ray Serve's ``logging_config.enable_access_log`` is on for this replica."""
    return any(log_access_log_filter not in each.filters for each in serve_logger.handlers)


def replica_behind(app: Any) -> RayReplica:
    """The replica whose method an ASGI application is, within Ray Serve's own middleware only.

    Raises TypeError where another middleware stands between, which may refuse requests.
    """
    inner = app._app if type(app) is RequestIdMiddleware else app
    if not isinstance(inner, MethodType):
        raise TypeError(f"a {type(inner).__name__} stands before it")
    return cast("RayReplica", inner.__self__)


def variables(environment: Mapping[str, str]) -> dict[str, str]:
    """What makes Ray Serve call ``middlewares`` in a replica.

    Nothing, where the operator has put middleware of their own there: Ray Serve takes one callback.
    """
    # In a replica the host of gRPC needs no callback, and its variable is ours.
    if environment.get(CALLBACK_VARIABLE, binding.CALLBACK) != binding.CALLBACK:
        logger.warning("no fast path for small requests: %s is taken", CALLBACK_VARIABLE)
        return {}
    return {CALLBACK_VARIABLE: "serve_app.http.ingress:middlewares"}


def middlewares() -> list[Middleware]:
    """Called by Ray Serve."""
    return [Middleware(SmallRequestsFirst)]
