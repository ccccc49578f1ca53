"""What waits in a journal, and how the next delivery's worth is read from it.

``Backlog`` is a snapshot taken on the thread that writes the journal; ``read_slice`` may run on
any other thread, since it only reads files and immutable values. Invariants of a ``Slice``:

- It covers ``first..last`` without a hole: ``last - first + 1 == events + sum(dropped)``.
- It names at most one drop reason. A receiver that already holds a part of the range can then
  still tell what the rest consists of: its missing numbers all have that reason.
- It is never empty when the backlog is not, and one event larger than a limit goes alone.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from monitoring.capture.drops import DropRange, DropReason, explain
from monitoring.capture.frames import OVERHEAD_BYTES, scan_frames
from monitoring.events import PredictionEvent

_CHUNK_BYTES: Final = 1 << 20
_decode = msgspec.msgpack.Decoder(PredictionEvent).decode


class Position(NamedTuple):
    """A place in the journal: the first number of a segment and an offset in bytes."""

    segment: int
    offset: int


START: Final = Position(0, 0)


class SegmentView(NamedTuple):
    """The unread part of a segment file, ``offset`` to ``size``, as it was at one moment."""

    path: Path
    first: int
    offset: int
    size: int


def unread(
    segments: Iterable[tuple[int, Path, int]], position: Position
) -> tuple[SegmentView, ...]:
    """What lies behind ``position``, of segments given as lowest number, path and size."""
    return tuple(
        SegmentView(path, first, position.offset if first == position.segment else 0, size)
        for first, path, size in segments
        if first >= position.segment
    )


class HeldFrame(NamedTuple):
    """An event that waits in memory because the disk would not take it."""

    seq: int
    frame: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """All that is recorded and not acknowledged: numbers ``first..last``.

    Reading begins at ``position``, which may be past ``first``: what was given up before it stands
    in ``drops``.
    """

    first: int
    last: int
    position: Position
    segments: tuple[SegmentView, ...]
    held: tuple[HeldFrame, ...]
    drops: tuple[DropRange, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceLimits:
    """How much goes into one delivery.

    500 rows take a thread about 4 ms, less than the interpreter's switch interval of 5 ms: while an
    old backlog is sent, the event loop's 99th percentile wait was 9 ms, with 2,000 rows 20 ms.
    """

    max_rows: int = 500
    max_bytes: int = 4 * 1024 * 1024


@dataclass(slots=True, kw_only=True)
class Slice:
    """The content of one delivery; ``position`` is where the journal is read on after it."""

    first: int
    last: int
    position: Position
    events: list[PredictionEvent] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)


class _Found(NamedTuple):
    seq: int
    body: memoryview
    position: Position
    damage_before: bool


def read_slice(backlog: Backlog, limits: SliceLimits) -> Slice:
    """Read the next events, up to the limits; raises OSError when the disk cannot be read."""
    draft = Slice(first=backlog.first, last=backlog.first - 1, position=backlog.position)
    rows = size = 0
    damaged = False
    for found in _found_frames(backlog):
        damaged |= found.damage_before
        if found.seq <= draft.last or found.seq > backlog.last:
            continue
        otherwise = DropReason.UNREADABLE if damaged else DropReason.LOST_IN_REPLICA
        if not _take_hole(draft, backlog.drops, found.seq - 1, otherwise):
            return draft
        event = _event(found)
        damaged = event is None
        if event is None:
            continue
        rows += len(event.inputs)
        size += len(found.body)
        if draft.events and (rows > limits.max_rows or size > limits.max_bytes):
            return draft
        draft.events.append(event)
        draft.last = event.seq
        draft.position = found.position
    otherwise = DropReason.UNREADABLE if damaged else DropReason.LOST_IN_REPLICA
    _take_hole(draft, backlog.drops, backlog.last, otherwise)
    return draft


def _take_hole(
    draft: Slice, drops: tuple[DropRange, ...], through: int, otherwise: DropReason
) -> bool:
    """Count the numbers up to ``through`` as dropped; False where a second reason would begin."""
    for part in explain(drops, draft.last + 1, through, otherwise=otherwise):
        if draft.dropped and part.reason not in draft.dropped:
            return False
        key = str(part.reason)
        draft.dropped[key] = draft.dropped.get(key, 0) + part.last - part.first + 1
        draft.last = part.last
    return True


def _event(found: _Found) -> PredictionEvent | None:
    """The event, or None where an intact frame holds none (written by another version)."""
    try:
        event = _decode(found.body)
    except msgspec.MsgspecError:
        return None
    # Without rows it would leave no trace in a table of rows, and the ledger would not close.
    return event if event.seq == found.seq and event.inputs else None


def _found_frames(backlog: Backlog) -> Iterator[_Found]:
    position = backlog.position
    damaged = False
    for segment in backlog.segments:
        end = segment.offset
        try:
            for found in _segment_frames(segment):
                position = found.position
                end = position.offset
                yield found._replace(damage_before=True) if damaged else found
                damaged = False
        except FileNotFoundError:
            damaged = True
        damaged |= end < segment.size
    for held in backlog.held:
        yield _Found(held.seq, memoryview(held.frame)[OVERHEAD_BYTES:], position, damaged)


def _segment_frames(segment: SegmentView) -> Iterator[_Found]:
    """Read a segment chunk by chunk; a frame larger than a chunk makes the chunk grow."""
    offset, chunk_bytes = segment.offset, _CHUNK_BYTES
    with segment.path.open("rb", buffering=0) as file:
        while offset < segment.size:
            data = os.pread(file.fileno(), min(chunk_bytes, segment.size - offset), offset)
            complete = len(data) < chunk_bytes or offset + len(data) >= segment.size
            end = 0
            for frame in scan_frames(data, complete=complete):
                end = frame.end
                position = Position(segment.first, offset + end)
                yield _Found(frame.seq, frame.body, position, frame.skipped > 0)
            if complete:
                return
            if end == 0:
                chunk_bytes *= 2
            offset += end
