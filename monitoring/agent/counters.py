"""Counters that outlive the agent: what ``/metrics`` once showed never goes down again.

``<shard>/counts.msgpack`` holds the counters of each agent's life and the latest report of each
replica. Agents that live side by side change it in turn, under ``<shard>/counts.lock``: each writes
its own life and the reports it got, and takes everything else from the file.
"""

import fcntl
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from monitoring.agent.durable import replace_file
from monitoring.agent.fleet import AgentCounts, Fleet, FleetMemory, merge

log = logging.getLogger(__name__)

FILE_NAME: Final = "counts.msgpack"
MAX_LIVES: Final = 50


class Remembered(msgspec.Struct):
    """The file's content; ``past`` sums the oldest lives."""

    lives: dict[str, AgentCounts] = {}
    past: AgentCounts = msgspec.field(default_factory=AgentCounts)
    fleet: FleetMemory = msgspec.field(default_factory=FleetMemory)


class Counters:
    """May be used from any thread. ``others`` sums all lives but this one."""

    def __init__(self, folder: Path, epoch: str) -> None:
        self.others = AgentCounts()
        self._path = folder / FILE_NAME
        self._lock_path = folder / "counts.lock"
        self._epoch = epoch
        self._mutex = threading.Lock()

    def exchange(self, life: Callable[[], AgentCounts], fleet: Fleet) -> None:
        """Learn what the file has, and store this life's counters and the reports in it.

        Raises ``OSError`` on a full disk, after learning.
        """
        with self._mutex, self._lock_path.open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            stored = self._load()
            stored.lives.pop(self._epoch, None)
            while len(stored.lives) > MAX_LIVES:
                stored.past = merge([stored.past, stored.lives.pop(min(stored.lives))])
            self.others = merge([stored.past, *stored.lives.values()])
            stored.lives[self._epoch] = life()  # read under the lock: never older than the last
            noted = fleet.learn(stored.fleet)
            replace_file(self._path, msgspec.msgpack.encode(stored))
            fleet.forget_noted(noted)

    def _load(self) -> Remembered:
        try:
            return msgspec.msgpack.decode(self._path.read_bytes(), type=Remembered)
        except FileNotFoundError:
            return Remembered()
        except msgspec.DecodeError as error:
            log.error("%s cannot be read, counters start again: %s", self._path, error)
            self._path.replace(self._path.with_suffix(".unreadable"))
            return Remembered()
