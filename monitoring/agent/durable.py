"""Writes that survive a crash at any moment, and the few that must not fail on a full disk."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

RESERVE_NAME: Final = "reserve"
RESERVE_BYTES: Final = 4 * 1024 * 1024


def with_reserve(reserve: Path, write: Callable[[], None]) -> None:
    """Write; on a full disk give the reserve up and write again.

    A segment is deleted only after the checkpoint is written, so without a reserve a disk that
    others have filled would stay full for ever. The reserve is made again when there is room.
    """
    try:
        write()
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not reserve.exists():
            raise
        reserve.unlink()
        write()
        return
    if not reserve.exists():
        make_reserve(reserve)


def make_reserve(reserve: Path) -> None:
    """Set room aside; none left is no error, the reserve is only missing then."""
    try:
        descriptor = os.open(reserve, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return
    try:
        os.posix_fallocate(descriptor, 0, RESERVE_BYTES)
    except OSError:
        reserve.unlink()
    finally:
        os.close(descriptor)


def replace_file(path: Path, data: bytes | memoryview) -> None:
    """Write a file whole or not at all: temporary name, fsync, rename, fsync of the folder.

    What lies beside a spool is about people; nobody but its owner may read it.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(temporary, flags, 0o600), "wb") as file:
            os.fchmod(file.fileno(), 0o600)  # a temporary file left by a crash keeps its old mode
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)  # a part of it would take room on a full disk
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Force a folder's entries to disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
