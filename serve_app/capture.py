"""The capture side of one replica, wired: a journal, its recorder, and what empties them.

Events flow recorder -> journal -> sender -> agent. Beside it, whichever replica finds a dead
one's journal on its node hands that over too.
"""

import asyncio
import logging
import random
import time
from pathlib import Path

from monitoring.capture.agent_transport import AgentTransport
from monitoring.capture.backlog import SliceLimits
from monitoring.capture.folder import StreamDescription
from monitoring.capture.journal import Journal
from monitoring.capture.masking import MaskingPolicy
from monitoring.capture.orphans import drain_orphan, find_orphans
from monitoring.capture.recorder import Recorder
from monitoring.capture.sender import DEAD_LETTER_FOLDER, DeadLetters, Sender, SenderSettings
from monitoring.events import CaptureCounts, Feature, Stream
from serve_app.agents import Agents, shard_of
from serve_app.settings import Settings
from serve_app.wiring import journal_limits

logger = logging.getLogger(__name__)

ORPHAN_INTERVAL_S = 5.0
ORPHAN_TIMEOUT_S = 60.0


class CapturePipeline:
    """Capture of one stream; ``recorder`` is what the request path calls."""

    def __init__(
        self,
        settings: Settings,
        stream: Stream,
        policy: MaskingPolicy,
        features: tuple[Feature, ...],
        *,
        producer: str,
        node: str,
        agents: Agents,
    ) -> None:
        """``features`` are the model's own; ``stream`` has them as they are after masking."""
        self._agents = agents
        self._rng = random.Random()  # noqa: S311  jitter of retries
        self._root = Path(settings.state_dir) / "journal"
        description = StreamDescription(
            producer=producer,
            stream=stream,
            policy_id=policy.policy_id,
            node=node,
            env=settings.env,
        )
        self._journal = Journal(
            self._root,
            description,
            limits=journal_limits(settings.capture.journal),
            monotonic=time.monotonic,
        )
        self.recorder = Recorder(self._journal, policy, features)
        self._settings = SenderSettings(
            flush_interval_s=settings.capture.flush_interval_s,
            limits=SliceLimits(max_rows=settings.capture.batch_rows),
        )
        self._sender = Sender(
            self._journal,
            self._transport(producer),
            DeadLetters(self._root / DEAD_LETTER_FOLDER, self._settings.dead_letter_bytes),
            settings=self._settings,
            rng=self._rng,
        )
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self._sender.run()),
            asyncio.create_task(self._drain_orphans_for_ever()),
        ]

    async def stop(self, timeout_s: float) -> None:
        """Hand over what is left. What the agent does not take in time stays in the journal."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if not await self._sender.flush(timeout_s):
            logger.warning("not all events were handed over; the next replica takes the rest")
        self._journal.close()

    def counts(self) -> CaptureCounts:
        return self.recorder.counts()

    def warnings(self) -> list[str]:
        return [*self._journal.warnings(), *self._sender.warnings()]

    def _transport(self, producer: str) -> AgentTransport:
        shard = shard_of(producer, self._agents.shards)
        return AgentTransport(lambda: self._agents.lookup(shard))

    async def _drain_orphans_for_ever(self) -> None:
        while True:
            try:
                for path in await asyncio.to_thread(find_orphans, self._root):
                    result = await drain_orphan(
                        path,
                        self._transport(path.name),
                        settings=self._settings,
                        rng=self._rng,
                        timeout_s=ORPHAN_TIMEOUT_S,
                    )
                    if result is not None:
                        logger.info("handed over the journal of a dead replica: %s", result)
            except Exception:  # whatever is wrong with one journal, the others come next time
                logger.exception("a dead replica's journal could not be handed over")
            await asyncio.sleep(ORPHAN_INTERVAL_S)
