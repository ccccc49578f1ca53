"""Frames of the journal: what one event looks like on disk.

::

    magic (4) | body length (u32) | sequence number (u64) | CRC-32 (u32) | body

Little-endian; the checksum covers everything else in the frame. Invariants:

- A frame is read back whole and unchanged, or not at all.
- Damage costs the frames it touches and no other: the scan goes on at the next whole frame.
- What a killed writer leaves behind is a *prefix* of a frame at the end of the data (``is_torn``).
"""

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple
from zlib import crc32

MAGIC: Final = b"\xf5TL\x01"
_HEAD: Final = struct.Struct("<4sIQ")
_CRC: Final = struct.Struct("<I")
_WHOLE_HEAD: Final = struct.Struct("<4sIQI")
OVERHEAD_BYTES: Final = _WHOLE_HEAD.size


class Frame(NamedTuple):
    """One whole frame; ``end`` is the offset behind it, ``skipped`` the damaged bytes before it."""

    seq: int
    body: memoryview
    end: int
    skipped: int


def encode_frame(seq: int, body: bytes) -> bytes:
    """Wrap ``body``; about 0.7 microseconds for 300 bytes."""
    head = _HEAD.pack(MAGIC, len(body), seq)
    return head + _CRC.pack(crc32(body, crc32(head))) + body


def scan_frames(data: bytes | memoryview, *, complete: bool) -> Iterator[Frame]:
    """Yield the whole frames of ``data`` in order.

    With ``complete`` unset more data may follow, so the scan stops at the first frame that reaches
    past the end, and the caller reads on from the last ``end``. With it set, such a frame counts
    as damage and the scan looks for whole frames behind its first byte.
    """
    view = memoryview(data)
    raw = data if isinstance(data, bytes) else bytes(data)  # a slice of bytes costs a third
    size = len(view)
    offset = good_end = 0
    head_bytes = _HEAD.size
    while offset + OVERHEAD_BYTES <= size:
        magic, length, seq, crc = _WHOLE_HEAD.unpack_from(raw, offset)
        start = offset + OVERHEAD_BYTES
        end = start + length
        if magic == MAGIC and end > size and not complete:
            return
        if magic == MAGIC and end <= size:
            body = view[start:end]
            if crc32(body, crc32(raw[offset : offset + head_bytes])) == crc:
                yield Frame(seq, body, end, offset - good_end)
                offset = good_end = end
                continue
        offset = _next_magic(raw, offset + 1)


def _next_magic(raw: bytes, start: int) -> int:
    found = raw.find(MAGIC, start)
    return found if found >= 0 else len(raw)


def is_torn(tail: bytes, *, next_seq: int) -> bool:
    """Whether ``tail`` is the beginning of frame ``next_seq``, cut short.

    Such a frame was being written when its process died. ``record`` had not returned, so the
    response had not left: the request was never answered.
    """
    if len(tail) < OVERHEAD_BYTES:
        return (MAGIC + tail[len(MAGIC) :]).startswith(tail) and len(tail) > 0
    magic, length, seq, _ = _WHOLE_HEAD.unpack_from(tail)
    return bool(magic == MAGIC and seq == next_seq and OVERHEAD_BYTES + length > len(tail))
