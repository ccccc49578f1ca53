"""The agent as a Ray actor. Nothing is decided here.

Used with ``ray.serve.config.DeploymentActorConfig(name=…, actor_class=MonitoringAgentActor,
init_kwargs={"options": …}, actor_options={"num_cpus": 0})``. Ray kills the actor without a word
when its deployment goes, so ``flush`` is called by the last replicas; whatever is left in the spool
waits for the next agent on the same ``state_dir``.
"""

import asyncio
from typing import Any

import msgspec
import ray

from monitoring.agent.logs import log_as_json
from monitoring.agent.nodes import Look
from monitoring.agent.service import MonitoringService
from monitoring.agent.settings import SamplingSettings, agent_settings
from monitoring.agent.spool import Spool
from monitoring.events import Ack
from monitoring.live.client import LiveClient
from monitoring.live.wire import Question


@ray.remote(num_cpus=0)
class MonitoringAgentActor:
    """One shard. ``options`` are ``AgentSettings`` as plain values."""

    def __init__(self, options: dict[str, Any]) -> None:
        log_as_json()
        settings = agent_settings(options)
        followers: list[LiveClient] = []

        def follow(spool: Spool) -> LiveClient:
            followers.append(LiveClient(settings, spool))
            return followers[-1]

        self._service = MonitoringService(
            settings,
            node=ray.get_runtime_context().get_node_id(),
            follow=follow if settings.live else None,
        )
        self._live = followers[0] if followers else None
        if self._live is not None:
            self._live.watch(lambda: self._service.health().causes)

    async def ingest(self, payload: bytes) -> Ack:
        """Raises ``MonitoringError``s, which Ray hands on as causes of its own."""
        return await self._service.ingest(payload)

    async def report(self, payload: bytes) -> None:
        await self._service.report(payload)

    async def configure(self, sampling: dict[str, Any]) -> None:
        self._service.configure(msgspec.convert(sampling, SamplingSettings))

    async def poll_nodes(self, alive: list[str]) -> bytes:
        """Return a ``Poll`` as MessagePack: which of the living nodes should be looked at."""
        return msgspec.msgpack.encode(self._service.nodes.poll(alive))

    async def looked(self, look: bytes) -> None:
        """Take the ``Look`` that a poll had asked for."""
        self._service.nodes.looked(msgspec.msgpack.decode(look, type=Look))

    async def handed_over(self, producers: list[str]) -> None:
        self._service.nodes.handed_over(producers)

    async def metrics(self) -> bytes:
        return await self._service.metrics()

    async def counts(self) -> bytes:
        """``AgentCounts`` as MessagePack, to be merged with other shards'."""
        return msgspec.msgpack.encode(await self._service.counts())

    async def ledger(self) -> dict[str, Any]:
        plain: dict[str, Any] = msgspec.to_builtins(await self._service.ledger())
        return plain

    async def health(self) -> dict[str, Any]:
        """``AgentHealth`` as plain values."""
        plain: dict[str, Any] = msgspec.to_builtins(await asyncio.to_thread(self._service.health))
        return plain

    async def live(self, question: dict[str, Any]) -> bytes | None:
        """``LiveView`` as MessagePack; None where nothing is counted live."""
        if self._live is None:
            return None
        return await self._live.show(msgspec.convert(question, Question))

    async def flush(self, timeout_s: float = 10.0) -> dict[str, Any]:
        plain: dict[str, Any] = msgspec.to_builtins(await self._service.flush(timeout_s))
        return plain

    async def stop(self) -> None:
        await self._service.stop()
        if self._live is not None:
            await asyncio.to_thread(self._live.stop)
