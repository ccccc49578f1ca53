"""Hand the journal's events to the agent: in order, one delivery in flight, again until it acks.

Invariants:

- A delivery is sent again byte for byte until it is acknowledged or refused for good; the next one
  is read only then. Memory is bounded by one delivery, however long the agent is away.
- Nothing is released before the agent says that it is durable.
- What the agent refuses for good goes to ``<journal_root>/dead-letter`` with its reason, is counted
  as ``rejected``, and its numbers are part of the next delivery, so that the ledger closes.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

from monitoring.capture.backlog import Backlog, Slice, SliceLimits, read_slice
from monitoring.capture.batches import Batch, to_batch
from monitoring.capture.dead_letters import DeadLetters
from monitoring.capture.folder import StreamDescription
from monitoring.capture.rowbytes import RowEvent
from monitoring.errors import DeliveryRejected
from monitoring.events import Ack, DeliveryHeader, PredictionEvent, Stream, encode_delivery

_ONE_EVENT: Final = SliceLimits(max_rows=1, max_bytes=1)
_Outcome = Literal["sent", "failed", "empty"]


class Transport(Protocol):
    """The way to the agent."""

    async def ingest(self, payload: bytes) -> Ack:
        """Deliver; raises ``DeliveryRejected`` for good, anything else to be tried again."""
        ...


class Outbox(Protocol):
    """A journal as the sender sees it: a live one or an orphan."""

    @property
    def description(self) -> StreamDescription: ...

    def backlog(self) -> Backlog | None: ...

    def release(self, delivered: Slice, through: int) -> None: ...

    def give_up(self, refused: Slice) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SenderSettings:
    """When and how much is sent.

    A refusal is repeated for over a minute before it counts: while an application is redeployed, an
    agent that does not know the new masking policy yet may still answer.
    """

    flush_interval_s: float = 1.0
    limits: SliceLimits = field(default_factory=SliceLimits)
    first_backoff_s: float = 0.1
    max_backoff_s: float = 5.0
    refusals_before_giving_up: int = 20
    dead_letter_bytes: int = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class _Delivery:
    content: Slice
    payload: bytes
    nulled_values: int


class _Untransposable(Exception):
    """These events cannot be made into a batch: a defect, or data of another version."""

    def __init__(self, content: Slice) -> None:
        super().__init__(f"events {content.first} to {content.last}")
        self.content = content


@dataclass(slots=True)
class SenderCounts:
    """Deliveries since the process began: not acknowledged, refused among them, given up."""

    failed: int = 0
    refused: int = 0
    dead_letters: int = 0


class Sender:
    """Sends one producer's journal. ``sleep`` and ``rng`` are time and chance for the tests."""

    def __init__(
        self,
        outbox: Outbox,
        transport: Transport,
        dead_letters: DeadLetters,
        *,
        settings: SenderSettings,
        rng: random.Random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        transpose: Callable[[Stream, Sequence[PredictionEvent | RowEvent]], Batch] = to_batch,
        log: logging.Logger | None = None,
    ) -> None:
        self.counts = SenderCounts()
        self.nulled_values = 0
        self._acknowledged = 0  # acknowledged to us
        self._outbox = outbox
        self._transport = transport
        self._dead_letters = dead_letters
        self._settings = settings
        self._careful_through = 0
        self._rng = rng
        self._sleep = sleep
        self._transpose = transpose
        self._log = log or logging.getLogger(__name__)
        self._one_at_a_time = asyncio.Lock()
        self._in_flight: _Delivery | None = None
        self._failures = 0
        self._refusals = 0
        self._trouble: str | None = None

    async def run(self) -> None:
        """Send what the journal holds, for ever; ends only by being cancelled.

        Without its sender a journal would fill up, without a word until it drops.
        """
        while True:
            await self._sleep(self._settings.flush_interval_s)
            try:
                backlog = self._outbox.backlog()
                if backlog is not None:
                    await self._drain(through=backlog.last)
                elif self._in_flight is None:  # nothing waits: no trouble goes on
                    self._settled()
            except Exception as error:  # noqa: BLE001  a defect: ours or the outbox's
                self._failed(error)

    async def flush(self, timeout_s: float) -> bool:
        """Send everything recorded so far and wait for its acknowledgement; False without it."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._drain()
        except TimeoutError:
            return False
        return True

    def warnings(self) -> list[str]:
        """What an operator should know now, one sentence each."""
        producer = self._outbox.description.producer
        found = []
        if self._trouble:
            found.append(
                f"producer {producer}: {self._failures} deliveries in a row failed"
                f" ({self._trouble}); events wait in the journal"
            )
        if self.counts.dead_letters:
            found.append(
                f"producer {producer}: {self.counts.dead_letters} deliveries were refused for good"
                f" and lie in {self._dead_letters.folder}"
            )
        if self.nulled_values:
            found.append(
                f"producer {producer}: {self.nulled_values} values did not fit the type of their"
                " column and are stored as null"
            )
        return found

    async def _drain(self, *, through: int | None = None) -> None:
        """Deliver up to number ``through``, or until nothing waits; back off after failures.

        Without that end a busy replica would never pause: each delivery would carry the few events
        that came during the last one, and cost as much as a full one.
        """
        while True:
            async with self._one_at_a_time:
                outcome = await self._step()
            if outcome == "empty" or (through is not None and self._acknowledged >= through):
                return
            if outcome == "failed":
                await self._sleep(self._backoff_s())

    async def _next_delivery(self) -> _Delivery | None:
        """The delivery to send now, None when nothing waits; may raise OSError and defects."""
        if self._in_flight is None:
            backlog = self._outbox.backlog()
            if backlog is not None:
                self._in_flight = await asyncio.to_thread(self._build, backlog)
        return self._in_flight

    def _build(self, backlog: Backlog) -> _Delivery:
        """Read, transpose and serialise; on a thread of its own."""
        careful = backlog.first <= self._careful_through
        content = read_slice(backlog, _ONE_EVENT if careful else self._settings.limits)
        described = self._outbox.description
        try:
            batch = self._transpose(described.stream, content.events)
        except Exception as error:
            raise _Untransposable(content) from error
        header = DeliveryHeader(
            producer=described.producer,
            first=content.first,
            last=content.last,
            events=len(content.events),
            dropped=content.dropped,
            stream=described.stream,
            policy_id=described.policy_id,
            node=described.node,
            env=described.env,
            acknowledged=content.first - 1,
        )
        payload = encode_delivery(header, batch.rows)
        return _Delivery(content=content, payload=payload, nulled_values=batch.nulled_values)

    async def _step(self) -> _Outcome:
        """Send one delivery. Whatever goes wrong is kept for ``warnings`` and tried again."""
        try:
            return await self._attempt()
        except Exception as error:  # noqa: BLE001  a failure of the transport's, or a defect
            self._failed(error)
            return "failed"

    async def _attempt(self) -> _Outcome:
        try:
            delivery = await self._next_delivery()
            if delivery is None:
                return "empty"
            ack = await self._transport.ingest(delivery.payload)
            self._accept(delivery, ack)
        except _Untransposable as error:
            self._isolate(error)
        except DeliveryRejected as error:
            await self._refused(error)
        else:
            return "sent"
        return "failed"

    def _accept(self, delivery: _Delivery, ack: Ack) -> None:
        content, producer = delivery.content, self._outbox.description.producer
        if ack.producer != producer or ack.through < content.first:
            raise ValueError(
                f"{producer} {content.first} to {content.last} was answered by an acknowledgement"
                f" of {ack.producer} through {ack.through}"
            )
        self._outbox.release(content, ack.through)
        self._acknowledged = ack.through
        self.nulled_values += delivery.nulled_values
        self._settled()

    async def _refused(self, error: DeliveryRejected) -> None:
        self._failed(error)
        self.counts.refused += 1
        self._refusals += 1
        delivery = self._in_flight
        if delivery is None or self._refusals < self._settings.refusals_before_giving_up:
            return
        content, reason = delivery.content, str(error)
        producer = self._outbox.description.producer
        if content.events:
            try:
                keep = self._dead_letters.keep
                path = await asyncio.to_thread(keep, producer, content, delivery.payload, reason)
            except OSError as problem:
                path = None
                self._log.error("dead letters of %s cannot be kept: %s", producer, problem)
            self._log.error(
                "producer %s: %d events refused for good (%s); kept in %s",
                producer,
                len(content.events),
                reason,
                path,
            )
        self._outbox.give_up(content)
        self.counts.dead_letters += 1
        self._in_flight = None
        self._refusals = 0

    def _isolate(self, error: _Untransposable) -> None:
        """Find the event that makes a batch impossible, one by one, and give up that event only."""
        self._failed(error.__cause__ or error)
        if len(error.content.events) > 1:
            self._careful_through = error.content.last
            return
        self._outbox.give_up(error.content)

    def _settled(self) -> None:
        self._in_flight = None
        self._failures = self._refusals = 0
        self._trouble = None

    def _failed(self, error: BaseException) -> None:
        self._failures += 1
        self.counts.failed += 1
        self._trouble = f"{type(error).__name__}: {error}"
        if self._failures == 1:
            producer = self._outbox.description.producer
            self._log.warning("delivery of %s failed, trying again: %s", producer, self._trouble)

    def _backoff_s(self) -> float:
        """Exponential with full jitter over its upper half."""
        settings = self._settings
        doublings = min(self._failures - 1, 30)
        ceiling_s = min(settings.first_backoff_s * 2.0**doublings, settings.max_backoff_s)
        return ceiling_s * self._rng.uniform(0.5, 1.0)
