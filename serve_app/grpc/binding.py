"""How Ray Serve's gRPC servers listen: on loopback, and to messages of a bounded size.

Ray Serve opens them on all interfaces, in replicas and in its proxies, whatever
``http_options.host`` says, for messages of up to 2 GiB. It looks up the function that opens a port
each time, so one of ours can stand in its place: docs/adr/0015. The operator may choose otherwise.
"""

import os
from collections.abc import Mapping
from typing import Any, Final

from ray.serve._private import default_impl

from serve_app.errors import TreelineError

HOST_VARIABLE: Final = "TREELINE_GRPC_HOST"
SIZE_VARIABLE: Final = "RAY_SERVE_GRPC_MAX_MESSAGE_SIZE"
LOOPBACK: Final = "127.0.0.1"
_OPENER: Final = "add_grpc_address"  # of Ray Serve, private
CALLBACK: Final = "serve_app.grpc.binding:middlewares"


class NotOnLoopbackError(TreelineError):
    """A gRPC server would listen on all interfaces, and nobody asked for it."""


def add_grpc_address(server: Any, address: str) -> None:
    """Open ``address``'s port on the host chosen; in the place of Ray Serve's own function."""
    _, _, port = address.rpartition(":")
    host = os.environ.get(HOST_VARIABLE) or LOOPBACK
    if ":" in host and not host.startswith("["):
        host = f"[{host}]"
    try:
        server.add_insecure_port(f"{host}:{port}")
    except RuntimeError as exc:  # the type by which Ray Serve knows to try another port
        raise RuntimeError(f"gRPC cannot listen on {host}:{port} ({HOST_VARIABLE}): {exc}") from exc


def listen_on_chosen_host() -> None:
    """From now on this process's gRPC servers listen on the host chosen.

    Raises NotOnLoopbackError where Ray Serve has no such function: another release.
    """
    if not hasattr(default_impl, _OPENER):
        raise NotOnLoopbackError("Ray Serve's gRPC server differs from the one this is built for")
    setattr(default_impl, _OPENER, add_grpc_address)


def require_chosen_host() -> None:
    """Refuse to serve in a process whose gRPC server was opened by Ray Serve's own function."""
    if getattr(default_impl, _OPENER) is not add_grpc_address:
        raise NotOnLoopbackError(
            "Ray Serve's proxy would take gRPC on all interfaces: set "
            f"RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH: {CALLBACK} under controller_options."
            "runtime_env.env_vars, as configs/grpc.yaml does"
        )


def variables(environment: Mapping[str, str], max_message_bytes: int) -> dict[str, str]:
    """What bounds a message, either way, in a replica."""
    return {} if SIZE_VARIABLE in environment else {SIZE_VARIABLE: str(max_message_bytes)}


def middlewares() -> list[Any]:
    """Called by Ray Serve's proxies before they open ports; adds no middleware."""
    listen_on_chosen_host()
    return []
