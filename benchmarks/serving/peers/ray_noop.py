"""Ray Serve with nothing behind it: a raw ASGI callable, taken in as Treeline's own is."""

from typing import Any

from noop import app
from ray import serve


class NoOp:
    def __serve_build_asgi_app__(self) -> Any:
        return app


def build(args: dict[str, str]) -> Any:
    return serve.deployment(name="NoOp", max_ongoing_requests=1_000, max_queued_requests=2_000)(
        serve.ingress()(NoOp)
    ).bind()
