"""Frames of a spool segment.

A segment is a file of frames: one ``open``, any number of ``rows``, at most one ``seal``.

``magic(4) kind(1) head_len(4) body_len(4) head_crc(4) body_crc(4) | head | body``, little-endian;
``head`` is MessagePack, ``body`` an Arrow IPC record batch without its schema. ``head_crc`` covers
the fixed part before it and the head, so a broken body leaves the account in the head readable.

Invariants:

- A frame counts only when both checksums hold. Arrow alone does not notice a flipped byte.
- What follows the last good frame is a torn tail: it was never acknowledged and is cut.
- A ``seal`` fixes a segment's content for ever; uploads of it never read the clock.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import msgspec

from monitoring.agent.aside import Aside
from monitoring.errors import FrameCorrupt
from monitoring.events import Stream

MAGIC: Final = b"TLS1"
_LENGTHS: Final = struct.Struct("<4sBII")
_CHECKS: Final = struct.Struct("<II")
FIXED_BYTES: Final = _LENGTHS.size + _CHECKS.size


class Kind(IntEnum):
    """What a frame holds."""

    OPEN = 1
    ROWS = 2
    SEAL = 3


class OpenHead(msgspec.Struct, frozen=True):
    """First frame: the partition, and the segment's name ``<epoch>-<number>``."""

    shard: str
    segment: str
    stream: Stream
    date: str
    hour: int
    opened_at_s: float


class RowsHead(msgspec.Struct, frozen=True):
    """Account of one run of sequence numbers; the kept rows are the frame's body.

    ``last - first + 1 == written + sampled_out + sum(dropped)``, in events. ``aside`` says where
    the rows of the sampled-out events wait until they are counted. ``decided`` rows came out of a
    dead agent's spool on another node.
    """

    producer: str
    first: int
    last: int
    written: int
    sampled_out: int
    dropped: dict[str, int]
    rows: int
    policy_id: str
    node: str
    env: str
    aside: Aside | None = None
    decided: bool = False


class SealHead(msgspec.Struct, frozen=True):
    """Last frame: nothing may follow."""

    sealed_at_s: float
    frames: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One frame as found; ``body`` is None where its checksum does not hold."""

    kind: Kind
    start: int
    end: int
    head: bytes | memoryview
    body: memoryview | None


def encode(kind: Kind, head: msgspec.Struct, body: bytes | memoryview = b"") -> tuple[bytes, int]:
    """Return everything of a frame that comes before its body, and the whole frame's length."""
    packed = msgspec.msgpack.encode(head)
    lengths = _LENGTHS.pack(MAGIC, kind, len(packed), len(body))
    checks = _CHECKS.pack(zlib.crc32(packed, zlib.crc32(lengths)), zlib.crc32(body))
    return lengths + checks + packed, FIXED_BYTES + len(packed) + len(body)


def frame_at(view: memoryview, start: int) -> Frame:
    """Read the frame at an offset.

    Raises ``FrameCorrupt`` when it is cut short or its head does not hold.
    """
    if start + FIXED_BYTES > len(view):
        raise FrameCorrupt(f"offset {start}: {len(view) - start} bytes left, no whole frame")
    magic, kind, head_bytes, body_bytes = _LENGTHS.unpack_from(view, start)
    head_crc, body_crc = _CHECKS.unpack_from(view, start + _LENGTHS.size)
    split = start + FIXED_BYTES + head_bytes
    end = split + body_bytes
    if magic != MAGIC or end > len(view):
        raise FrameCorrupt(f"offset {start}: no frame, or one cut short at {len(view)} bytes")
    head = view[start + FIXED_BYTES : split]
    if zlib.crc32(head, zlib.crc32(view[start : start + _LENGTHS.size])) != head_crc:
        raise FrameCorrupt(f"offset {start}: the head's checksum does not hold")
    body = view[split:end]
    good = zlib.crc32(body) == body_crc
    return Frame(kind=Kind(kind), start=start, end=end, head=head, body=body if good else None)


def scan(view: memoryview, start: int = 0) -> Iterator[Frame]:
    """Yield the readable frames from an offset on, jumping over unreadable stretches.

    After a broken head the next magic whose head holds goes on; none left ends the scan.
    """
    while start < len(view):
        try:
            frame = frame_at(view, start)
        except FrameCorrupt:
            following = _next_magic(view, start + 1)
            if following is None:
                return
            start = following
        else:
            yield frame
            start = frame.end


def _next_magic(view: memoryview, start: int) -> int | None:
    """Find the next offset that could start a frame, looking through 1 MiB at a time."""
    step = 1024 * 1024
    while start < len(view):
        found = bytes(view[start : start + step]).find(MAGIC)
        if found >= 0:
            return start + found
        start += step - len(MAGIC) + 1
    return None
