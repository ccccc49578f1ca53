"""What runs between a replica's HTTP server and Ray Serve, for every request: a middleware.

Ray Serve starts two tasks beside each request to notice that its client left. A small request is
answered before anyone could use that: it is scored on the event loop, where nothing can cancel it.
``x-request-disconnect-disabled`` is Ray Serve's own header for such requests; larger ones, which
may wait for a thread, are still watched.
"""

from typing import Final

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

CALLBACK_VARIABLE: Final = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
IMPORT_PATH: Final = "serve_app.http.ingress:middlewares"
SMALL_BODY_BYTES: Final = 16 << 10  # about 30 rows of 20 features
_UNWATCHED: Final = (b"x-request-disconnect-disabled", b"?1")


class SmallRequestsUnwatched:
    """Tell Ray Serve not to watch the clients of requests with a small body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            for name, value in scope["headers"]:
                if name == b"content-length":
                    if value.isdigit() and int(value) <= SMALL_BODY_BYTES:
                        scope["headers"] = [*scope["headers"], _UNWATCHED]
                    break
        await self._app(scope, receive, send)


def middlewares() -> list[Middleware]:
    """Called by Ray Serve."""
    return [Middleware(SmallRequestsUnwatched)]
