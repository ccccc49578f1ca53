import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitoring.agent.spool_frames import Kind, RowsHead, encode, frame_at, scan
from monitoring.errors import FrameCorrupt


def head(first: int) -> RowsHead:
    return RowsHead(
        producer="p",
        first=first,
        last=first,
        written=1,
        sampled_out=0,
        dropped={},
        rows=1,
        policy_id="m",
        node="n",
        env="e",
    )


def written(bodies: list[bytes]) -> tuple[bytearray, list[int]]:
    data, ends = bytearray(), []
    for number, body in enumerate(bodies):
        front, length = encode(Kind.ROWS, head(number + 1), body)
        data += front + body
        ends.append(len(data))
        assert length == len(front) + len(body)
    return data, ends


def firsts(data) -> list[int]:
    return [
        msgspec.msgpack.decode(f.head, type=RowsHead).first for f in scan(memoryview(bytes(data)))
    ]


BODIES = st.lists(st.binary(max_size=40), min_size=1, max_size=5)


@given(BODIES, st.data())
def test_a_cut_file_yields_exactly_the_frames_before_the_cut(bodies, data):
    stored, ends = written(bodies)
    cut = data.draw(st.integers(0, len(stored)))
    assert firsts(stored[:cut]) == [n + 1 for n, end in enumerate(ends) if end <= cut]


@given(BODIES, st.data())
def test_a_flipped_bit_costs_one_frame_and_is_never_read_as_data(bodies, data):
    stored, ends = written(bodies)
    at = data.draw(st.integers(0, len(stored) - 1))
    stored[at] ^= 1 << data.draw(st.integers(0, 7))
    hit = next(n for n, end in enumerate(ends) if at < end)
    frames = list(scan(memoryview(bytes(stored))))
    whole = [
        msgspec.msgpack.decode(f.head, type=RowsHead).first for f in frames if f.body is not None
    ]
    assert whole == [n + 1 for n in range(len(bodies)) if n != hit]


def test_a_body_that_holds_the_magic_does_not_confuse_the_search():
    stored, _ = written([b"TLS1" * 5, b"x"])
    stored[3] ^= 1
    assert firsts(stored) == [2]


def test_reading_past_the_end_says_so():
    with pytest.raises(FrameCorrupt, match="offset 0: 3 bytes left"):
        frame_at(memoryview(b"abc"), 0)
