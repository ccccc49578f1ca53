"""What waits in a journal, and how the next delivery's worth is read from it.

``Backlog`` is a snapshot taken on the thread that writes the journal; ``read_slice`` may run on
any other thread, since it only reads files and immutable values. Invariants of a ``Slice``:

- It covers ``first..last`` without a hole: ``last - first + 1 == events + sum(dropped)``.
- It names at most one drop reason. A receiver that already holds a part of the range can then
  still tell what the rest consists of: its missing numbers all have that reason.
- It is never empty when the backlog is not, and one event larger than a limit goes alone.
"""

import os
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from monitoring.capture.drops import DropRange, DropReason, explain
from monitoring.capture.frames import OVERHEAD_BYTES, scan_frames
from monitoring.capture.rowbytes import RowEvent, is_row
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

    1,000 single rows (``rowbytes``) take a thread about 3.5 ms, less than the interpreter's switch
    interval of 5 ms, beyond which the event loop would wait for it.
    """

    max_rows: int = 1_000
    max_bytes: int = 4 * 1024 * 1024


@dataclass(slots=True, kw_only=True)
class Slice:
    """The content of one delivery; ``position`` is where the journal is read on after it."""

    first: int
    last: int
    position: Position
    events: list[PredictionEvent | RowEvent] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)


# Number and body of a frame, its segment, the offset behind it, whether damage lies before it. A
# plain tuple: thousands of them are made for a delivery.
_Found = tuple[int, memoryview, int, int, bool]


def read_slice(backlog: Backlog, limits: SliceLimits) -> Slice:
    """Read the next events, up to the limits; raises OSError when the disk cannot be read."""
    draft = Slice(first=backlog.first, last=backlog.first - 1, position=backlog.position)
    rows = size = 0
    damaged = False
    for seq, body, segment, offset, damage_before in _found_frames(backlog):
        damaged |= damage_before
        if seq <= draft.last or seq > backlog.last:
            continue
        if seq > draft.last + 1:
            otherwise = DropReason.UNREADABLE if damaged else DropReason.LOST_IN_REPLICA
            if not _take_hole(draft, backlog.drops, seq - 1, otherwise):
                return draft
        event = _event(seq, body)
        damaged = event is None
        if event is None:
            continue
        rows += 1 if isinstance(event, RowEvent) else len(event.inputs)
        size += len(body)
        if draft.events and (rows > limits.max_rows or size > limits.max_bytes):
            return draft
        draft.events.append(event)
        draft.last = seq
        draft.position = Position(segment, offset)
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


def _event(seq: int, body: memoryview) -> PredictionEvent | RowEvent | None:
    """The event, or None where an intact frame holds none (written by another version)."""
    if is_row(body):
        return RowEvent(seq, body)
    try:
        event = _decode(body)
    except msgspec.MsgspecError:
        return None
    # Without rows it would leave no trace in a table of rows, and the ledger would not close.
    return event if event.seq == seq and event.inputs else None


def _found_frames(backlog: Backlog) -> Iterator[_Found]:
    position, damaged = backlog.position, False
    for segment in backlog.segments:
        position, damaged = yield from _segment_frames(segment, position, damaged)
    for held in backlog.held:
        yield held.seq, memoryview(held.frame)[OVERHEAD_BYTES:], *position, damaged
        damaged = False
    # No frame, but damage behind the last one: it explains the numbers that are missing there.
    yield backlog.last + 1, memoryview(b""), *position, damaged


def _segment_frames(
    segment: SegmentView, position: Position, damaged: bool
) -> Generator[_Found, None, tuple[Position, bool]]:
    """Read a segment chunk by chunk; a frame larger than a chunk makes the chunk grow.

    ``position`` lies behind the last frame before the segment, and ``damaged`` says whether damage
    follows that frame; the same is returned for the segment's end.
    """
    offset = segment.offset
    chunk_bytes = _CHUNK_BYTES
    try:
        file = segment.path.open("rb", buffering=0)
    except FileNotFoundError:
        return position, True
    with file:
        while offset < segment.size:
            data = os.pread(file.fileno(), min(chunk_bytes, segment.size - offset), offset)
            complete = len(data) < chunk_bytes or offset + len(data) >= segment.size
            end = 0
            for seq, body, end, skipped in scan_frames(data, complete=complete):
                yield seq, body, segment.first, offset + end, damaged or skipped > 0
                damaged = False
            if end:
                position = Position(segment.first, offset + end)
            if complete:
                break
            if end == 0:
                chunk_bytes *= 2
            offset += end
    behind = position.offset if position.segment == segment.first else segment.offset
    return position, damaged or behind < segment.size
