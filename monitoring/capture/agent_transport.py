"""The way to the agent's actor. Needs nothing of Ray but its handles, so Ray is not imported."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec

from monitoring.events import Ack


class RemoteMethod(Protocol):
    """``handle.ingest`` of an actor handle."""

    def remote(self, payload: bytes, /) -> Awaitable[Ack | bytes]: ...


class AgentHandle(Protocol):
    """The part of an actor handle that is used."""

    @property
    def ingest(self) -> RemoteMethod: ...


class AgentTransport:
    """Delivers to an actor that may die and come back under a new handle.

    ``lookup`` finds the current one and may block or raise (Ray Serve: ValueError while there is
    none). The handle is kept while it answers; after any failure it is looked up again, for Ray
    never mends a handle and a redeploy leaves the old actor answering for a while. Every failure
    is raised to the sender, which tries again; nothing is fire-and-forget.
    """

    def __init__(self, lookup: Callable[[], AgentHandle], *, timeout_s: float = 30.0) -> None:
        self._lookup = lookup
        self._timeout_s = timeout_s
        self._handle: AgentHandle | None = None

    async def ingest(self, payload: bytes) -> Ack:
        """Deliver and wait until the agent holds it durably.

        Raises ``DeliveryRejected``, TimeoutError, or what Ray raises about the actor.
        """
        handle = self._handle
        self._handle = None
        async with asyncio.timeout(self._timeout_s):
            if handle is None:
                handle = await asyncio.to_thread(self._lookup)
            answer = await handle.ingest.remote(payload)
        self._handle = handle
        return msgspec.msgpack.decode(answer, type=Ack) if isinstance(answer, bytes) else answer
