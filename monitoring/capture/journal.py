"""The journal of one producer: events reach the page cache before their response leaves.

Its files are described in ``folder.py``. Invariants:

- A number is in a frame, held in memory, or dropped; ``append`` and ``drop`` leave it in one of
  the three before they return. Numbers held or dropped are in the marks, so that after a SIGKILL
  everything up to the last number is either a frame or accounted for.
- Frames ascend over all segments, and every held frame follows them: when the disk comes back the
  held ones are written before anything new.
- A segment is deleted when its last frame is acknowledged and it is not the one being written.

Everything but reading a ``Backlog`` happens on one thread. Nothing here raises in ``append``,
``drop`` or ``release``; OSErrors become held or dropped events and a warning. A ``write`` may wait
where the kernel throttles a writer because the disk can't keep up with dirty pages.
"""

import logging
import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec

from monitoring.capture.backlog import START, Backlog, HeldFrame, Slice, unread
from monitoring.capture.drops import DropLog, DropReason
from monitoring.capture.folder import STREAM_FILE, ProducerFolder, StreamDescription
from monitoring.capture.frames import encode_frame
from monitoring.capture.quiet_log import QuietLog

_HELD_PER_BACKLOG: Final = 4096
# Reasons that come to light only when the journal is read.
_FOUND_LATER: Final = (DropReason.LOST_IN_REPLICA, DropReason.UNREADABLE, DropReason.TORN)


class JournalLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of one journal, in bytes on disk and in memory."""

    segment_bytes: int = 8 * 1024 * 1024
    quota_bytes: int = 1024 * 1024 * 1024
    buffer_bytes: int = 4 * 1024 * 1024
    retry_s: float = 5.0

    def __post_init__(self) -> None:
        # Otherwise one acknowledged segment that is still open could use up the quota for ever.
        if self.quota_bytes < 2 * self.segment_bytes:
            raise ValueError(
                f"quota_bytes is {self.quota_bytes}; it must be at least twice segment_bytes"
                f" ({self.segment_bytes})"
            )


@dataclass(slots=True)
class _Segment:
    path: Path
    first: int
    last: int
    bytes: int


class Journal:
    """Write side of a journal. Raises ValueError when the producer id was used before."""

    def __init__(
        self,
        root: Path,
        description: StreamDescription,
        *,
        limits: JournalLimits,
        monotonic: Callable[[], float],
        log: logging.Logger | None = None,
    ) -> None:
        self.description = description
        self.path = root / description.producer
        if os.path.exists(self.path / STREAM_FILE):  # noqa: PTH110  Path.exists raises where it may not look
            raise ValueError(
                f"producer {description.producer!r} has a journal in {root} already;"
                " a producer id is never used twice"
            )
        self.limits = limits
        self.acknowledged = 0
        self.recorded = 0  # every number up to here is in a frame, held or dropped
        self.dropped: dict[str, int] = {}
        self.journal_bytes = 0
        self.held_bytes = 0
        self._root = root
        self._monotonic = monotonic
        self._log = QuietLog(log or logging.getLogger(__name__), monotonic)
        self._segments: list[_Segment] = []
        self._active: _Segment | None = None
        self._fd = -1
        self._folder: ProducerFolder | None = None
        self._held: deque[HeldFrame] = deque()
        self._drops = DropLog()
        self._journalled = 0  # the last number in a frame on disk
        self._position = START
        self._retry_at_s = float("-inf")
        self._trouble: dict[str, str] = {}
        self._recover()

    def append(self, seq: int, body: bytes) -> None:
        """Keep one event. ``seq`` is one more than the last number appended or dropped."""
        frame = encode_frame(seq, body)
        size = len(frame)
        active = self._active
        if active is not None and active.bytes + size > self.limits.segment_bytes and active.bytes:
            active = self._rotate()
        if active is None and not self._recover():
            self._hold(seq, frame)
            return
        if self.journal_bytes + size > self.limits.quota_bytes:
            self.drop(seq, DropReason.JOURNAL_FULL)
            return
        if self._write(frame, seq):
            self.recorded = seq
        else:
            self._hold(seq, frame)

    def drop(self, seq: int, reason: DropReason) -> None:
        """Count one number as dropped, on disk too where that is possible."""
        self._count({reason: 1})
        self._mark(seq, reason)
        self.recorded = seq
        self._log.warn(reason, "event %d of %s dropped", seq, self.description.producer)

    def backlog(self) -> Backlog | None:
        """Everything recorded and not acknowledged, or None when there is nothing."""
        if self.recorded <= self.acknowledged:
            return None
        held = tuple(islice(self._held, _HELD_PER_BACKLOG))
        return Backlog(
            first=self.acknowledged + 1,
            last=held[-1].seq if len(held) < len(self._held) else self.recorded,
            position=self._position,
            segments=unread(((s.first, s.path, s.bytes) for s in self._segments), self._position),
            held=held,
            drops=self._drops.ranges(),
        )

    def release(self, delivered: Slice, through: int) -> None:
        """Forget what the agent holds durably: numbers up to ``through``, of this slice or more."""
        through = min(through, self.recorded)
        if through <= self.acknowledged:
            return
        self.acknowledged = through
        if through >= delivered.last:
            self._position = delivered.position
            self._count({why: n for why, n in delivered.dropped.items() if why in _FOUND_LATER})
        if self._drops.forget(through):
            self._save_marks()
        elif self._folder is not None:
            self._saving_marks(lambda folder: folder.write_acknowledged(through))
        self._forget_events(through)

    def give_up(self, refused: Slice) -> None:
        """Count the events of a slice as rejected. The agent still has to be told their number."""
        self._count({DropReason.REJECTED: len(refused.events)})
        self._drops.overwrite_each((event.seq for event in refused.events), DropReason.REJECTED)
        self._position = refused.position
        self._save_marks()
        self._forget_events(refused.last)

    def warnings(self) -> list[str]:
        """What an operator should know now, one sentence each."""
        found = [f"journal {self.path}: {what}" for what in self._trouble.values()]
        if self._held:
            found.append(
                f"journal {self.path}: {len(self._held)} events ({self.held_bytes} bytes)"
                " are held in memory only"
            )
        if self.journal_bytes > 0.9 * self.limits.quota_bytes:
            found.append(
                f"journal {self.path}: {self.journal_bytes} of {self.limits.quota_bytes} bytes"
                " used; past the quota events are dropped"
            )
        return found

    def close(self) -> None:
        """Release the lock; an empty journal goes, any other is left for the orphan drain."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1
        self._active = None
        self._retry_at_s = float("inf")
        folder, self._folder = self._folder, None
        if folder is None:
            return
        if self.acknowledged < self.recorded or not folder.in_place():
            folder.close()
            return
        try:
            folder.delete()
        except OSError as error:
            self._log.warn("journal not deleted", "%s: %s", self.path, error)

    def _write(self, data: bytes, last: int) -> bool:
        """Append frames up to number ``last`` to the active segment, all or nothing."""
        active = self._active
        if active is None:
            return False
        try:
            written = os.write(self._fd, data)
            if written == len(data):
                active.bytes += written
                active.last = self._journalled = last
                self.journal_bytes += written
                return True
            problem = OSError(f"short write, {written} of {len(data)} bytes")
        except OSError as error:
            problem = error
        with suppress(OSError):  # what stays behind the known size is never read
            os.ftruncate(self._fd, active.bytes)
        self._leave_disk(problem)
        return False

    def _rotate(self) -> _Segment | None:
        try:
            self._open_segment()
        except OSError as error:
            self._leave_disk(error)
        return self._active

    def _open_segment(self) -> None:
        folder = self._own_folder()
        first = self._journalled + 1
        path = folder.segment_path(first)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = fd
        if not self._segments or self._segments[-1].first != first:
            self._segments.append(_Segment(path, first, first - 1, 0))
        self._active = self._segments[-1]

    def _leave_disk(self, problem: OSError) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1
        self._active = None
        self._retry_at_s = self._monotonic() + self.limits.retry_s
        self._trouble["disk"] = f"unwritable ({problem}); events are held in memory"
        self._log.warn("journal unwritable", "%s: %s", self.path, problem)

    def _hold(self, seq: int, frame: bytes) -> None:
        if self.held_bytes + len(frame) > self.limits.buffer_bytes:
            self.drop(seq, DropReason.BUFFER_FULL)
            return
        self._held.append(HeldFrame(seq, frame))
        self.held_bytes += len(frame)
        # Should the process die now, this is what became of the number.
        self._mark(seq, DropReason.LOST_IN_REPLICA)
        self.recorded = seq

    def _recover(self) -> bool:
        """Go (back) to disk, with all that is held; True when the next frame may be written."""
        now = self._monotonic()
        if now < self._retry_at_s:
            return False
        try:
            self._open_segment()
        except OSError as error:
            self._leave_disk(error)
            return False
        if self._held:
            frames = b"".join(held.frame for held in self._held)
            if not self._write(frames, self._held[-1].seq):
                return False
            self._held.clear()
            self.held_bytes = 0
        self._trouble.pop("disk", None)
        return True

    def _own_folder(self) -> ProducerFolder:
        if self._folder is not None and not self._folder.in_place():  # somebody deleted it
            self._folder.close()
            self._folder = None
        if self._folder is None:
            self._folder = ProducerFolder.create(
                self._root, self.description, self.acknowledged, self._drops
            )
        return self._folder

    def _mark(self, seq: int, reason: DropReason) -> None:
        if self._drops.add(seq, reason) and self._folder is not None:
            self._saving_marks(lambda folder: folder.write_last_drop(self._drops))

    def _save_marks(self) -> None:
        self._saving_marks(lambda folder: folder.write_marks(self.acknowledged, self._drops))

    def _saving_marks(self, write: Callable[[ProducerFolder], None]) -> None:
        if self._folder is None:
            return
        try:
            write(self._folder)
            self._trouble.pop("marks", None)
        except OSError as error:
            self._trouble["marks"] = f"reasons of drops are not on disk ({error})"

    def _count(self, dropped: dict[str, int]) -> None:
        for reason, events in dropped.items():
            # A plain string: these counters leave the process.
            self.dropped[str(reason)] = self.dropped.get(reason, 0) + events

    def _forget_events(self, through: int) -> None:
        while self._held and self._held[0].seq <= through:
            self.held_bytes -= len(self._held.popleft().frame)
        while self._segments and self._segments[0].last <= through:
            oldest = self._segments[0]
            if oldest is self._active:
                return
            try:
                oldest.path.unlink(missing_ok=True)
            except OSError as error:
                self._trouble["delete"] = f"cannot delete {oldest.path.name} ({error})"
                return
            self._trouble.pop("delete", None)
            self.journal_bytes -= oldest.bytes
            del self._segments[0]
