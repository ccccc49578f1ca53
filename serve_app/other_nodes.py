"""What dead replicas and agents have left on nodes where no replica of the application lives.

The agents say which node should be looked at (``monitoring.agent.nodes``), any replica starts the
look: a Ray task that is pinned to that node and needs no CPU of it.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from monitoring.agent.nodes import Look, Poll
from monitoring.agent.settings import SinkSettings
from monitoring.agent.sink import FsspecSink
from monitoring.agent.stranded import hand_over, stranded
from monitoring.capture.agent_transport import AgentTransport
from monitoring.capture.folder import STREAM_FILE
from monitoring.capture.sender import Transport
from serve_app.agents import Agents, AgentsUnavailableError, shard_of
from serve_app.capture import drain_journals, journal_root
from serve_app.settings import Settings
from serve_app.wiring import storage_of

logger = logging.getLogger(__name__)

POLL_INTERVAL_S = 5.0
PART_TIMEOUT_S = 20.0
LOOK_TIMEOUT_S = 80.0  # within the agents' lease


async def look_at_nodes(settings: Settings, agents: Agents) -> None:
    """Ask the agents which nodes to look at, and look there; whatever fails is asked again."""
    try:
        await _look_where_asked(settings, agents)
    except AgentsUnavailableError as exc:
        logger.debug("other nodes are looked at later: %s", exc)


async def _look_where_asked(settings: Settings, agents: Agents) -> None:
    alive = await asyncio.to_thread(living_nodes)
    answers = await agents.call_all("poll_nodes", alive)
    polls = [msgspec.msgpack.decode(answer, type=Poll) for answer in answers]
    for node in sorted({poll.look_at for poll in polls if poll.look_at is not None}):
        living = [shard for shard, poll in enumerate(polls) if poll.here == node]
        look = await _look_at(node, living, settings, agents)
        logger.info("looked at node %s: %s", node, look)
        await agents.call_all("looked", msgspec.msgpack.encode(look))


def living_nodes() -> list[str]:
    return [node["NodeID"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


async def _look_at(node: str, living: list[int], settings: Settings, agents: Agents) -> Look:
    """Run the look on its node; a node that dies meanwhile is a problem like any other."""
    try:
        handles = [await asyncio.to_thread(agents.lookup, n) for n in range(agents.shards)]
        pinned = NodeAffinitySchedulingStrategy(node, soft=False)
        task = _look_here.options(scheduling_strategy=pinned)
        async with asyncio.timeout(LOOK_TIMEOUT_S):
            answer = await task.remote(settings.model_dump(), node, living, handles)
        return msgspec.msgpack.decode(answer, type=Look)
    except (RayError, ValueError, TimeoutError) as exc:
        problem = f"not looked at: {type(exc).__name__}: {exc}"
        return Look(node=node, left=None, problems=(problem,))


@ray.remote(num_cpus=0, max_retries=0)
def _look_here(
    arguments: dict[str, Any], node: str, living: list[int], handles: list[Any]
) -> bytes:
    settings = Settings.model_validate(arguments)
    transports = {shard: AgentTransport(lambda h=handle: h) for shard, handle in enumerate(handles)}  # type: ignore[misc]
    return msgspec.msgpack.encode(asyncio.run(look(settings, node, living, transports)))


async def look(
    settings: Settings,
    node: str,
    living: list[int],
    transports: Mapping[int, Transport],
    *,
    part_timeout_s: float = PART_TIMEOUT_S,
) -> Look:
    """Hand over what lies on this node's disk: journals first, then spools no agent here owns.

    ``living`` are the shards whose agents live on this node; ``part_timeout_s`` is for one journal
    or one shard's spool.
    """

    def transport_for(producer: str) -> Transport:
        return transports[shard_of(producer, len(transports))]

    drained = await drain_journals(settings, transport_for, timeout_s=part_timeout_s)
    problems = [
        f"journal of {d.producer}: {d.last - d.acknowledged} events are not handed over in time"
        for d in drained
        if not d.finished
    ]
    segments, spool_problems = await _hand_spools_over(
        settings, living, transport_for, part_timeout_s
    )
    return Look(
        node=node,
        handed_over=tuple(d.producer for d in drained if d.finished),
        left=tuple(journals(journal_root(settings))),
        segments=segments,
        problems=(*problems, *spool_problems),
    )


def journals(root: Path) -> list[str]:
    """List the producers whose journals lie under a root, in use or not."""
    if not root.is_dir():
        return []
    return sorted(path.parent.name for path in root.glob(f"[!.]*/{STREAM_FILE}"))


async def _hand_spools_over(
    settings: Settings,
    living: list[int],
    transport_for: Callable[[str], Transport],
    part_timeout_s: float,
) -> tuple[int, list[str]]:
    segments, problems = 0, []
    shards = settings.agent.shards
    storage = FsspecSink(SinkSettings(**storage_of(settings.storage, settings.sink)))
    for folder in stranded(Path(settings.state_dir) / "spool", shards, living):
        try:
            done = await hand_over(
                folder,
                transport_for,
                storage,
                shards=shards,
                clock=time.time,
                chance=random.SystemRandom(),
                timeout_s=part_timeout_s,
            )
        except OSError as error:
            problems.append(f"spool of shard {folder.name}: {error}")
            continue
        segments += done.segments
        if done.problem:
            problems.append(f"spool of shard {folder.name}: {done.left} left, {done.problem}")
    return segments, problems
