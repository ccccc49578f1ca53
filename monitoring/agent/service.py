"""The agent of one shard: one thread owns the spool, another the uploads; callers only wait.

Bounds: deliveries that wait hold at most ``spool.max_waiting_bytes`` (further callers wait
outside), the spool at most ``spool.max_bytes`` plus one group, the uploader one file. Storage away
fills the spool; a full spool leaves deliveries with the replicas' journals.
"""

import asyncio
import logging
import queue
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from monitoring.agent.counters import Counters
from monitoring.agent.epochs import new_epoch
from monitoring.agent.fleet import AgentCounts, Fleet, merge
from monitoring.agent.health import AgentHealth, Observed, SinkHealth, judge, spool_health
from monitoring.agent.intake import Intake
from monitoring.agent.ledger import LiveLedger, live_ledger
from monitoring.agent.metrics import exposition
from monitoring.agent.nodes import Nodes
from monitoring.agent.parquet import lost
from monitoring.agent.settings import AgentSettings, SamplingSettings
from monitoring.agent.sink import FsspecSink, Sink
from monitoring.agent.spool import Spool
from monitoring.agent.uploader import Follower, Uploader
from monitoring.disk import disk_id
from monitoring.errors import MonitoringError, SinkUnavailable
from monitoring.events import Ack, ReplicaReport

log = logging.getLogger(__name__)

TICK_S: Final = 0.5
COUNTERS_S: Final = 5.0
GROUP_DELIVERIES: Final = 64


class Pending(msgspec.Struct, frozen=True):
    """What is still on its way to storage."""

    events: int
    segments: int
    bytes: int
    error: str | None


@dataclass(frozen=True, slots=True)
class _Waiting:
    payload: bytes
    answer: "Future[Ack]"


