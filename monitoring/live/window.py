"""One window of one stream: its figures and, where a baseline is known, its drift summary."""

from dataclasses import dataclass, field
from typing import Final

import msgspec
import pyarrow as pa

from monitoring.analysis.drift.errors import DriftError
from monitoring.analysis.drift.layout import Layout
from monitoring.analysis.drift.summary import WindowSummary
from monitoring.events import Stream
from monitoring.live.expectations import Expectation
from monitoring.live.figures import WindowFigures

# A summary is mostly zeros. zlib took a quarter of the time of counting.
CODEC: Final = "lz4"
SIZE_BYTES: Final = 4


class StreamKey(msgspec.Struct, frozen=True, array_like=True, order=True):
    """Whose windows these are."""

    model: str
    version: str
    variant: str


def key_of(stream: Stream) -> StreamKey:
    return StreamKey(stream.model, stream.version, stream.variant)


class _Stored(msgspec.Struct, array_like=True):
    figures: WindowFigures
    layout: str | None
    summary: bytes | None


@dataclass(slots=True)
class LiveWindow:
    """``summary`` may hold fewer rows than ``figures``: those that came while a baseline was known.

    A summary of another baseline than today's (the bundle or its masking has changed) is dropped
    when the two meet, the figures stay.
    """

    figures: WindowFigures = field(default_factory=WindowFigures)
    summary: WindowSummary | None = None

    def update(self, batch: pa.RecordBatch, stream: Stream, expected: Expectation) -> str | None:
        """Count a batch; return why its rows could not be summarised, if so."""
        answered = self.figures.update(batch, stream, expected.limits)
        profile = expected.profile
        if profile is None or answered.num_rows == 0:
            return None
        if self.summary is None:
            self.summary = WindowSummary(profile.layout)
        try:
            self.summary.update(answered)
        except DriftError as error:
            return str(error)
        return None

    def merge(self, other: "LiveWindow") -> None:
        self.figures.merge(other.figures)
        mine, theirs = self.summary, other.summary
        if mine is None or theirs is None:
            self.summary = mine or theirs
        elif mine.layout.identity == theirs.layout.identity:
            mine.merge(theirs)
        else:
            self.summary = theirs

    def to_bytes(self) -> bytes:
        """Return the same bytes for the same counts, in whatever order they came."""
        summary = self.summary
        self.figures.sort()
        stored = _Stored(
            figures=self.figures,
            layout=None if summary is None else summary.layout.identity,
            summary=None if summary is None else summary.to_bytes(),
        )
        data = msgspec.msgpack.encode(stored)
        packed: bytes = pa.compress(data, codec=CODEC, asbytes=True)
        return len(data).to_bytes(SIZE_BYTES, "little") + packed


def window_of_bytes(data: bytes, layout: Layout | None) -> LiveWindow:
    """Read a window back; without its own baseline's layout, only its figures."""
    size = int.from_bytes(data[:SIZE_BYTES], "little")
    plain = pa.decompress(data[SIZE_BYTES:], size, codec=CODEC)
    stored = msgspec.msgpack.decode(plain, type=_Stored)
    summary = None
    if layout is not None and stored.summary is not None and stored.layout == layout.identity:
        summary = WindowSummary.from_bytes(layout, stored.summary)
    return LiveWindow(figures=stored.figures, summary=summary)
