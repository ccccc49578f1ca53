"""The replica's link to the monitoring agents: which shard, which handle, what they must know.

Only replicas of the deployment that owns the agents can look them up. A handle goes stale when its
agent is recreated, so it is looked up again after a failure, and a new agent is told the live
settings before anything else.
"""

import asyncio
import logging
import zlib
from typing import Any

from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from serve_app.errors import TreelineError

logger = logging.getLogger(__name__)

CALL_TIMEOUT_S = 5.0


def agent_name(shard: int) -> str:
    return f"monitoring-agent-{shard}"


def shard_of(producer: str, shards: int) -> int:
    """Spread producers evenly and for ever in the same way, so that one agent sees all of each.

    >>> shard_of("replica-1", 4) == shard_of("replica-1", 4)
    True
    """
    return zlib.crc32(producer.encode()) % shards


class AgentsUnavailableError(TreelineError):
    """An agent did not answer; Serve recreates a dead one within seconds."""


class Agents:
    """Handles of all shards, looked up when needed and forgotten when they fail."""

    def __init__(self, shards: int) -> None:
        self.shards = shards
        self._handles: dict[int, Any] = {}
        self._sampling: dict[str, Any] | None = None

    def lookup(self, shard: int) -> Any:
        """Find an agent; raise ValueError while it is being recreated."""
        handle = serve.get_deployment_actor(agent_name(shard))
        if self._sampling is not None:
            handle.configure.remote(self._sampling)  # ordered before this replica's next calls
        self._handles[shard] = handle
        return handle

    async def configure(self, sampling: dict[str, Any]) -> None:
        """Tell every agent which events to keep, now and again after it is recreated."""
        self._sampling = sampling
        for shard in range(self.shards):
            try:
                await self.call(shard, "configure", sampling)
            except AgentsUnavailableError as exc:
                logger.warning("sampling not applied yet, the agent will be told: %s", exc)

    async def call(self, shard: int, method: str, *args: object) -> Any:
        """Call one agent; raise AgentsUnavailableError when it is dead or silent."""
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                handle = self._handles.get(shard)
                if handle is None:
                    handle = await asyncio.to_thread(self.lookup, shard)
                return await getattr(handle, method).remote(*args)
        except (RayError, RayServeException, ValueError, TimeoutError) as exc:
            self._handles.pop(shard, None)
            raise AgentsUnavailableError(
                f"{agent_name(shard)} did not answer `{method}`: {exc}"
            ) from exc

    async def call_each(self, method: str, *args: object) -> list[Any]:
        """Call every shard at once; AgentsUnavailableError stands for one that does not answer."""
        calls = (self.call(shard, method, *args) for shard in range(self.shards))
        answers = await asyncio.gather(*calls, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, AgentsUnavailableError):
                raise answer
        return list(answers)

    async def call_all(self, method: str, *args: object) -> list[Any]:
        """Call every shard at once; raise when one does not answer."""
        calls = (self.call(shard, method, *args) for shard in range(self.shards))
        return list(await asyncio.gather(*calls))
