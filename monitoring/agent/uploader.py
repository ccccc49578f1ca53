"""From sealed segments to storage, one at a time and in order; storage away means waiting.

A step is: build the file, put it, put the ledger's head that lists it, account for it, delete the
segment. A crash between any two repeats the step, and the repetition writes the same bytes under
the same key. At most one file is in memory.
"""

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import msgspec

from monitoring.agent.ledger import FILES_PER_HEAD, Coverage, FileEntry, Head
from monitoring.agent.parquet import (
    BuiltFile,
    SegmentAccount,
    build,
    build_without_rows,
    read_account,
)
from monitoring.agent.segment import SealedSegment, map_file
from monitoring.agent.settings import RetrySettings
from monitoring.agent.sink import Sink, event_key, head_key
from monitoring.agent.spool import Spool
from monitoring.errors import FrameCorrupt, SinkUnavailable

log = logging.getLogger(__name__)


class Follower(Protocol):
    """Counts what the spool holds; asked to be through with a segment before it is deleted.

    A failure is logged: live figures are estimates, the log must go on.
    """

    def finish(self, segment: SealedSegment) -> None: ...


@dataclass(slots=True, kw_only=True)
class StoredCounts:
    """What reached storage in this process's life."""

    files: int = 0
    rows: int = 0
    bytes: int = 0
    failures: int = 0
    dead_letters: int = 0
    unfinished_segments: int = 0  # deleted although not wholly counted live


class Uploader:
    """Belongs to one thread, beside the spool it empties."""

    def __init__(
        self,
        *,
        shard: str,
        spool: Spool,
        sink: Sink,
        retry: RetrySettings,
        clock: Callable[[], float],
        chance: random.Random,
        follower: Follower | None = None,
    ) -> None:
        self.counts = StoredCounts()
        self.last_error: str | None = None
        self.last_success_s: float | None = None
        self.failing_since_s: float | None = None
        self._shard = shard
        self._spool = spool
        self._sink = sink
        self._retry = retry
        self._clock = clock
        self._chance = chance
        self._follower = follower
        self._attempt = 0
        self._set_aside_last = ""
        self._part = 0
        self._listed: list[FileEntry] = []

    def step(self) -> bool:
        """Store the oldest sealed segment; False when there is none.

        Raises ``SinkUnavailable``; the segment stays first in line then.
        """
        segment = self._spool.next_sealed()
        if segment is None:
            return False
        try:
            self._store(segment)
        except SinkUnavailable as error:
            self._note_failure(str(error))
            raise
        self._note_success()
        return True

    def wait_s(self) -> float:
        """Return how long to wait after the last failure: exponential, with full jitter."""
        ceiling = min(self._retry.last_s, self._retry.first_s * 2.0 ** min(self._attempt, 32))
        return self._chance.uniform(self._retry.first_s / 2, ceiling)

    def _store(self, segment: SealedSegment) -> None:
        try:
            account = read_account(map_file(segment.path))
        except FrameCorrupt as error:
            # Sealed by us and unreadable now: the disk. Nothing says which ranges it held.
            self._set_aside(segment, str(error))
            self._settle(segment, {})
            return
        built = self._build(segment, account)
        key = event_key(account.opening)
        self._sink.put(key, memoryview(built.data))
        self._list(
            FileEntry(file=key, rows=built.rows, bytes=built.data.size, coverage=built.coverage)
        )
        self._settle(segment, built.coverage)
        if built.rows:
            self._spool.learn_ratio(segment.bytes, built.data.size)
        self.counts.files += 1
        self.counts.rows += built.rows
        self.counts.bytes += built.data.size

    def _settle(self, segment: SealedSegment, coverage: Coverage) -> None:
        if self._follower is not None:
            try:
                self._follower.finish(segment)
            except Exception:
                self.counts.unfinished_segments += 1
                log.exception("segment %s is not wholly in the live windows", segment.name)
        self._spool.settle(segment, coverage, self._clock())

    def _build(self, segment: SealedSegment, account: SegmentAccount) -> BuiltFile:
        """Make the file, or one that only closes the ranges where the rows can never be stored."""
        try:
            built = build(account)
        except MemoryError:
            raise  # another time there may be room
        except Exception as error:  # the same bytes would fail the same way for ever
            log.exception("segment %s cannot be written as Parquet", segment.name)
            self._set_aside(segment, f"cannot be written as Parquet: {error!r}")
            return build_without_rows(account)
        if built.corrupt:
            self._set_aside(segment, f"{built.corrupt} frames fail their checksum")
        return built

    def _list(self, entry: FileEntry) -> None:
        """Write the ledger's head with one more file; a full part is left and the next begun."""
        if len(self._listed) >= FILES_PER_HEAD:
            self._part += 1
            self._listed = []
        listed = [other for other in self._listed if other.file != entry.file]
        listed.append(entry)
        head = Head(
            shard=self._shard, epoch=self._spool.epoch, part=self._part, files=tuple(listed)
        )
        key = head_key(self._shard, self._spool.epoch, self._part)
        self._sink.put(key, memoryview(msgspec.json.encode(head)))
        self._listed = listed

    def _set_aside(self, segment: SealedSegment, reason: str) -> None:
        """Keep a copy for people, once, however often the upload is retried."""
        if segment.name == self._set_aside_last:
            return
        self._spool.dead_letters.keep(segment.path, reason)
        self._set_aside_last = segment.name
        self.counts.dead_letters += 1
        log.error("segment %s went to the dead-letter folder: %s", segment.name, reason)

    def _note_failure(self, message: str) -> None:
        self.counts.failures += 1
        self._attempt += 1
        if self.last_error is None:
            self.failing_since_s = self._clock()
            log.error("%s; files wait on disk and are retried", message)
        self.last_error = message

    def _note_success(self) -> None:
        if self.last_error is not None:
            log.info("storage answers again after %d failures", self._attempt)
        self._attempt = 0
        self.last_error = self.failing_since_s = None
        self.last_success_s = self._clock()
