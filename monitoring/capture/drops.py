"""Which sequence numbers have no event in the journal, and why.

A producer's ``marks`` file holds this beside the journal, so that the ledger closes after a
SIGKILL too. It is a row of 32-byte records, each with its own checksum and overwritten in place:
record 0 says through which number the agent has acknowledged; each further one gives a range of
numbers without a journalled event. Invariants:

- Ranges are disjoint and ascending. A frame always wins over a range: only a number that is absent
  from the journal is looked up here, so a range may be too wide but a drop is never counted twice.
- A number that is absent from the journal *and* from every range is ``lost_in_replica``: the
  marks explain holes, they are not needed to find them. (Only the end of a journal cannot be told
  from its holes, which is why marks are written at once and not with the next event.)
"""

import struct
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from typing import Final, NamedTuple
from zlib import crc32

_RECORD: Final = struct.Struct("<QQII")  # first, last, code, checksum
RECORD_BYTES: Final = 32
_ACKNOWLEDGED: Final = 0
MAX_RANGES: Final = 4096


class DropReason(StrEnum):
    """Why a numbered event is not in the log. The order is part of the file format."""

    JOURNAL_FULL = "journal_full"  # the disk quota is used up
    BUFFER_FULL = "buffer_full"  # no disk, and the buffer that stands in for it is full
    UNENCODABLE = "unencodable"  # the event could not be masked or encoded
    REJECTED = "rejected"  # the agent refuses it for good; it lies in the dead-letter folder
    LOST_IN_REPLICA = "lost_in_replica"  # answered, held in memory only, and the process died
    UNREADABLE = "unreadable"  # its frame is damaged
    TORN = "torn"  # its frame was being written when the process died; never answered


_CODES: Final = {reason: code for code, reason in enumerate(DropReason, start=1)}
_REASONS: Final = {code: reason for reason, code in _CODES.items()}


class DropRange(NamedTuple):
    """Numbers ``first`` to ``last``, both included, share one reason."""

    first: int
    last: int
    reason: DropReason


def explain(
    ranges: Sequence[DropRange], first: int, last: int, *, otherwise: DropReason
) -> Iterator[DropRange]:
    """Cut ``first..last`` into ranges of one reason each; ``otherwise`` where nothing is known.

    >>> known = [DropRange(3, 4, DropReason.JOURNAL_FULL)]
    >>> [(r.first, r.last, str(r.reason)) for r in
    ...  explain(known, 2, 4, otherwise=DropReason.LOST_IN_REPLICA)]
    [(2, 2, 'lost_in_replica'), (3, 4, 'journal_full')]
    """
    at = bisect_left(ranges, first, key=lambda r: r.last)
    while first <= last:
        if at == len(ranges) or ranges[at].first > last:
            yield DropRange(first, last, otherwise)
            return
        known = ranges[at]
        if known.first > first:
            yield DropRange(first, known.first - 1, otherwise)
            first = known.first
        yield DropRange(first, min(known.last, last), known.reason)
        first = known.last + 1
        at += 1


class DropLog:
    """The ranges of one producer; at most ``MAX_RANGES``, past which holes lose their reason."""

    def __init__(self, ranges: Iterable[DropRange] = ()) -> None:
        self._ranges = list(ranges)

    def ranges(self) -> tuple[DropRange, ...]:
        return tuple(self._ranges)

    def __len__(self) -> int:
        return len(self._ranges)

    @property
    def last(self) -> DropRange:
        return self._ranges[-1]

    def add(self, seq: int, reason: DropReason) -> bool:
        """Note a number above all that were added before; False when there is no room."""
        if self._ranges:
            end = self._ranges[-1]
            if end.reason == reason and end.last + 1 == seq:
                self._ranges[-1] = DropRange(end.first, seq, reason)
                return True
        if len(self._ranges) >= MAX_RANGES:
            return False
        self._ranges.append(DropRange(seq, seq, reason))
        return True

    def overwrite(self, first: int, last: int, reason: DropReason) -> None:
        """Give all of ``first..last`` this reason, whatever was known about it."""
        kept: list[DropRange] = []
        for known in self._ranges:
            if known.first < first:
                kept.append(DropRange(known.first, min(known.last, first - 1), known.reason))
            if known.last > last:
                kept.append(DropRange(max(known.first, last + 1), known.last, known.reason))
        self._ranges = sorted([*kept, DropRange(first, last, reason)])

    def overwrite_each(self, numbers: Iterable[int], reason: DropReason) -> None:
        """Give ascending single numbers this reason."""
        for first, last in _runs(numbers):
            self.overwrite(first, last, reason)

    def forget(self, through: int) -> bool:
        """Drop what is acknowledged; True when that changed anything."""
        if not self._ranges or self._ranges[0].first > through:
            return False
        kept = [r for r in self._ranges if r.last > through]
        self._ranges = [DropRange(max(r.first, through + 1), r.last, r.reason) for r in kept]
        return True


def encode_marks(acknowledged: int, ranges: Iterable[DropRange]) -> bytes:
    """Whole content of a marks file."""
    return b"".join([encode_acknowledged(acknowledged), *(encode_range(r) for r in ranges)])


def encode_acknowledged(through: int) -> bytes:
    return _record(0, through, _ACKNOWLEDGED)


def encode_range(known: DropRange) -> bytes:
    return _record(known.first, known.last, _CODES[known.reason])


def _record(first: int, last: int, code: int) -> bytes:
    head = struct.pack("<QQI", first, last, code)
    return (head + struct.pack("<I", crc32(head))).ljust(RECORD_BYTES, b"\0")


def decode_marks(data: bytes) -> tuple[int, DropLog]:
    """Read a marks file back: acknowledged-through and the ranges behind it.

    Damaged and stale records are left out; what they explained is then ``lost_in_replica``.
    """
    acknowledged = 0
    found: list[DropRange] = []
    for at in range(0, len(data) - RECORD_BYTES + 1, RECORD_BYTES):
        first, last, code, crc = _RECORD.unpack_from(data, at)
        if crc32(data[at : at + _RECORD.size - 4]) != crc:
            continue
        if code == _ACKNOWLEDGED:
            acknowledged = max(acknowledged, last)
        elif code in _REASONS and first <= last:
            found.append(DropRange(first, last, _REASONS[code]))
    return acknowledged, _disjoint(sorted(found), acknowledged)


def _disjoint(ranges: Iterable[DropRange], acknowledged: int) -> DropLog:
    """A rewrite that was cut short leaves some ranges twice: keep the first of each number."""
    kept: list[DropRange] = []
    end = acknowledged
    for known in ranges:
        if known.last > end:
            kept.append(DropRange(max(known.first, end + 1), known.last, known.reason))
            end = known.last
    return DropLog(kept)


def _runs(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Join ascending numbers into closed ranges.

    >>> _runs([1, 2, 5])
    [(1, 2), (5, 5)]
    """
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return runs
