"""What feedback needs to know of answered requests: whose they were, when, and what was answered.

A chunk holds the requests of one stream that were counted together, as plain arrays; the index
finds a request in all of them. Ids are hashed to 64 bits: among a million remembered requests an
unknown one is taken for a known one once in 10^13 times.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from monitoring.events import Stream
from monitoring.live.window import StreamKey

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

NO_LABEL: Final = -1  # an answer that is no class of the stream


class Chunk(msgspec.Struct, frozen=True, array_like=True):
    """``requests``, ``starts_s`` (of the finest window) and ``rows`` per request; per row
    ``labels``, as places in ``classes``, or the ``numbers`` of a regression. Little-endian int64,
    int64, int32, int16 and float64.
    """

    classes: tuple[str, ...]
    requests: bytes
    starts_s: bytes
    rows: bytes
    labels: bytes
    numbers: bytes = b""  # older releases remembered none

    def row_counts(self) -> Ints:
        return np.frombuffer(self.rows, np.int32).astype(np.int64)

    def outputs(self) -> Floats:
        """Return what was answered per row: a class's place, or a number."""
        if self.numbers:
            return np.frombuffer(self.numbers, np.float64)
        codes = np.frombuffer(self.labels, np.int16).astype(np.float64)
        return codes if self.classes else np.full(len(codes), np.nan)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answered request, remembered in ``chunk``; ``outputs`` has one entry per row: a class, a
    regression's number, or None where neither is known.
    """

    chunk: int
    key: StreamKey
    start_s: int
    outputs: tuple[str | float | None, ...]


def hashed(request_id: str) -> bytes:
    return hashlib.blake2b(request_id.encode(), digest_size=8).digest()


def request_number(request_id: str) -> int:
    """Return the hash of an id as a signed number, as SQLite keeps it."""
    return int.from_bytes(hashed(request_id), "little", signed=True)


def chunk_of(rows: pa.RecordBatch, stream: Stream, finest_s: int) -> Chunk:
    """Remember answered rows, the rows of a request one after the other."""
    firsts = np.flatnonzero(rows.column("row").to_numpy(zero_copy_only=False) == 0)
    ids = rows.column("request_id").take(pa.array(firsts)).to_pylist()
    ts_us = rows.column("ts").view(pa.int64()).to_numpy(zero_copy_only=False)[firsts]
    labels, numbers = b"", b""
    if stream.task == "regression":
        numbers = rows.column("score").to_numpy(zero_copy_only=False).tobytes()  # a null is a NaN
    else:
        places = pc.index_in(rows.column("label"), pa.array(stream.classes, pa.string()))
        codes = pc.fill_null(places, NO_LABEL).to_numpy(zero_copy_only=False)
        labels = codes.astype(np.int16).tobytes()
    return Chunk(
        classes=stream.classes,
        requests=b"".join(map(hashed, ids)),
        starts_s=(ts_us // (finest_s * 1_000_000) * finest_s).astype(np.int64).tobytes(),
        rows=np.diff(np.append(firsts, rows.num_rows)).astype(np.int32).tobytes(),
        labels=labels,
        numbers=numbers,
    )


@dataclass(frozen=True, slots=True)
class _Part:
    """Requests in order of their hash. ``streams`` are places in the index's list of streams,
    ``offsets`` places of a request's first row in ``outputs``.
    """

    requests: Ints
    chunks: Ints
    streams: Ints
    starts_s: Ints
    rows: Ints
    offsets: Ints
    outputs: Floats


class AnswerIndex:
    """Finds requests among the chunks that were added, which come in order of their numbers.

    Parts grow like those of a merge sort, so that adding costs a request the logarithm of all, and
    a look goes through as many parts.
    """

    def __init__(self) -> None:
        self.newest = 0  # number of the last chunk
        self._oldest = 0
        self._streams: list[tuple[StreamKey, tuple[str, ...]]] = []
        self._parts: list[_Part] = []

    def add(self, number: int, key: StreamKey, chunk: Chunk) -> None:
        stream = (key, chunk.classes)
        if stream not in self._streams:
            self._streams.append(stream)
        rows = chunk.row_counts()
        part = _Part(
            requests=np.frombuffer(chunk.requests, np.int64),
            chunks=np.full(len(rows), number, np.int64),
            streams=np.full(len(rows), self._streams.index(stream), np.int64),
            starts_s=np.frombuffer(chunk.starts_s, np.int64),
            rows=rows,
            offsets=np.cumsum(rows) - rows,
            outputs=chunk.outputs(),
        )
        self.newest = number
        self._parts.append(self._joined([part]))
        while len(self._parts) > 1 and _size(self._parts[-2]) <= 2 * _size(self._parts[-1]):
            self._parts[-2:] = [self._joined(self._parts[-2:])]

    def forget(self, through: int) -> None:
        """Find nothing any more in chunks up to a number; joining parts frees their memory."""
        self._oldest = through + 1

    def find(self, model: str, request: int) -> Iterator[Answer]:
        """Yield every answer to a request: of champion and shadow, and of an id used twice."""
        for part in self._parts:
            low = int(np.searchsorted(part.requests, request))
            for at in range(low, len(part.requests)):
                if part.requests[at] != request:
                    break
                key, classes = self._streams[part.streams[at]]
                if key.model == model and part.chunks[at] >= self._oldest:
                    first = part.offsets[at]
                    outputs = part.outputs[first : first + part.rows[at]].tolist()
                    yield Answer(
                        chunk=int(part.chunks[at]),
                        key=key,
                        start_s=int(part.starts_s[at]),
                        outputs=tuple(_said(output, classes) for output in outputs),
                    )

    def _joined(self, parts: list[_Part]) -> _Part:
        """Join parts into one in order of the requests, without what is forgotten."""
        shifts = np.cumsum([0, *(len(part.outputs) for part in parts)])
        requests = np.concatenate([part.requests for part in parts])
        chunks = np.concatenate([part.chunks for part in parts])
        order = np.argsort(requests, kind="stable")
        order = order[chunks[order] >= self._oldest]
        offsets = np.concatenate(
            [part.offsets + shift for part, shift in zip(parts, shifts, strict=False)]
        )[order]
        rows = np.concatenate([part.rows for part in parts])[order]
        new_offsets = np.cumsum(rows) - rows
        places = np.repeat(offsets - new_offsets, rows) + np.arange(rows.sum())
        return _Part(
            requests=requests[order],
            chunks=chunks[order],
            streams=np.concatenate([part.streams for part in parts])[order],
            starts_s=np.concatenate([part.starts_s for part in parts])[order],
            rows=rows,
            offsets=new_offsets,
            outputs=np.concatenate([part.outputs for part in parts])[places],
        )


def _said(output: float, classes: tuple[str, ...]) -> str | float | None:
    if not classes:
        return output
    return None if output == NO_LABEL else classes[int(output)]


def _size(part: _Part) -> int:
    return len(part.requests)
