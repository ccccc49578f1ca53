from hypothesis import given, settings
from hypothesis import strategies as st

from monitoring.capture.frames import MAGIC, encode_frame, is_torn, scan_frames

BODIES = [b"first", b"", b"third" + MAGIC + b"inside", b"x" * 50]
DATA = b"".join(encode_frame(seq, body) for seq, body in enumerate(BODIES, start=1))
ENDS = [f.end for f in scan_frames(DATA, complete=True)]


def read(data: bytes, *, complete: bool = True) -> list[tuple[int, bytes]]:
    return [(f.seq, bytes(f.body)) for f in scan_frames(data, complete=complete)]


@settings(deadline=None)
@given(st.lists(st.binary(max_size=200)))
def test_frames_round_trip(bodies: list[bytes]) -> None:
    expected = list(enumerate(bodies, start=1))
    data = b"".join(encode_frame(seq, body) for seq, body in expected)
    assert read(data) == expected
    assert read(data, complete=False) == expected


def test_truncation_at_every_byte_keeps_the_frames_before_it() -> None:
    for cut in range(len(DATA)):
        whole = sum(end <= cut for end in ENDS)
        assert read(DATA[:cut]) == list(enumerate(BODIES, start=1))[:whole]
        assert read(DATA[:cut], complete=False) == list(enumerate(BODIES, start=1))[:whole]


def test_a_flip_at_every_byte_costs_only_the_frame_it_is_in() -> None:
    frames = list(enumerate(BODIES, start=1))
    for at in range(len(DATA)):
        damaged = bytearray(DATA)
        damaged[at] ^= 0xFF
        hit = sum(end <= at for end in ENDS)
        found = list(scan_frames(bytes(damaged), complete=True))
        assert [(f.seq, bytes(f.body)) for f in found] == frames[:hit] + frames[hit + 1 :]
        assert [f.seq for f in found if f.skipped] == [f[0] for f in frames[hit + 1 : hit + 2]]


@settings(deadline=None)
@given(st.binary(max_size=300), st.integers(0, len(DATA)))
def test_rubbish_in_between_is_skipped(rubbish: bytes, cut: int) -> None:
    cut = max((end for end in ENDS if end <= cut), default=0)
    assert read(DATA[:cut] + rubbish + DATA[cut:]) == list(enumerate(BODIES, start=1))


def test_torn_means_a_prefix_of_the_next_frame() -> None:
    frame = encode_frame(7, b"body")
    assert all(is_torn(frame[:cut], next_seq=7) for cut in range(1, len(frame)))
    assert not is_torn(b"", next_seq=7)
    assert not is_torn(frame, next_seq=7)
    assert not is_torn(frame[:-1], next_seq=8)
    assert not is_torn(b"rubbish", next_seq=7)
