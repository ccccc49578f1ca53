"""The fast path: which requests take it, and that Ray Serve's accounts stay right."""

import asyncio
import importlib
import logging
from types import SimpleNamespace
from typing import Any

import pytest
from ray.serve._private.http_util import RequestIdMiddleware
from ray.serve._private.logging_utils import log_access_log_filter
from ray.serve._private.replica import ReplicaMetricsManager

from serve_app.admission import Admission
from serve_app.grpc import binding
from serve_app.http import ingress
from serve_app.http.asgi import Application, Request, Response

SMALL = (b"content-length", b"16384")


@pytest.fixture(autouse=True)
def serve_log(monkeypatch: pytest.MonkeyPatch) -> logging.Logger:
    """A logger in the place of Ray Serve's in a replica whose access log is off."""
    log = logging.Logger("serve")
    log.addHandler(logging.NullHandler())
    log.handlers[0].addFilter(log_access_log_filter)
    monkeypatch.setattr(ingress, "serve_logger", log)
    return log


class Metrics:
    """The accounts of a replica, with the methods of Ray Serve's."""

    def __init__(self) -> None:
        self.ongoing = 0
        self.recorded: list[tuple[str, bool]] = []
        self.counts_ingress = False

    def inc_num_ongoing_requests(self, request_metadata: Any) -> None:
        self.ongoing += 1

    def dec_num_ongoing_requests(self, request_metadata: Any) -> None:
        self.ongoing -= 1

    def record_request_metrics(
        self, *, route: str, latency_ms: float, is_error: bool, exception_type: str | None = None
    ) -> None:
        assert latency_ms > 0
        assert is_error == (exception_type is not None)
        self.recorded.append((route, is_error))

    def _should_emit_request_ingress_metrics(self, protocol: Any) -> bool:
        return self.counts_ingress


class Replica:
    """A replica of Ray Serve, as far as the fast path looks at it."""

    def __init__(self, route_prefix: str | None = "/") -> None:
        async def echo(request: Request) -> Response:
            assert self._metrics_manager.ongoing == 1
            assert self._semaphore.locked()
            return Response(request.request_id.encode())

        async def nothing() -> None: ...

        self._user_callable_asgi_app: Any = Application(
            {"/predict": {"POST": echo}},
            max_body_bytes=1 << 20,
            on_shutdown=nothing,
            on_rejected=lambda status: None,
            admission=Admission(max_requests=10, max_pending_rows=10),
        )
        self._user_callable_wrapper = SimpleNamespace(event_loop=asyncio.get_running_loop())
        self._route_prefix = route_prefix
        self._http_options = SimpleNamespace(request_timeout_s=None)
        self._semaphore = asyncio.Semaphore(1)
        self._metrics_manager = Metrics()
        self.accepts = True
        self.own_way = 0

    def _can_accept_request(self, request_metadata: Any) -> bool:
        assert request_metadata.is_direct_ingress
        return self.accepts

    async def asgi(self, scope: Any, receive: Any, send: Any) -> None:
        """Ray Serve's own way."""
        self.own_way += 1


async def ask(
    replica: Replica, *headers: tuple[bytes, bytes], server: Any = None, **changes: Any
) -> list[Any]:
    """The messages of an answer, empty where the request took Ray Serve's own way."""
    app = server or wrapped(replica)
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/predict",
        "root_path": "",
        "query_string": b"",
        "headers": list(headers),
        **changes,
    }
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"{}"}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    assert replica.own_way == (not sent), replica.own_way
    assert replica._metrics_manager.ongoing == 0
    return sent


def wrapped(replica: Replica) -> Any:
    """The replica's server as Ray Serve builds it."""
    app: Any = RequestIdMiddleware(replica.asgi)
    for middleware in ingress.middlewares():
        app = middleware.cls(app, *middleware.args, **middleware.kwargs)
    return app


async def test_a_small_request_is_answered_and_counted():
    replica = Replica()
    start, body = await ask(replica, SMALL, (b"x-request-id", b"mine"))
    assert (start["status"], body["body"]) == (200, b"mine")
    assert (b"x-request-id", b"mine") in start["headers"]
    assert replica._metrics_manager.recorded == [("/", False)]


@pytest.mark.parametrize("sent", [[], [(b"x-request-id", b"")]])
async def test_an_id_is_made_once_for_answer_and_header(sent):
    start, body = await ask(Replica(), SMALL, *sent)
    assert len(body["body"]) == 36
    assert [value for name, value in start["headers"] if name == b"x-request-id"] == [body["body"]]


