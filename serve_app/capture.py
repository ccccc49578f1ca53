"""Capture in one replica, wired to Ray: a stream's own capture, and the drain of dead replicas'."""

import logging
import random
from collections.abc import Callable
from pathlib import Path

from monitoring.capture.agent_transport import AgentTransport
from monitoring.capture.backlog import SliceLimits
from monitoring.capture.masking import MaskingPolicy
from monitoring.capture.orphans import Drained, drain_orphans
from monitoring.capture.sender import SenderSettings, Transport
from monitoring.capture.stream_capture import StreamCapture
from monitoring.events import Stream
from serve_app.agents import Agents, AgentsUnavailableError, shard_of
from serve_app.settings import Settings
from serve_app.wiring import journal_limits

logger = logging.getLogger(__name__)

ORPHAN_INTERVAL_S = 5.0
# For one journal; a delivery that is refused for good is given up within it (20 attempts, 71 s).
ORPHAN_TIMEOUT_S = 120.0


def journal_root(settings: Settings) -> Path:
    return Path(settings.state_dir) / "journal"


def sender_settings(settings: Settings) -> SenderSettings:
    return SenderSettings(
        flush_interval_s=settings.capture.flush_interval_s,
        limits=SliceLimits(max_rows=settings.capture.batch_rows),
    )


def capture_stream(
    settings: Settings,
    stream: Stream,
    policy: MaskingPolicy,
    agents: Agents,
    *,
    producer: str,
    node: str,
) -> StreamCapture:
    """Capture of one variant's stream, sent to the shard that its producer belongs to."""
    return StreamCapture(
        journal_root(settings),
        producer,
        stream,
        policy,
        transport_for(producer, agents),
        node=node,
        env=settings.env,
        limits=journal_limits(settings.capture.journal),
        settings=sender_settings(settings),
        rng=random.Random(),  # noqa: S311  jitter of retries
    )


def transport_for(producer: str, agents: Agents) -> AgentTransport:
    shard = shard_of(producer, agents.shards)
    return AgentTransport(lambda: agents.lookup(shard))


async def drain_orphans_here(settings: Settings, agents: Agents) -> None:
    """Hand over the journals of replicas that died on this node, whichever replica finds them."""
    drained = await drain_journals(
        settings, lambda producer: transport_for(producer, agents), timeout_s=ORPHAN_TIMEOUT_S
    )
    done = [each.producer for each in drained if each.finished]
    if done:
        logger.info("handed over the journals of dead replicas: %s", done)
        try:
            await agents.call_all("handed_over", done)
        except AgentsUnavailableError as exc:
            logger.info("a later look at this node will tell the agents: %s", exc)


async def drain_journals(
    settings: Settings, transport_for: Callable[[str], Transport], *, timeout_s: float
) -> list[Drained]:
    """Hand over the journals of dead replicas on the node this runs on."""
    return await drain_orphans(
        journal_root(settings),
        transport_for,
        settings=sender_settings(settings),
        rng=random.Random(),  # noqa: S311  jitter of retries
        timeout_s=timeout_s,
    )
