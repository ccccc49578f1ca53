"""All of capture for one stream, wired: recorder over journal, journal over sender."""

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from monitoring.capture.batches import to_batch
from monitoring.capture.dead_letters import DEAD_LETTER_FOLDER, DeadLetters
from monitoring.capture.folder import StreamDescription
from monitoring.capture.journal import Journal, JournalLimits
from monitoring.capture.masking import MaskingPolicy
from monitoring.capture.recorder import Recorder
from monitoring.capture.sender import Sender, SenderSettings, Transport
from monitoring.events import CaptureCounts, Stream


class StreamCapture:
    """One producer. ``stream`` is the model's own; what is logged of it follows from the policy.

    ``recorder.record`` works from the start. ``start`` begins to send and ``close`` sends the rest;
    both need the event loop that records. Raises ``MaskingPolicyInvalid`` when the policy does not
    fit the stream's types and ValueError when the producer id was used before.
    """

    def __init__(
        self,
        root: Path,
        producer: str,
        stream: Stream,
        policy: MaskingPolicy,
        transport: Transport,
        *,
        node: str,
        env: str,
        limits: JournalLimits,
        settings: SenderSettings,
        rng: random.Random,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.producer = producer
        policy.row_masks(stream.features)  # unsound rules must show before there is a folder
        logged = msgspec.structs.replace(stream, features=policy.logged_features(stream.features))
        description = StreamDescription(
            producer=producer, stream=logged, policy_id=policy.policy_id, node=node, env=env
        )
        # pyarrow imports pandas at its first array, a second or more: not while requests wait.
        to_batch(logged, ())
        dead_letters = DeadLetters(root / DEAD_LETTER_FOLDER, settings.dead_letter_bytes)
        self._journal = Journal(root, description, limits=limits, monotonic=monotonic)
        self.recorder = Recorder(self._journal, policy, stream.features)
        self._sender = Sender(self._journal, transport, dead_letters, settings=settings, rng=rng)
        self._sending: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to send; the second time does nothing."""
        if self._sending is None:
            self._sending = asyncio.create_task(self._sender.run())

    async def flush(self, timeout_s: float) -> bool:
        """Send what is recorded; True when all of it is acknowledged."""
        return await self._sender.flush(timeout_s)

    async def close(self, timeout_s: float) -> bool:
        """Send the rest within ``timeout_s``; what is left then waits for the orphan drain."""
        try:
            return await self._sender.flush(timeout_s)
        finally:
            if self._sending is not None:
                self._sending.cancel()
                with suppress(asyncio.CancelledError):
                    await self._sending
            self._journal.close()

    def counts(self) -> CaptureCounts:
        sent = self._sender.counts
        return msgspec.structs.replace(
            self.recorder.counts(),
            failed_deliveries=sent.failed,
            refused_deliveries=sent.refused,
            dead_letters=sent.dead_letters,
        )

    def warnings(self) -> list[str]:
        """What an operator should know now, one sentence each."""
        return [*self._journal.warnings(), *self._sender.warnings()]
