"""Servers that run for as long as a block does."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar


class Server(Protocol):
    def start(self) -> None: ...

    def stop(self) -> None: ...


Started = TypeVar("Started", bound=Server)


@contextmanager
def started(server: Started) -> Iterator[Started]:
    """Start it, and stop it whatever happens, a start that fails halfway included."""
    try:
        server.start()
        yield server
    finally:
        server.stop()
