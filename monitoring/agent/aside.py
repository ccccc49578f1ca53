"""Rows that are not stored but still count in the live windows, until they have been counted.

``<epoch>/aside-<number>`` holds them as Arrow IPC messages, one after the other. The frame of a run
says where its rows lie, so it is the frame that makes them count: what no frame points to was
written by an agent that died, and is nothing.

Past ``max_bytes`` rows are not kept, which the live windows report as missed events.
"""

import os
import zlib
from pathlib import Path
from typing import Final

import msgspec
import pyarrow as pa

from monitoring.events import FEATURE_PREFIX, Stream, batch_schema

PREFIX: Final = "aside-"
FILE_BYTES: Final = 32 * 1024 * 1024
COUNTED: Final = ("ts", "row", "request_id", "status", "latency_ms", "label", "score")


class Aside(msgspec.Struct, frozen=True):
    """Where a run's rows lie, in a file beside its segment."""

    file: str
    start: int
    bytes: int
    rows: int
    crc: int


def counted_schema(stream: Stream) -> pa.Schema:
    """Columns that live windows look at: no ids of people, no probabilities."""
    wanted = {*COUNTED, *(FEATURE_PREFIX + feature.name for feature in stream.features)}
    return pa.schema([field for field in batch_schema(stream) if field.name in wanted])


class AsideLog:
    """Belongs to a spool, whose mutex the caller holds. Files of dead agents are only read."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._sizes: dict[int, int] = {}
        self._number = 0
        self._descriptor: int | None = None

    def append(self, rows: pa.RecordBatch) -> Aside | None:
        """Keep rows of ``counted_schema``; None where there is no room. Raises ``OSError``."""
        body = memoryview(rows.serialize())
        if sum(self._sizes.values()) + len(body) > self._max_bytes:
            return None
        if self._sizes.get(self._number, 0) >= FILE_BYTES:
            self.turn()
        start = self._sizes.get(self._number, 0)
        self._write(body)
        self._sizes[self._number] = start + len(body)
        return Aside(
            file=f"{PREFIX}{self._number:06d}",
            start=start,
            bytes=len(body),
            rows=rows.num_rows,
            crc=zlib.crc32(body),
        )

    def _write(self, body: memoryview) -> None:
        if self._descriptor is None:
            path = self._folder / f"{PREFIX}{self._number:06d}"
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
            self._descriptor = os.open(path, flags, 0o600)
            self._sizes[self._number] = 0
        while body:
            try:
                body = body[os.write(self._descriptor, body) :]
            except OSError:
                self.turn()  # whatever stands half written here is never pointed to
                raise

    def turn(self) -> int:
        """Go on in a new file, if this one holds anything; return the number of the next one."""
        self.close()
        if self._number in self._sizes:
            self._number += 1
        return self._number

    def release(self, before: int) -> None:
        """Delete the files with lower numbers: everything in them has been counted."""
        for number in [n for n in self._sizes if n < before]:
            (self._folder / f"{PREFIX}{number:06d}").unlink(missing_ok=True)
            del self._sizes[number]

    def sync(self) -> None:
        if self._descriptor is not None:
            os.fdatasync(self._descriptor)

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def read_aside(folder: Path, place: Aside, schema: pa.Schema) -> pa.RecordBatch | None:
    """Read a run's rows back; None where they are gone or damaged."""
    try:
        with (folder / place.file).open("rb") as file:
            body = os.pread(file.fileno(), place.bytes, place.start)
    except FileNotFoundError:
        return None
    if len(body) != place.bytes or zlib.crc32(body) != place.crc:
        return None
    return pa.ipc.read_record_batch(pa.py_buffer(body), schema)
