"""The spool of one shard: durable deliveries on their way to storage.

``<state_dir>/spool/<shard>/<epoch>/<epoch>-<number>.spool`` holds the segments
(``spool_frames``), one open per stream and hour; ``<shard>/received.msgpack`` the account of what
left (``received``).

Invariants:

- An epoch is one agent's life; what dead agents left is adopted (``others``).
- Everything that changes a shard happens under ``<shard>/lock``. While two agents live side by
  side (a redeploy), each first reads what the other has written since, so that both refuse the
  same numbers.
- A number enters ``received`` only after its frame is in the file; a segment is deleted only after
  the checkpoint that accounts for it is on disk.
"""

import fcntl
import os
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pyarrow as pa

from monitoring.agent.aside import AsideLog
from monitoring.agent.dead_letters import DeadLetters
from monitoring.agent.durable import RESERVE_NAME, with_reserve
from monitoring.agent.elsewhere import Elsewhere
from monitoring.agent.epochs import Epochs
from monitoring.agent.ledger import Coverage, Tally
from monitoring.agent.others import Others
from monitoring.agent.received import Received
from monitoring.agent.segment import (
    SUFFIX,
    OpenSegment,
    SealedSegment,
    create,
    seal_or_close,
)
from monitoring.agent.settings import SpoolSettings
from monitoring.agent.spool_frames import OpenHead, RowsHead
from monitoring.events import Stream


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolState:
    """What lies in the spool. Bytes are on disk, before compression as Parquet."""

    open_segments: int
    sealed_segments: int
    bytes: int
    oldest_opened_at_s: float | None
    foreign_epochs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """The segments of a moment, oldest first, with their whole frames' end; and a mark.

    Whoever has counted all of these may release what was set aside before the mark.
    """

    segments: tuple[tuple[Path, int], ...]
    aside_mark: int


