"""From the spool into the windows: every received row once, sampled out or not.

The spool's frames are the events that were received, exactly once each; counting follows them, as
a reader with an offset. What is counted and how far is committed together (``store``), so nothing
is counted twice or left out, wherever a process dies.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from monitoring.agent.aside import counted_schema, read_aside
from monitoring.agent.ingest import frame_schema
from monitoring.agent.segment import map_file
from monitoring.agent.spool_frames import Frame, Kind, OpenHead, RowsHead, scan
from monitoring.analysis.drift.layout import Layout
from monitoring.errors import FrameCorrupt
from monitoring.events import FEATURE_PREFIX, Stream
from monitoring.live.answers import chunk_of, request_number
from monitoring.live.expectations import Expectations
from monitoring.live.figures import OK_STATUS
from monitoring.live.outcome_tables import Feedback
from monitoring.live.outcomes import Word
from monitoring.live.store import Delta, Progress, Store
from monitoring.live.window import LiveWindow, StreamKey, key_of

log = logging.getLogger(__name__)

# A summary's update costs a quarter of a millisecond however small; so rows are gathered first.
COMMIT_ROWS: Final = 65_536


@dataclass(slots=True)
class _Gathered:
    """Rows read and not counted yet, by stream, and how far each segment has been read."""

    batches: dict[Stream, list[pa.RecordBatch]] = field(default_factory=dict)
    missed: dict[Stream, int] = field(default_factory=dict)
    progress: dict[str, Progress] = field(default_factory=dict)
    rows: int = 0

    def take(self, stream: Stream, batch: pa.RecordBatch) -> None:
        self.batches.setdefault(stream, []).append(batch)
        self.rows += batch.num_rows

    def reach(self, segment: str, begun: int, counted: int) -> None:
        """Note that a segment has been read on from ``begun`` to ``counted``."""
        if segment in self.progress:
            begun = self.progress[segment].begun
        self.progress[segment] = Progress(segment=segment, begun=begun, counted=counted)

    def miss(self, stream: Stream, events: int) -> None:
        self.missed[stream] = self.missed.get(stream, 0) + events


class Counting:
    """Belongs to one thread. ``clock`` gives seconds since 1970."""

    def __init__(
        self,
        store: Store,
        expectations: Expectations,
        clock: Callable[[], float],
        *,
        remember: bool = True,
    ) -> None:
        """``remember`` keeps the answers that feedback will be about."""
        self._remember = remember
        self.store = store
        self._expectations = expectations
        self._clock = clock
        self._streams: dict[str, Stream] = {}
        self._complaints: dict[StreamKey, str] = {}
        self._unreadable: set[str] = set()

    def count(self, segments: list[tuple[Path, int]]) -> int:
        """Count what segments hold up to the given bytes and is not counted yet; return the rows.

        Raises ``CountedElsewhere``, ``sqlite3.Error`` or ``OSError``; what was not committed is
        counted next time.
        """
        rows = 0
        gathered = _Gathered()
        for path, end in segments:
            begun = self.store.counted(path.stem)
            unread = begun < end and path.stem not in self._unreadable
            view = _view(path, end) if unread else memoryview(b"")
            stream = self._stream_of(path, view) if view else None
            if stream is None:
                continue
            for frame in scan(view, begun):
                if frame.kind is Kind.ROWS:
                    self._take(stream, path, frame, gathered)
                gathered.reach(path.stem, begun, frame.end)
                begun = frame.end
                if gathered.rows >= COMMIT_ROWS:
                    rows += self._commit(gathered)
                    gathered = _Gathered()
        rows += self._commit(gathered)
        present = {path.stem for path, _ in segments}
        self._streams = {name: s for name, s in self._streams.items() if name in present}
        self._unreadable &= present
        return rows

    def _stream_of(self, path: Path, view: memoryview) -> Stream | None:
        """Find whose rows a segment holds; None where that is lost, and the others count on."""
        if path.stem not in self._streams:
            try:
                self._streams[path.stem] = stream_of(view)
            except FrameCorrupt as error:
                log.error("segment %s is not counted live: %s", path.stem, error)
                self._unreadable.add(path.stem)
        return self._streams.get(path.stem)

    def forget(self, segments: list[tuple[Path, int]]) -> None:
        self.store.forget(self._clock(), {path.stem for path, _ in segments})

    def complaint(self, key: StreamKey) -> str | None:
        """Say why a stream's rows could not be summarised, of late."""
        return self._complaints.get(key)

    def _take(self, stream: Stream, path: Path, frame: Frame, gathered: _Gathered) -> None:
        head = msgspec.msgpack.decode(frame.head, type=RowsHead)
        if stream.kind == "feedback":
            here = self._remember and not head.decided  # its answers are counted there too
            if here and head.rows and frame.body is not None:
                schema = frame_schema(stream)
                gathered.take(stream, pa.ipc.read_record_batch(pa.py_buffer(frame.body), schema))
            return
        columns = counted_schema(stream)
        if head.decided:  # that node's own windows may hold them, and its agent may come back
            gathered.miss(stream, head.written + head.sampled_out)
            return
        if head.rows:
            if frame.body is None:
                gathered.miss(stream, head.written)
            else:
                whole = pa.ipc.read_record_batch(pa.py_buffer(frame.body), frame_schema(stream))
                gathered.take(stream, whole.select(columns.names))
        if head.sampled_out:
            aside = None
            if head.aside is not None:
                aside = read_aside(path.parent, head.aside, columns)
            if aside is None:
                gathered.miss(stream, head.sampled_out)
            else:
                gathered.take(stream, aside)

    def _commit(self, gathered: _Gathered) -> int:
        if not gathered.progress:
            return 0
        deltas: dict[StreamKey, Delta] = {}
        layouts: dict[StreamKey, Layout | None] = {}
        for stream in {*gathered.batches, *gathered.missed}:
            key = key_of(stream)
            delta = deltas.setdefault(key, Delta())
            if stream.kind == "feedback":
                layouts[key] = None
                for batch in gathered.batches[stream]:
                    delta.feedback += feedback_of(batch)
                continue
            delta.missed_events += gathered.missed.get(stream, 0)
            profile = self._expectations.of(key.model, key.version).profile
            layouts[key] = profile.layout if profile else None
            batches = gathered.batches.get(stream)
            if batches:
                self._count(stream, batches, delta)
        self.store.add(deltas, list(gathered.progress.values()), layouts, self._clock())
        return gathered.rows

    def _count(self, stream: Stream, batches: list[pa.RecordBatch], delta: Delta) -> None:
        """Count a stream's rows into windows of the finest level."""
        key = key_of(stream)
        (rows,) = pa.Table.from_batches(batches).combine_chunks().to_batches()
        expected = self._expectations.of(key.model, key.version)
        if self._remember:
            answered = rows.filter(pc.equal(rows.column("status"), OK_STATUS))
            if answered.num_rows:
                delta.answers.append(chunk_of(answered, stream, self.store.finest_s))
        for start_s, part in split_by_time(rows, self.store.finest_s):
            window = delta.windows.setdefault(start_s, LiveWindow())
            complaint = window.update(part, stream, expected)
            if complaint is not None and self._complaints.get(key) != complaint:
                log.warning("%s %s: not looked at for drift: %s", key.model, key.version, complaint)
            if complaint is None:
                self._complaints.pop(key, None)
            else:
                self._complaints[key] = complaint


