from hypothesis import given, settings
from hypothesis import strategies as st

from monitoring.capture.drops import (
    MAX_RANGES,
    RECORD_BYTES,
    DropLog,
    DropRange,
    DropReason,
    decode_marks,
    encode_marks,
    explain,
)

FULL, LOST, REJECTED = (
    DropReason.JOURNAL_FULL,
    DropReason.LOST_IN_REPLICA,
    DropReason.REJECTED,
)
numbers = st.dictionaries(st.integers(1, 60), st.sampled_from([FULL, DropReason.BUFFER_FULL]))


def log_of(known: dict[int, DropReason]) -> DropLog:
    log = DropLog()
    for seq in sorted(known):
        assert log.add(seq, known[seq])
    return log


def reasons(log: DropLog, first: int = 1, last: int = 60) -> dict[int, DropReason]:
    parts = explain(log.ranges(), first, last, otherwise=LOST)
    return {n: part.reason for part in parts for n in range(part.first, part.last + 1)}


@settings(deadline=None)
@given(numbers, st.integers(1, 60), st.integers(1, 60))
def test_every_number_of_a_hole_has_exactly_one_reason(
    known: dict[int, DropReason], a: int, b: int
) -> None:
    first, last = min(a, b), max(a, b)
    expected = {n: known.get(n, LOST) for n in range(first, last + 1)}
    assert reasons(log_of(known), first, last) == expected
    assert list(explain(log_of(known).ranges(), last + 1, last, otherwise=LOST)) == []


@settings(deadline=None)
@given(numbers, st.integers(1, 60), st.integers(1, 60))
def test_overwrite_and_forget(known: dict[int, DropReason], a: int, b: int) -> None:
    first, last = min(a, b), max(a, b)
    log = log_of(known)
    log.overwrite(first, last, REJECTED)
    expected = {n: known.get(n, LOST) for n in range(1, 61)}
    expected.update(dict.fromkeys(range(first, last + 1), REJECTED))
    assert reasons(log) == expected
    log.forget(first)
    assert reasons(log) == {**expected, **dict.fromkeys(range(1, first + 1), LOST)}


@settings(deadline=None)
@given(numbers, st.integers(0, 60), st.binary(max_size=100))
def test_marks_round_trip(known: dict[int, DropReason], acknowledged: int, tail: bytes) -> None:
    log = log_of(known)
    through, read = decode_marks(encode_marks(acknowledged, log.ranges()) + tail)
    log.forget(acknowledged)
    assert through == acknowledged
    assert reasons(read) == reasons(log)


@settings(deadline=None)
@given(numbers, st.data())
def test_a_damaged_record_loses_its_reason_and_nothing_else(
    known: dict[int, DropReason], data: st.DataObject
) -> None:
    log = log_of(known)
    marks = bytearray(encode_marks(0, log.ranges()))
    at = data.draw(st.integers(0, len(marks) - 1))
    marks[at] ^= 0x40
    _, read = decode_marks(bytes(marks))
    hit = at // RECORD_BYTES - 1
    kept = [r for i, r in enumerate(log.ranges()) if i != hit]
    padding = at % RECORD_BYTES >= 24
    assert read.ranges() == (log.ranges() if padding else tuple(kept))


def test_ranges_are_bounded() -> None:
    log = DropLog()
    added = [log.add(2 * n, FULL) for n in range(MAX_RANGES + 5)]
    assert len(log) == MAX_RANGES
    assert not any(added[MAX_RANGES:])
    assert log.last == DropRange(2 * MAX_RANGES - 2, 2 * MAX_RANGES - 2, FULL)
