"""The folder of one producer's journal, and who owns it.

``<root>/<producer>/`` holds

- ``lock``: held with flock for the life of the process; a free lock means a dead producer;
- ``stream.json``: what an orphan drain needs to make deliveries (``StreamDescription``);
- ``marks``: the acknowledged number and the numbers without a frame, with reasons (``drops.py``);
- ``<number:020d>.journal``: segments of frames (``frames.py``), named after the lowest number they
  may hold, that is one more than the last frame of the segment before.

Invariants:

- The folder appears whole and locked, and goes whole: it is made as ``.new-<producer>`` and
  renamed, and renamed to ``.gone-<producer>`` before it is deleted. A crash in between leaves a
  hidden folder without events, which ``sweep`` removes.
- Only the holder of the lock writes or deletes here. A deleted folder's lock is worth nothing,
  so whoever gets a lock checks that its file is still in place.
"""

import fcntl
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

import msgspec

from monitoring.capture.drops import (
    RECORD_BYTES,
    DropLog,
    decode_marks,
    encode_acknowledged,
    encode_marks,
    encode_range,
)
from monitoring.events import Stream

LOCK_FILE: Final = "lock"
STREAM_FILE: Final = "stream.json"
MARKS_FILE: Final = "marks"
SEGMENT_SUFFIX: Final = ".journal"
_MARKS_BYTES: Final = 4096  # written once, so that a full disk does not stop the marks


class StreamDescription(msgspec.Struct, frozen=True, kw_only=True):
    """All that a delivery says about itself apart from its range."""

    producer: str
    stream: Stream
    policy_id: str
    node: str
    env: str


class ProducerFolder:
    """An owned folder. ``create`` makes a producer's own, ``adopt`` takes over a dead one's."""

    def __init__(self, path: Path, lock_fd: int, marks_fd: int) -> None:
        self.path = path
        self._lock_fd = lock_fd
        self._marks_fd = marks_fd

    @classmethod
    def create(
        cls, root: Path, description: StreamDescription, acknowledged: int, drops: DropLog
    ) -> Self:
        """Make the folder; raises OSError where that is impossible."""
        path = root / description.producer
        hidden = root / f".new-{description.producer}"
        shutil.rmtree(hidden, ignore_errors=True)
        hidden.mkdir(parents=True, mode=0o700)
        (hidden / LOCK_FILE).touch(mode=0o600)
        folder = cls._locked(hidden)
        try:
            folder.write_marks(acknowledged, drops)
            (hidden / STREAM_FILE).write_bytes(msgspec.json.encode(description))
            hidden.rename(path)
        except OSError:
            folder.close()
            raise
        folder.path = path
        return folder

    @classmethod
    def adopt(cls, path: Path) -> Self | None:
        """Take over a dead producer's folder; None when somebody owns it or it has just gone."""
        try:
            folder = cls._locked(path)
        except (BlockingIOError, FileNotFoundError):
            return None
        if folder.in_place() and (path / STREAM_FILE).exists():
            return folder
        folder.close()
        return None

    @classmethod
    def _locked(cls, path: Path) -> Self:
        lock_fd = os.open(path / LOCK_FILE, os.O_RDWR)
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            marks_fd = os.open(path / MARKS_FILE, os.O_RDWR | os.O_CREAT, 0o600)
            return cls(path, lock_fd, marks_fd)
        except OSError:
            os.close(lock_fd)
            raise

    def in_place(self) -> bool:
        """Whether the lock that is held is still the one in the folder."""
        try:
            return os.path.samestat(os.fstat(self._lock_fd), (self.path / LOCK_FILE).stat())
        except OSError:
            return False

    def description(self) -> StreamDescription:
        """Read ``stream.json``; raises OSError or msgspec.DecodeError."""
        content = (self.path / STREAM_FILE).read_bytes()
        return msgspec.json.decode(content, type=StreamDescription)

    def marks(self) -> tuple[int, DropLog]:
        return decode_marks(os.pread(self._marks_fd, os.fstat(self._marks_fd).st_size, 0))

    def write_marks(self, acknowledged: int, drops: DropLog) -> None:
        content = encode_marks(acknowledged, drops.ranges()).ljust(_MARKS_BYTES, b"\0")
        os.pwrite(self._marks_fd, content, 0)

    def write_acknowledged(self, through: int) -> None:
        os.pwrite(self._marks_fd, encode_acknowledged(through), 0)

    def write_last_drop(self, drops: DropLog) -> None:
        """Record 0 is the acknowledgement, so range ``n`` of ``n`` has the offset of record n."""
        os.pwrite(self._marks_fd, encode_range(drops.last), len(drops) * RECORD_BYTES)

    def segment_path(self, first: int) -> Path:
        return self.path / f"{first:020d}{SEGMENT_SUFFIX}"

    def segments(self) -> list[tuple[int, Path, int]]:
        """All segments in order: lowest number, path, size in bytes."""
        paths = sorted(self.path.glob(f"*{SEGMENT_SUFFIX}"))
        return [(int(p.stem), p, p.stat().st_size) for p in paths if p.stem.isdigit()]

    def close(self) -> None:
        os.close(self._marks_fd)
        os.close(self._lock_fd)

    def delete(self) -> None:
        """Remove everything and close; nobody can adopt a folder that is half gone.

        Raises OSError when that fails; the folder is closed all the same.
        """
        try:
            shutil.rmtree(self.path.rename(self.path.with_name(f".gone-{self.path.name}")))
        finally:
            self.close()


def sweep(root: Path) -> None:
    """Remove what crashes left of folders being made or deleted. Raises OSError."""
    for path in root.glob(".*-*") if root.is_dir() else ():
        if not path.name.startswith((".new-", ".gone-")):
            continue
        with suppress(BlockingIOError, FileNotFoundError):  # somebody else is at it
            fd = os.open(path / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path)
            finally:
                os.close(fd)
