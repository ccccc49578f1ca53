"""What the other shards of a state folder have received.

A producer belongs to one shard while the number of shards stays. When it changes, deliveries whose
acknowledgement got lost come again, to another shard. That shard asks here when it meets a producer
for the first time in its life.

Nothing is locked, so that two shards can never wait for each other. A number is in a segment or in
the checkpoint written before the segment's deletion, so segments are read first; where epochs were
moved between shards meanwhile, all is read again.
"""

from pathlib import Path
from typing import Final

from monitoring.agent.epochs import folders
from monitoring.agent.received import Received
from monitoring.agent.segment import SUFFIX, map_file, new_runs

ROUNDS: Final = 20


class Elsewhere:
    """Reads each frame of other shards once. Not thread-safe."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._accounts: dict[Path, Received] = {}
        self._read: dict[Path, int] = {}

    def received(self, producer: str) -> list[tuple[int, int]]:
        """Return ranges that other shards have, as of now; they may overlap.

        Raises ``OSError`` when they cannot be read; ask again later then.
        """
        for _ in range(ROUNDS):
            epochs = self._epochs()
            ends: dict[Path, int] = {}
            for shard, found in epochs.items():
                ends |= self._look(shard, found)
            self._read = ends
            if self._epochs() == epochs:
                accounts = self._accounts.values()
                return [r for account in accounts for r in account.held.get(producer, ())]
        raise OSError(f"the spools beside {self._folder} keep moving")

    def _epochs(self) -> dict[Path, list[Path]]:
        shards = (shard for shard in folders(self._folder.parent) if shard != self._folder)
        return {shard: folders(shard) for shard in shards}

    def _look(self, shard: Path, epochs: list[Path]) -> dict[Path, int]:
        """Read one shard and return how far into each of its segments."""
        ends = {}
        account = self._accounts.setdefault(shard, Received(shard))
        for path in (path for epoch in epochs for path in epoch.glob(f"*{SUFFIX}")):
            try:
                seen_at_s = path.stat().st_mtime
                runs, ends[path] = new_runs(map_file(path), self._read.get(path, 0))
            except FileNotFoundError:
                continue  # stored and in the checkpoint, or moved and found in the next round
            for head in runs:
                account.add(head.producer, head.first, head.last, seen_at_s)
        account.refresh()
        return ends