def feedback_of(batch: pa.RecordBatch) -> list[Feedback]:
    """Read the frames of a feedback stream; without a time of its own it is as old as it came."""
    names = ("kind", "value", "number", "row", "outcome_ts_us")
    columns = [batch.column(FEATURE_PREFIX + name).to_pylist() for name in names]
    arrived = batch.column("ts").view(pa.int64()).to_pylist()
    requests = map(request_number, batch.column("request_id").to_pylist())
    return [
        Feedback(
            request=request,
            row=row,
            kind=kind,
            word=Word(
                when_us=arrived_us if when_us is None else when_us,
                arrived_us=arrived_us,
                value=value,
                number=number,
            ),
        )
        for request, arrived_us, kind, value, number, row, when_us in zip(
            requests, arrived, *columns, strict=True
        )
    ]


def split_by_time(rows: pa.RecordBatch, step_s: int) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield the rows of each window with its start, in seconds since 1970."""
    ts = rows.column("ts").view(pa.int64()).to_numpy(zero_copy_only=False)
    numbers = ts // (step_s * 1_000_000)
    found = np.unique(numbers)
    for number in found.tolist():
        part = rows if len(found) == 1 else rows.filter(pa.array(numbers == number))
        yield int(number) * step_s, part


def _view(path: Path, end: int) -> memoryview:
    try:
        return map_file(path)[:end]
    except FileNotFoundError:
        return memoryview(b"")  # stored and deleted since; it was counted before


def stream_of(view: memoryview) -> Stream:
    for frame in scan(view):
        if frame.kind is Kind.OPEN:
            return msgspec.msgpack.decode(frame.head, type=OpenHead).stream
    raise FrameCorrupt("no opening frame: the segment's stream is unknown")
