"""The middleware in front of Ray Serve."""

import importlib

import pytest
from ray.serve._private.constants import SERVE_HTTP_REQUEST_DISCONNECT_DISABLED_HEADER

from serve_app.http import ingress


async def headers_seen(*sent, kind="http"):
    """What Ray Serve would see of these headers."""
    seen = []

    async def app(scope, receive, send):
        seen.extend(scope["headers"])

    (middleware,) = ingress.middlewares()
    wrapped = middleware.cls(app, *middleware.args, **middleware.kwargs)
    await wrapped({"type": kind, "headers": list(sent)}, None, None)
    return seen


NAME = SERVE_HTTP_REQUEST_DISCONNECT_DISABLED_HEADER.encode()


async def test_a_small_request_is_not_watched():
    host, length = (b"host", b"x"), (b"content-length", b"16384")
    assert await headers_seen(host, length) == [host, length, (NAME, b"?1")]


@pytest.mark.parametrize(
    "sent",
    [
        [(b"content-length", b"16385")],
        [(b"content-length", b"1e3")],
        [(b"transfer-encoding", b"chunked")],
        [],
    ],
)
async def test_what_is_large_or_of_unknown_size_is_watched(sent):
    assert await headers_seen(*sent) == sent


async def test_only_http_is_touched():
    sent = [(b"content-length", b"0")]
    assert await headers_seen(*sent, kind="websocket") == sent


def test_ray_serve_finds_it_by_its_path():
    module, name = ingress.IMPORT_PATH.split(":")
    assert getattr(importlib.import_module(module), name) is ingress.middlewares