async def test_a_route_prefix_is_taken_off():
    replica = Replica("/credit")
    start, _ = await ask(replica, SMALL, path="/credit/predict")
    assert start["status"] == 200
    assert replica._metrics_manager.recorded == [("/credit", False)]
    assert await ask(Replica("/credit"), SMALL, path="/other/predict") == []


async def test_the_servers_root_path_is_kept():
    start, _ = await ask(Replica("/credit"), SMALL, path="/root/credit/predict", root_path="/root")
    assert start["status"] == 200


@pytest.mark.parametrize(
    "headers",
    [
        [(b"content-length", b"16385")],
        [(b"content-length", b"1e3")],
        [(b"transfer-encoding", b"chunked")],
        [SMALL, (b"x-request-timeout-seconds", b"1")],
        [],
    ],
)
async def test_others_take_ray_serves_way(headers):
    assert await ask(Replica(), *headers) == []


async def test_only_posts_take_it():
    assert await ask(Replica(), SMALL, method="GET", path="/-/healthz") == []


async def test_only_http_is_touched():
    assert await ask(Replica(), SMALL, type="websocket") == []


async def test_a_request_that_ray_would_hold_or_refuse_is_left_to_it():
    full, closed = Replica(), Replica()
    await full._semaphore.acquire()
    closed.accepts = False
    assert await ask(full, SMALL) == await ask(closed, SMALL) == []


async def test_an_access_log_gets_its_lines_from_ray_serve(serve_log):
    assert await ask(Replica(), SMALL)
    serve_log.addHandler(logging.NullHandler())
    assert await ask(Replica(), SMALL) == []


async def test_an_exception_is_counted_and_passed_on():
    replica = Replica()

    async def fails(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("the connection broke")

    replica._user_callable_asgi_app._answer = fails
    with pytest.raises(RuntimeError, match="broke"):
        await ask(replica, SMALL)
    assert replica._metrics_manager.ongoing == 0
    assert replica._metrics_manager.recorded == [("/", True)]


async def test_a_changed_route_prefix_holds_at_once():
    replica = Replica()
    server = wrapped(replica)
    assert await ask(replica, SMALL, server=server)
    replica._route_prefix = "/credit"
    start, _ = await ask(replica, SMALL, server=server, path="/credit/predict")
    assert start["status"] == 200
    assert await ask(replica, SMALL, server=server) == []


async def test_middleware_of_others_is_not_passed_by():
    class Refusing:
        def __init__(self, app: Any) -> None:
            self._app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 401, "headers": []})

    replica = Replica()
    server = ingress.SmallRequestsFirst(Refusing(RequestIdMiddleware(replica.asgi)))
    (start,) = await ask(replica, SMALL, server=server)
    assert start["status"] == 401


def test_a_callback_of_the_operators_keeps_its_place(caplog):
    assert ingress.variables({ingress.CALLBACK_VARIABLE: "auth:middlewares"}) == {}
    assert ingress.CALLBACK_VARIABLE in caplog.text


def test_the_callback_that_binds_grpc_does_not_count_as_the_operators():
    environment = {ingress.CALLBACK_VARIABLE: binding.CALLBACK}
    assert ingress.variables(environment) == ingress.variables({}) != {}


def _foreign(replica: Any) -> None:
    replica._user_callable_asgi_app = object()


def _threaded(replica: Any) -> None:
    replica._user_callable_wrapper.event_loop = object()


def _counting(replica: Any) -> None:
    replica._metrics_manager.counts_ingress = True


def _timed(replica: Any) -> None:
    replica._http_options.request_timeout_s = 5.0


def _newer(replica: Any) -> None:
    del replica._semaphore


@pytest.mark.parametrize("change", [_foreign, _threaded, _counting, _timed, _newer])
async def test_an_unexpected_replica_keeps_its_own_way(change, caplog):
    replica = Replica()
    change(replica)
    with caplog.at_level("WARNING", ingress.logger.name):
        assert await ask(replica, SMALL) == []
    assert "no fast path" in caplog.text


async def test_traced_requests_keep_ray_serves_way(monkeypatch):
    monkeypatch.setattr(ingress, "is_tracing_enabled", lambda: True)
    assert await ask(Replica(), SMALL) == []


def test_ray_serve_finds_it_by_its_path():
    (path,) = ingress.variables({}).values()
    module, name = path.split(":")
    assert getattr(importlib.import_module(module), name) is ingress.middlewares


@pytest.mark.parametrize("name", [name for name in vars(Metrics) if not name.startswith("__")])
def test_rays_metrics_manager_has_the_methods(name):
    assert callable(getattr(ReplicaMetricsManager, name))
