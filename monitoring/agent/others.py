"""The other agents of a shard: what dead ones left is adopted, what living ones take in followed.

Belongs to a spool, whose shard lock the caller holds. Invariants:

- A segment is adopted only under its epoch's lock, which is kept until the segment is gone.
- A segment that cannot be read for good goes to the dead letters with its reason; one that cannot
  be read now stays, and its epoch is looked at again.
"""

import logging
from collections.abc import Collection, Iterator
from pathlib import Path

from monitoring.agent.dead_letters import DeadLetters
from monitoring.agent.epochs import Epochs
from monitoring.agent.received import Received
from monitoring.agent.segment import SUFFIX, SealedSegment, map_file, new_runs, recover
from monitoring.agent.spool_frames import RowsHead
from monitoring.errors import FrameCorrupt

log = logging.getLogger(__name__)


class Others:
    """Notes in ``received`` whatever it finds in other agents' segments."""

    def __init__(self, epochs: Epochs, received: Received, dead_letters: DeadLetters) -> None:
        self._epochs = epochs
        self._received = received
        self._dead_letters = dead_letters
        self._followed: dict[Path, int] = {}
        self._foreign = 0
        self._strays = 0

    @property
    def epochs(self) -> int:
        """How many lives of agents are not over or cannot be read."""
        return self._foreign + self._strays

    def adopt(self, held: Collection[Path], now_s: float) -> Iterator[SealedSegment]:
        """Take over the segments of epochs whose agent is gone, but those already ``held``.

        Each is the caller's as soon as it comes, whatever happens to the next.
        """
        self._strays = self._epochs.fetch_strays()
        for folder in self._epochs.others():
            yield from self._adopt_epoch(folder, held, now_s)

    def _adopt_epoch(
        self, folder: Path, held: Collection[Path], now_s: float
    ) -> Iterator[SealedSegment]:
        """Take an epoch whose agent is gone; an unreadable segment stays and is tried again.

        The epoch is finished only when every segment was taken; until then ``adopt`` looks again.
        """
        try:
            if not self._epochs.take(folder):
                return
        except OSError as error:
            log.warning("epoch %s cannot be locked and is tried again: %s", folder.name, error)
            return
        failed = False
        for path in sorted(set(folder.glob(f"*{SUFFIX}")).difference(held)):
            try:
                segment = self._adopt_segment(path, now_s)
            except OSError as error:
                log.warning("segment %s is tried again: %s", path.name, error)
                failed = True
                continue
            if segment is not None:
                yield segment
        if not failed:
            self._epochs.finish(folder)

    def _adopt_segment(self, path: Path, now_s: float) -> SealedSegment | None:
        """Seal a segment where its agent left it; None where nothing in it is to be stored."""
        if path.stem in self._received.settled:
            path.unlink()
            return None
        try:
            segment, runs = recover(path, now_s)
        except FrameCorrupt as error:
            kept = self._dead_letters.folder
            log.error("segment %s cannot be read: %s; kept under %s", path.name, error, kept)
            self._dead_letters.keep(path, str(error))
            path.unlink()
            return None
        self._note(runs, now_s)
        return segment

    def follow(self) -> None:
        """Learn what other living agents of this shard have received since the last look."""
        self._received.refresh()
        others = self._epochs.others()
        self._foreign = len(others)
        if not others:
            return
        followed = {}
        for path in (p for folder in others for p in folder.glob(f"*{SUFFIX}")):
            followed[path] = self._followed.get(path, 0)
            stat = path.stat()
            if stat.st_size > followed[path]:
                runs, followed[path] = new_runs(map_file(path), followed[path])
                self._note(runs, stat.st_mtime)
        self._followed = followed

    def _note(self, runs: Collection[RowsHead], now_s: float) -> None:
        for head in runs:
            self._received.add(head.producer, head.first, head.last, now_s)
