"""A client of the ASGI application, which stands behind Ray Serve's middleware for request ids."""

from collections.abc import Mapping

import httpx
from ray.serve._private.http_util import RequestIdMiddleware

from serve_app.admission import Admission
from serve_app.http.asgi import Application, Route

MAX_BODY_BYTES = 10_000


def client_of(
    routes: Mapping[str, Mapping[str, Route]],
    admission: Admission | None = None,
    rejected: list[int] | None = None,
) -> httpx.AsyncClient:
    """``rejected`` gets the statuses of requests that reached no model."""

    async def nothing() -> None: ...

    application = Application(
        routes,
        max_body_bytes=MAX_BODY_BYTES,
        on_shutdown=nothing,
        on_rejected=([] if rejected is None else rejected).append,
        admission=admission or Admission(max_requests=10, max_pending_rows=10),
    )
    transport = httpx.ASGITransport(app=RequestIdMiddleware(application))
    return httpx.AsyncClient(transport=transport, base_url="http://test")
