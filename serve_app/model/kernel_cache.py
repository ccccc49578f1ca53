"""Where compiled kernels are kept between processes.

numba itself honours ``NUMBA_CACHE_DIR``, else writes beside the source, else (a read-only
installation) to the user's cache folder. Where none of these can be written, as in many containers,
a private folder under the system's temporary one serves; a cache holds machine code, so a folder
that others could have written is never used.
"""

import logging
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba

logger = logging.getLogger(__name__)


def private_folder(root: Path, user_id: int) -> Path | None:
    """Make or reuse a folder under ``root`` that only this user can write; None if it is not so."""
    folder = root / f"treeline-numba-{user_id}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError as error:
        logger.warning("no folder for compiled kernels at %s: %s", folder, error)
        return None
    private = stat.S_ISDIR(status.st_mode) and not status.st_mode & 0o022
    return folder if private and status.st_uid == user_id else None


def cached_jit(function: Callable[..., Any]) -> Any:
    """Compile lazily, without the GIL, and keep the machine code on disk if any place allows it."""
    try:
        return numba.njit(nogil=True, cache=True)(function)
    except RuntimeError as error:  # numba: "no locator available for file"
        logger.info("numba finds no folder of its own for compiled kernels: %s", error)
    folder = private_folder(Path(tempfile.gettempdir()), os.getuid())
    if folder is None:
        logger.warning("kernels are compiled anew by every process; set NUMBA_CACHE_DIR")
        return numba.njit(nogil=True)(function)
    numba.config.CACHE_DIR = str(folder)  # type: ignore[attr-defined]  # made at run time
    return numba.njit(nogil=True, cache=True)(function)