class Spool:
    """All methods may be called from any thread; each holds the shard's lock while it works."""

    def __init__(
        self, folder: Path, epoch: str, settings: SpoolSettings, now_s: float, shards: int = 1
    ) -> None:
        """Claim an epoch and adopt what dead agents left. Raises ``OSError`` on a bad disk.

        A full disk is no reason not to start: only uploads can free it.
        """
        self.epoch = epoch
        self._folder = folder
        self.dead_letters = DeadLetters(
            folder.parent.parent / "dead-letter", settings.dead_letter_bytes
        )
        self._settings = settings
        self._mutex = threading.RLock()
        self._numbers = 0
        self._open: dict[tuple[Stream, int], OpenSegment] = {}
        self._sealed: deque[SealedSegment] = deque()
        self._epochs = Epochs(folder, epoch, shards)
        self._elsewhere = Elsewhere(folder)
        self._met: set[str] = set()
        self._file_bytes = settings.file_bytes * 2  # until the first file tells the true ratio
        folder.mkdir(parents=True, exist_ok=True)
        self._received = Received(folder)
        self._others = Others(self._epochs, self._received, self.dead_letters)
        self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with self._exclusive(follow=False):
            with_reserve(folder / RESERVE_NAME, self._epochs.claim)
            self._aside = AsideLog(self._epochs.own, settings.aside_bytes)
            self._received.refresh()
            self.adopt(now_s)
            self._others.follow()

    @contextmanager
    def _exclusive(self, *, follow: bool = True) -> Iterator[None]:
        """Hold the shard against this process's threads and against other agents."""
        with self._mutex:
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            try:
                if follow:
                    self._others.follow()
                yield
            finally:
                fcntl.flock(self._lock, fcntl.LOCK_UN)

    @contextmanager
    def committing(self) -> Iterator[None]:
        """Open a group commit: looking numbers up and appending frames is one step to others.

        With fsync ``always`` everything is forced to disk when the block ends.
        """
        with self._exclusive():
            yield
            if self._settings.fsync == "always":
                self.sync()

    def missing(
        self, producer: str, first: int, last: int, now_s: float, *, held_here: bool = False
    ) -> list[tuple[int, int]]:
        """Return the parts of a range that no agent has received. Raises ``OSError``.

        With ``held_here`` only agents of this ``state_dir`` count.
        """
        if producer not in self._met:
            for known in self._elsewhere.received(producer):
                self.mark(producer, *known, now_s)
            self._met.add(producer)
        return self._received.missing(producer, first, last, held_here=held_here)

    def through(self, producer: str) -> int:
        with self._mutex:
            return self._received.through(producer)

    def mark(self, producer: str, first: int, last: int, now_s: float) -> None:
        """Note numbers as received and in a frame of this ``state_dir``."""
        self._received.add(producer, first, last, now_s)

    def mark_acknowledged(self, producer: str, through: int, now_s: float) -> None:
        """Note numbers as received by an agent, wherever its spool is."""
        self._received.add_elsewhere(producer, 1, through, now_s)

    def append(
        self,
        stream: Stream,
        hour: int,
        head: RowsHead,
        rows: pa.RecordBatch,
        now_s: float,
        aside: pa.RecordBatch | None = None,
    ) -> None:
        """Write one run to the segment of its stream and hour. Raises ``OSError``.

        ``aside`` holds the rows of sampled-out events, where somebody counts them.
        """
        segment = self._open.get((stream, hour))
        if segment is None or segment.broken:
            segment = self._new_segment(stream, hour, now_s)
        if aside is not None and aside.num_rows:
            head = msgspec.structs.replace(head, aside=self._aside.append(aside))
        body = memoryview(rows.serialize()) if head.rows else memoryview(b"")
        segment.append(head, body, now_s)
        self.mark(head.producer, head.first, head.last, now_s)
        if segment.bytes >= self._file_bytes:
            self._seal(segment, now_s)

    def _new_segment(self, stream: Stream, hour: int, now_s: float) -> OpenSegment:
        broken = self._open.get((stream, hour))
        if broken is not None:
            self._seal(broken, now_s)
        if len(self._open) >= self._settings.max_open_segments:
            self._seal(min(self._open.values(), key=lambda s: s.opened_at_s), now_s)
        begins = datetime.fromtimestamp(hour * 3600, UTC)
        head = OpenHead(
            shard=self._folder.name,
            segment=f"{self.epoch}-{self._numbers:06d}",
            stream=stream,
            date=begins.strftime("%Y-%m-%d"),
            hour=begins.hour,
            opened_at_s=now_s,
        )
        self._numbers += 1
        segment = create(self._epochs.own, head, hour)
        self._open[stream, hour] = segment
        return segment

    def sync(self) -> None:
        """Force what was appended to disk."""
        with self._mutex:
            self._aside.sync()
            for segment in self._open.values():
                segment.sync()

    def seal_due(self, now_s: float) -> int:
        """Seal what is old enough, or whose hour has ended and gone quiet; return how many.

        Older segments of the same stream go along, so that a producer's ranges reach storage in
        order. A late hour (a journal drained after an outage) counts as quiet only after a pause.
        """
        with self._exclusive():
            due = {
                segment.stream for segment in self._open.values() if self._is_due(segment, now_s)
            }
            return self._seal_all([s for s in self._open.values() if s.stream in due], now_s)

    def _is_due(self, segment: OpenSegment, now_s: float) -> bool:
        """Ages are taken without their sign: after a clock steps back, nothing waits for hours."""
        if abs(now_s - segment.opened_at_s) >= self._settings.max_age_s:
            return True
        grace = self._settings.hour_grace_s
        hour_over = now_s >= (segment.hour + 1) * 3600 + grace
        return hour_over and abs(now_s - segment.appended_at_s) >= grace

    def seal_everything(self, now_s: float) -> int:
        with self._exclusive():
            return self._seal_all(list(self._open.values()), now_s)

    def _seal_all(self, segments: list[OpenSegment], now_s: float) -> int:
        for segment in sorted(segments, key=lambda s: s.name):
            self._seal(segment, now_s)
        return len(segments)

    def _seal(self, segment: OpenSegment, now_s: float) -> None:
        del self._open[segment.stream, segment.hour]
        self._sealed.append(seal_or_close(segment, now_s))

    def next_sealed(self) -> SealedSegment | None:
        """Return the oldest sealed segment without taking it out."""
        with self._mutex:
            return self._sealed[0] if self._sealed else None

    def settle(self, segment: SealedSegment, coverage: Coverage, now_s: float) -> None:
        """Account for a stored segment, then delete it. Safe to repeat after a crash in between."""
        self._finish(segment, coverage, {}, now_s)

    def give_away(self, segment: SealedSegment, coverage: Coverage, now_s: float) -> None:
        """Delete a segment that an agent on another disk holds now; safe to repeat as well."""
        self._finish(segment, {}, coverage, now_s)

    def _finish(
        self, segment: SealedSegment, stored: Coverage, given_away: Coverage, now_s: float
    ) -> None:
        with self._exclusive():
            stale = [n for n in self._received.settled if not self._path_of(n).exists()]
            self._received.settle(segment.name, stored, stale)
            for producer, ranges in given_away.items():
                for part in ranges:
                    self._received.give_away(producer, part.first, part.last)
            busy = {p for s in self._segments() for p in s.account}
            self._received.forget(now_s - self._settings.producer_retention_s, busy)
            self._received.save()
            segment.path.unlink(missing_ok=True)
            if segment in self._sealed:
                self._sealed.remove(segment)
            self._epochs.drop_if_empty(segment.path.parent)
            self._met.intersection_update(self._received.intervals)

    def _path_of(self, segment: str) -> Path:
        return self._folder / segment.rsplit("-", 1)[0] / f"{segment}{SUFFIX}"

    def learn_ratio(self, spooled_bytes: int, stored_bytes: int) -> None:
        """Aim the next segments at ``file_bytes`` of Parquet, within 1 to 4 of it on disk."""
        ratio = min(max(spooled_bytes / max(stored_bytes, 1), 1.0), 4.0)
        self._file_bytes = int(self._settings.file_bytes * ratio)

    def adopt(self, now_s: float) -> int:
        """Take over the segments of epochs whose agent is gone; return how many."""
        with self._exclusive(follow=False):
            held = {segment.path for segment in self._sealed}
            for segment in self._others.adopt(held, now_s):
                self._sealed.append(segment)
            return len(self._sealed) - len(held)

    def _segments(self) -> list[OpenSegment | SealedSegment]:
        return [*self._open.values(), *self._sealed]

    def contents(self) -> Contents:
        """Tell what there is to count now; frames of other living agents are theirs to count."""
        with self._mutex:
            segments = sorted(self._segments(), key=lambda s: s.name)
            return Contents(
                segments=tuple((s.path, s.bytes) for s in segments),
                aside_mark=self._aside.turn(),
            )

    def release_aside(self, mark: int) -> None:
        """Delete what was set aside before a mark of ``contents``."""
        with self._mutex:
            self._aside.release(mark)

    def state(self) -> SpoolState:
        with self._mutex:
            segments = self._segments()
            return SpoolState(
                open_segments=len(self._open),
                sealed_segments=len(self._sealed),
                bytes=sum(s.bytes for s in segments),
                oldest_opened_at_s=min((s.opened_at_s for s in segments), default=None),
                foreign_epochs=self._others.epochs,
            )

    def accounts(self) -> tuple[dict[str, Tally], dict[str, Tally], Tally]:
        """Return copies: settled by producer, still in the spool by producer, forgotten."""
        with self._mutex:
            settled = {p: _copy(t) for p, t in self._received.tallies.items()}
            waiting: dict[str, Tally] = {}
            for segment in self._segments():
                for producer, tally in segment.account.items():
                    waiting.setdefault(producer, Tally()).add(tally)
            return settled, waiting, _copy(self._received.retired)

    def close(self) -> None:
        """Give the epoch back without sealing: the next agent adopts what is open."""
        with self._exclusive(follow=False):
            for segment in self._open.values():
                segment.sync()
                os.close(segment.descriptor)
            self._open.clear()
            self._aside.close()
            self._epochs.close()
        os.close(self._lock)


def _copy(tally: Tally) -> Tally:
    fresh = Tally()
    fresh.add(tally)
    return fresh
