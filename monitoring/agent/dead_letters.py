"""Spool segments that can never be stored, kept for people to look at, each beside its reason."""

import logging
import os
from pathlib import Path
from typing import Final

from monitoring.agent.durable import replace_file
from monitoring.agent.segment import map_file

log = logging.getLogger(__name__)

REASON_SUFFIX: Final = ".reason.txt"


class DeadLetters:
    """``<state_dir>/dead-letter``; past ``max_bytes`` only reasons are kept."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder = folder
        self._max_bytes = max_bytes

    def keep(self, path: Path, reason: str) -> None:
        """Keep a segment, once however often this is called.

        A link needs no room: on a full disk only uploads that go on can free any. Raises
        ``OSError`` where neither a link nor a copy can be made.
        """
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        target = self.folder / path.name
        if not target.exists():
            used = sum(kept.stat().st_size for kept in self.folder.iterdir())
            if used + path.stat().st_size > self._max_bytes:
                reason += f" (not kept: {used} bytes lie here already)"
            else:
                link_or_copy(path, target)
        try:
            replace_file(self.folder / f"{path.name}{REASON_SUFFIX}", f"{reason}\n".encode())
        except OSError as error:
            log.error("the reason of dead letter %s is only logged (%s): %s", target, error, reason)

    def names(self) -> tuple[str, ...]:
        """List what is kept, by name; empty where there is no folder.

        Names under a dot are parts of a file that a crash has left.
        """
        if not self.folder.is_dir():
            return ()
        names = (path.name for path in self.folder.iterdir())
        return tuple(sorted(n for n in names if n[0] != "." and not n.endswith(REASON_SUFFIX)))


def link_or_copy(path: Path, target: Path) -> None:
    try:
        os.link(path, target)
    except OSError:  # not every file system has links
        replace_file(target, map_file(path))
