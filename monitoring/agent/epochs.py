"""The epochs of one shard: one agent's life each, a folder under ``<state_dir>/spool/<shard>``.

Invariants:

- An agent holds ``<epoch>/lock`` while it lives; whoever can lock it may take its segments.
- A *stray* is a shard whose number nobody runs any more (``shards`` was lowered). When nobody lives
  in it, its epochs are moved into the shard that finds them, and are ordinary epochs there.
- A stray's lock is only tried, never waited for: two agents cannot wait for each other.
"""

import fcntl
import logging
import os
import random
import shutil
from pathlib import Path

from monitoring.agent.durable import sync_folder
from monitoring.agent.received import Received
from monitoring.agent.segment import SUFFIX

log = logging.getLogger(__name__)


def new_epoch(now_s: float, chance: random.Random) -> str:
    """Name an agent's life: its start in milliseconds, and chance against twins; sorts by time."""
    return f"{int(now_s * 1000):011x}{chance.getrandbits(32):08x}"


class Epochs:
    """Belongs to a spool, whose shard lock the caller holds."""

    def __init__(self, folder: Path, epoch: str, shards: int) -> None:
        self.own = folder / epoch
        self._folder = folder
        self._shards = shards
        self._own_lock: int | None = None
        self._taken: dict[Path, int] = {}
        self._finished: set[Path] = set()

    def claim(self) -> None:
        """Make one's own folder and lock it. Raises ``OSError`` and leaves nothing then."""
        self.own.mkdir()
        try:
            self._own_lock = try_lock(self.own)
        except OSError:
            self.own.rmdir()
            raise
        sync_folder(self._folder)

    def others(self) -> list[Path]:
        """List the epochs of other agents, and taken ones that still hold what could not be read.

        In order of time.
        """
        known = {self.own, *self._finished}
        return [folder for folder in folders(self._folder) if folder not in known]

    def take(self, folder: Path) -> bool:
        """Lock an epoch for the rest of this life; False when its agent is alive."""
        if folder in self._taken:
            return True
        descriptor = try_lock(folder)
        if descriptor is None:
            return False
        self._taken[folder] = descriptor
        return True

    def finish(self, folder: Path) -> None:
        """Note that every segment of a taken epoch waits for storage or is gone."""
        self._finished.add(folder)
        self.drop_if_empty(folder)

    def drop_if_empty(self, folder: Path) -> None:
        """Remove a finished epoch once its last segment is stored."""
        if folder in self._finished and not any(folder.glob(f"*{SUFFIX}")):
            shutil.rmtree(folder)
            self._finished.remove(folder)
            os.close(self._taken.pop(folder))
            sync_folder(self._folder)

    def fetch_strays(self) -> int:
        """Move epochs of shards that nobody runs here; return how many are still to be fetched."""
        waiting = 0
        for shard in folders(self._folder.parent):
            if shard.name.isdecimal() and int(shard.name) >= self._shards and shard != self._folder:
                self._fetch(shard)
                waiting += len(folders(shard))
        return waiting

    def _fetch(self, shard: Path) -> None:
        if not folders(shard):
            return
        shard_lock = try_lock(shard)
        if shard_lock is None:
            return
        locks: dict[Path, int] = {}
        try:
            for folder in folders(shard):
                descriptor = try_lock(folder)
                if descriptor is None:
                    return  # somebody lives there; what the others hold is theirs to take
                locks[folder] = descriptor
            self._move(shard, locks)
        except OSError as error:
            log.warning("shard %s is taken over later: %s", shard.name, error)
        finally:
            for descriptor in (*locks.values(), shard_lock):
                os.close(descriptor)

    def _move(self, shard: Path, locks: dict[Path, int]) -> None:
        account = Received(shard)
        account.refresh()
        for folder in list(locks):
            for path in folder.glob(f"*{SUFFIX}"):
                if path.stem in account.settled:
                    path.unlink()
            here = self._folder / folder.name
            folder.rename(here)
            self._taken[here] = locks.pop(folder)
            log.info("epoch %s of shard %s is taken over", folder.name, shard.name)
        sync_folder(self._folder)
        sync_folder(shard)

    def close(self) -> None:
        """Give everything back: the next agent takes it. An own epoch without segments goes."""
        if self._own_lock is not None and not any(self.own.glob(f"*{SUFFIX}")):
            shutil.rmtree(self.own, ignore_errors=True)
        for descriptor in (*self._taken.values(), self._own_lock):
            if descriptor is not None:
                os.close(descriptor)
        self._taken.clear()
        self._finished.clear()


def folders(parent: Path) -> list[Path]:
    """List the folders in a folder, in order of their names."""
    with os.scandir(parent) as entries:
        return [parent / name for name in sorted(e.name for e in entries if e.is_dir())]


def try_lock(folder: Path, name: str = "lock") -> int | None:
    """Lock a folder until the descriptor is closed; None when somebody else has it."""
    descriptor = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