class MonitoringService:
    """Start it in the process that is to own the spool; ``stop`` ends its threads.

    Construction needs a writable ``state_dir`` and nothing else: storage may be away. ``follow``
    makes what counts the spool's rows live.
    """

    def __init__(
        self,
        settings: AgentSettings,
        *,
        node: str = "",
        clock: Callable[[], float] = time.time,
        chance: random.Random | None = None,
        sink: Sink | None = None,
        follow: Callable[[Spool], Follower] | None = None,
    ) -> None:
        chance = chance or random.SystemRandom()
        self._settings = settings
        self._clock = clock
        folder = Path(settings.state_dir) / "spool" / settings.shard
        epoch = new_epoch(clock(), chance)
        self.spool = Spool(folder, epoch, settings.spool, clock(), settings.shards)
        follower = follow(self.spool) if follow else None
        self.intake = Intake(settings, self.spool, clock, keep_aside=follower is not None)
        self.uploader = Uploader(
            shard=settings.shard,
            spool=self.spool,
            sink=sink or FsspecSink(settings.sink),
            retry=settings.retry,
            clock=clock,
            chance=chance,
            follower=follower,
        )
        self._fleet = Fleet()
        state_dir = Path(settings.state_dir)
        self.nodes = Nodes(
            node, self._fleet, clock, disk=disk_id(state_dir), journals=state_dir / "journal"
        )
        self._counters = Counters(folder, epoch)
        self._troubles: dict[str, str] = {}  # by what was tried: why it failed the last time
        self._guarded("loading counters", self._exchange)
        self._waiting: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._waiting_bytes = 0
        self._room = asyncio.Condition()
        self._stop = threading.Event()
        self._hurry = threading.Event()
        self._progress = threading.Condition()
        self._threads = [
            threading.Thread(target=self._commit_loop, name="treeline-spool", daemon=True),
            threading.Thread(target=self._upload_loop, name="treeline-upload", daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        log.info("agent shard %s, epoch %s: %r", settings.shard, self.spool.epoch, settings.sink)

    async def ingest(self, payload: bytes) -> Ack:
        """Make a delivery durable and say how far its producer's numbers are.

        Raises ``DeliveryRejected`` for good and ``SinkUnavailable`` to be tried again.
        """
        limit = self._settings.spool.max_waiting_bytes
        async with self._room:
            await self._room.wait_for(
                lambda: not self._waiting_bytes or self._waiting_bytes + len(payload) <= limit
            )
            self._waiting_bytes += len(payload)
        try:
            return await self._hand_over(payload)
        finally:
            self._waiting_bytes -= len(payload)
            async with self._room:
                self._room.notify_all()

    async def _hand_over(self, payload: bytes) -> Ack:
        if self._stop.is_set():
            raise SinkUnavailable("the agent is stopping")
        waiting = _Waiting(payload, Future())
        self._waiting.put(waiting)
        return await asyncio.wrap_future(waiting.answer)

    async def report(self, payload: bytes) -> None:
        """Note a replica's counters: a ``ReplicaReport`` as MessagePack."""
        self._fleet.note(msgspec.msgpack.decode(payload, type=ReplicaReport), self._clock())

    def configure(self, sampling: SamplingSettings) -> None:
        """Change sampling from the next delivery on."""
        self.intake.sampling = sampling

    async def counts(self) -> AgentCounts:
        """Return this shard's counters, ready to be added to other shards'."""
        return await asyncio.to_thread(self._counts)

    def _counts(self) -> AgentCounts:
        """Store the counters before they are shown: no later agent may show less."""
        self._guarded("storing counters", self._exchange)
        state = self.spool.state()
        settled, _, retired = self.spool.accounts()
        now_s = self._clock()
        counts = merge([self._counters.others, self._life()])
        counts.fleet = self._fleet.totals(now_s)
        counts.lost_events = lost((*settled.values(), retired))
        oldest = state.oldest_opened_at_s
        counts.sink_lag_s = 0.0 if oldest is None else max(0.0, now_s - oldest)
        counts.spool_bytes = state.bytes
        counts.spool_segments = state.open_segments + state.sealed_segments
        counts.spool_max_bytes = self._settings.spool.max_bytes
        counts.sinks_failing = int(self.uploader.last_error is not None)
        counts.sink_last_success_s = self.uploader.last_success_s or 0.0
        counts.waiting_nodes = len(self.nodes.health())
        return counts

    def _exchange(self) -> None:
        self._counters.exchange(self._life, self._fleet)

    def _life(self) -> AgentCounts:
        """Count what this process has done."""
        taken, stored = self.intake.counts, self.uploader.counts
        return AgentCounts(
            deliveries=taken.deliveries,
            received_events=taken.events,
            received_rows=taken.rows,
            repeated_events=taken.repeated,
            sampled_out_events=taken.sampled_out,
            rejected_deliveries=taken.rejected,
            sink_files=stored.files,
            sink_rows=stored.rows,
            sink_bytes=stored.bytes,
            sink_failures=stored.failures,
            dead_letters=stored.dead_letters,
            unfinished_segments=stored.unfinished_segments,
        )

    async def metrics(self) -> bytes:
        return exposition(await self.counts())

    async def ledger(self) -> LiveLedger:
        """Return the live account of every producer."""
        return await asyncio.to_thread(self._ledger)

    def _ledger(self) -> LiveLedger:
        return live_ledger(self._settings.shard, *self.spool.accounts())

    def health(self) -> AgentHealth:
        """Say whether both threads live, what stands in the way of storage, what replicas say."""
        now_s, uploader = self._clock(), self.uploader
        spool = spool_health(self.spool.state(), self._settings.spool.max_bytes, now_s)
        return judge(
            Observed(
                shard=self._settings.shard,
                now_s=now_s,
                troubles=tuple(f"{what} fails: {why}" for what, why in [*self._troubles.items()]),
                dead_threads=tuple(t.name for t in self._threads if not t.is_alive()),
                sink=SinkHealth(
                    last_success_s=uploader.last_success_s,
                    failing_since_s=uploader.failing_since_s,
                    last_error=uploader.last_error,
                ),
                spool=spool,
                dead_letters=self.spool.dead_letters.names(),
                reports=tuple(self._fleet.reports()),
                last_drops=self._fleet.last_drops(),
                nodes=tuple(self.nodes.health()),
            )
        )

    async def flush(self, timeout_s: float = 10.0) -> Pending:
        """Seal and upload everything taken in so far; return what is left after the time-out.

        Counters and the replicas' last words are stored first: the last replica calls this, and
        then the agent is killed.
        """
        return await asyncio.to_thread(self._flush, timeout_s)

    def _flush(self, timeout_s: float) -> Pending:
        self._guarded("storing counters", self._exchange)
        self.spool.seal_everything(self._clock())
        self._hurry.set()
        with self._progress:
            self._progress.wait_for(lambda: self.spool.next_sealed() is None, timeout_s)
        state = self.spool.state()
        _, waiting, _ = self.spool.accounts()
        return Pending(
            events=sum(tally.written for tally in waiting.values()),
            segments=state.open_segments + state.sealed_segments,
            bytes=state.bytes,
            error=self.uploader.last_error,
        )

    async def stop(self) -> None:
        """End the threads and give the spool back; what is in it waits for the next agent."""
        self._stop.set()
        self._waiting.put(None)
        self._hurry.set()
        for thread in self._threads:
            await asyncio.to_thread(thread.join)
        self._guarded("storing counters", self._exchange)
        self.spool.close()

    def _commit_loop(self) -> None:
        """Commit what waits in groups, and look after the spool between."""
        next_tick_s = next_sync_s = next_counters_s = time.monotonic()
        sync_every_s = self._settings.spool.fsync_interval_s
        while True:
            group = self._next_group(min(next_tick_s, next_sync_s) - time.monotonic())
            self._commit([w for w in group if w is not None])
            if None in group:
                break
            now_s = time.monotonic()
            if now_s >= next_sync_s:
                next_sync_s = now_s + sync_every_s
                if self._settings.spool.fsync == "interval":
                    self._guarded("fsync", self.spool.sync)
            if now_s >= next_tick_s:
                next_tick_s = now_s + TICK_S
                self._guarded("sealing", self._tick)
            if now_s >= next_counters_s:
                next_counters_s = now_s + COUNTERS_S
                self._guarded("storing counters", self._exchange)
        self._refuse_rest()

    def _next_group(self, wait_s: float) -> list[_Waiting | None]:
        group: list[_Waiting | None] = []
        try:
            group.append(self._waiting.get(timeout=max(wait_s, 0.001)))
            while group[-1] is not None and len(group) < GROUP_DELIVERIES:
                group.append(self._waiting.get_nowait())
        except queue.Empty:
            return group
        return group

    def _commit(self, group: list[_Waiting]) -> None:
        """Answer every caller that still waits; one that went away is committed all the same."""
        if not group:
            return
        listening = [w.answer.set_running_or_notify_cancel() for w in group]
        answers: Sequence[Ack | BaseException]
        try:
            answers = self.intake.commit([w.payload for w in group])
        except Exception as error:  # the thread must live; callers learn what happened
            log.exception("a group commit failed")
            answers = [error] * len(group)
        for waiting, here, answer in zip(group, listening, answers, strict=True):
            if not here:
                continue
            if isinstance(answer, Ack):
                waiting.answer.set_result(answer)
            else:
                waiting.answer.set_exception(answer)

    def _tick(self) -> None:
        now_s = self._clock()
        self.spool.adopt(now_s)
        self.spool.seal_due(now_s)

    def _guarded(self, what: str, action: Callable[[], object]) -> None:
        """Do what is done again soon; the thread lives on, and health says what went wrong last."""
        try:
            action()
        except (OSError, MonitoringError) as error:
            if what not in self._troubles:
                log.error("%s failed and is tried again: %s", what, error)
            self._troubles[what] = str(error)
        except Exception as error:  # a defect; without its thread the agent would only look alive
            if what not in self._troubles:
                log.exception("%s failed and is tried again", what)
            self._troubles[what] = repr(error)
        else:
            self._troubles.pop(what, None)

    def _refuse_rest(self) -> None:
        while not self._waiting.empty():
            waiting = self._waiting.get_nowait()
            if waiting is not None and waiting.answer.set_running_or_notify_cancel():
                waiting.answer.set_exception(SinkUnavailable("the agent is stopping"))

    def _upload_loop(self) -> None:
        while not self._stop.is_set():
            wait_s = TICK_S
            try:
                busy = self.uploader.step()
            except SinkUnavailable:
                busy, wait_s = False, self.uploader.wait_s()
            except Exception:  # never give up: the segment stays, and is tried again
                log.exception("storing a segment failed")
                busy, wait_s = False, self._settings.retry.last_s
            with self._progress:
                self._progress.notify_all()
            if not busy:
                self._hurry.wait(wait_s)
                self._hurry.clear()
