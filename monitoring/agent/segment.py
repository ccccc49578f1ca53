"""One spool segment on disk: appended to while open, then sealed, read, deleted."""

import logging
import mmap
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from monitoring.agent.durable import sync_folder
from monitoring.agent.ledger import Tally
from monitoring.agent.parquet import covered, read_account
from monitoring.agent.spool_frames import Kind, OpenHead, RowsHead, SealHead, encode, scan
from monitoring.events import Stream

log = logging.getLogger(__name__)

SUFFIX = ".spool"


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedSegment:
    """A segment whose content is final. ``account`` is by producer, ``written`` still pending."""

    name: str
    path: Path
    bytes: int
    opened_at_s: float
    account: dict[str, Tally]


@dataclass(slots=True, kw_only=True)
class OpenSegment:
    """A segment that takes frames. Not thread-safe: its owner holds the shard's lock.

    A write that fails is cut off again, so that the file ends with a whole frame; a file that
    cannot even be cut is closed for good (``broken``), and readers skip its torn tail.
    """

    name: str
    path: Path
    stream: Stream
    hour: int
    opened_at_s: float
    descriptor: int
    bytes: int = 0
    frames: int = 0
    appended_at_s: float = 0.0
    dirty: bool = True
    listed: bool = False  # its name is on disk too
    broken: bool = False
    account: dict[str, Tally] = field(default_factory=dict)

    def append(self, head: RowsHead, body: memoryview, now_s: float) -> None:
        """Write one run; it survives the death of this process when this returns."""
        self._write(Kind.ROWS, head, body)
        self.account.setdefault(head.producer, Tally()).add(covered(head))
        self.frames += 1
        self.appended_at_s = now_s

    def sync(self) -> None:
        """Force what was appended, and the first time the file's name, to disk."""
        if self.dirty:
            os.fdatasync(self.descriptor)
            self.dirty = False
        if not self.listed:
            sync_folder(self.path.parent)
            self.listed = True

    def seal(self, now_s: float) -> SealedSegment:
        """Write the last frame, force everything to disk and close the file."""
        if not self.broken:
            self._write(Kind.SEAL, SealHead(sealed_at_s=now_s, frames=self.frames), memoryview(b""))
            self.sync()
        return self.close()

    def close(self) -> SealedSegment:
        """Close the file as it is; whoever calls must never append again."""
        os.close(self.descriptor)
        return SealedSegment(
            name=self.name,
            path=self.path,
            bytes=self.bytes,
            opened_at_s=self.opened_at_s,
            account=self.account,
        )

    def open_frame(self, head: OpenHead) -> None:
        self._write(Kind.OPEN, head, memoryview(b""))

    def _write(self, kind: Kind, head: msgspec.Struct, body: memoryview) -> None:
        front, length = encode(kind, head, body)
        try:
            _write_all(self.descriptor, (memoryview(front), body), length)
        except OSError:
            try:
                os.ftruncate(self.descriptor, self.bytes)
            except OSError:
                self.broken = True
                raise
            raise
        self.bytes += length
        self.dirty = True


def _write_all(descriptor: int, parts: Sequence[memoryview], length: int) -> None:
    """Write all parts; a system may take fewer bytes than asked for, above all on a full disk."""
    written = os.writev(descriptor, parts)
    if written < length:
        rest = memoryview(b"".join(parts))[written:]
        while rest:
            rest = rest[os.write(descriptor, rest) :]


def create(folder: Path, head: OpenHead, hour: int) -> OpenSegment:
    """Make a new segment file with its opening frame."""
    path = folder / f"{head.segment}{SUFFIX}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
    segment = OpenSegment(
        name=head.segment,
        path=path,
        stream=head.stream,
        hour=hour,
        opened_at_s=head.opened_at_s,
        appended_at_s=head.opened_at_s,
        descriptor=os.open(path, flags, 0o600),
    )
    try:
        segment.open_frame(head)
    except OSError:
        os.close(segment.descriptor)
        path.unlink()
        raise
    return segment


def map_file(path: Path) -> memoryview:
    """Map a segment for reading; the map lives as long as anything points into it."""
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            return memoryview(b"")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def new_runs(view: memoryview, start: int) -> tuple[list[RowsHead], int]:
    """Return the runs after an offset and the offset behind the last of them."""
    runs = []
    for frame in scan(view, start):
        start = frame.end
        if frame.kind is Kind.ROWS:
            runs.append(msgspec.msgpack.decode(frame.head, type=RowsHead))
    return runs, start


def recover(path: Path, now_s: float) -> tuple[SealedSegment | None, list[RowsHead]]:
    """Make a dead agent's segment final: cut its torn tail, seal it; None when it holds nothing.

    A last frame whose body does not hold was never whole on disk and is cut as well; one in the
    middle stays, and its rows are booked as lost when the file is built. On a full disk the seal is
    left out: nobody writes to the file again, and its upload is what frees the disk. Raises
    ``FrameCorrupt`` when the opening frame is lost.
    """
    view = map_file(path)
    good = 0
    for frame in scan(view):
        if frame.body is not None:
            good = frame.end
    if good == 0:
        path.unlink()
        return None, []
    if good < len(view):
        os.truncate(path, good)
    account = read_account(view[:good])
    runs = [head for _, head in account.runs]
    if not runs:
        path.unlink()
        return None, []
    segment = OpenSegment(
        name=account.opening.segment,
        path=path,
        stream=account.opening.stream,
        hour=0,
        opened_at_s=account.opening.opened_at_s,
        descriptor=os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC),
        bytes=good,
        frames=len(runs),
    )
    for head in runs:
        segment.account.setdefault(head.producer, Tally()).add(covered(head))
    if account.sealed:
        return segment.close(), runs
    return seal_or_close(segment, now_s), runs


def seal_or_close(segment: OpenSegment, now_s: float) -> SealedSegment:
    """Seal a segment, or close it as it is when the disk takes no more: it is as final."""
    try:
        return segment.seal(now_s)
    except OSError as error:
        log.warning("segment %s closed without its seal: %s", segment.name, error)
    try:
        segment.sync()  # its rows are acknowledged, with or without a seal
    except OSError as error:
        log.error("segment %s may not outlive a loss of power: %s", segment.name, error)
    return segment.close()
