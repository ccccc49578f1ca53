"""Drain the journals of replicas that have died.

A journal whose lock is free belongs to nobody: its process is gone, however it went. Whoever gets
the lock delivers what is left under the dead producer's own id and numbers, so the agent dedupes
as if the replica had sent it, and deletes the folder. The journals lie on the disk of their node:
run this on every node, as often as you like and in as many places at once.

What cannot be read is reported, not skipped: a hole between frames is ``unreadable`` where damaged
bytes lie in it, and otherwise what the marks say or ``lost_in_replica``. Behind the last frame
there may be the beginning of one more: its writer died inside ``record``, before the response
left, so it was never answered; its number is reported as ``torn``. Any other rubbish there
was at least one frame and counts as one ``unreadable`` number.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from monitoring.capture.backlog import START, Backlog, Position, Slice, unread
from monitoring.capture.dead_letters import DEAD_LETTER_FOLDER, DeadLetters
from monitoring.capture.drops import DropReason
from monitoring.capture.folder import STREAM_FILE, ProducerFolder, StreamDescription, sweep
from monitoring.capture.frames import is_torn, scan_frames
from monitoring.capture.sender import Sender, SenderSettings, Transport

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drained:
    """What became of one orphan; not ``finished`` means that the rest waits for the next drain."""

    producer: str
    first: int
    last: int
    acknowledged: int
    finished: bool


class OrphanJournal:
    """Read side of a dead producer's journal; the caller holds its lock."""

    def __init__(self, folder: ProducerFolder) -> None:
        self.description: StreamDescription = folder.description()
        self._folder = folder
        self._segments = folder.segments()
        self.acknowledged, self._drops = folder.marks()
        self._position: Position = START
        self.first = self.acknowledged + 1
        self.last = self._find_last()

    def backlog(self) -> Backlog | None:
        if self.last <= self.acknowledged:
            return None
        return Backlog(
            first=self.acknowledged + 1,
            last=self.last,
            position=self._position,
            segments=unread(self._segments, self._position),
            held=(),
            drops=self._drops.ranges(),
        )

    def release(self, delivered: Slice, through: int) -> None:
        self.acknowledged = max(self.acknowledged, min(through, self.last))
        if through >= delivered.last:
            self._position = delivered.position
        self._folder.write_acknowledged(self.acknowledged)

    def give_up(self, refused: Slice) -> None:
        self._drops.overwrite_each((event.seq for event in refused.events), DropReason.REJECTED)
        self._position = refused.position

    def _find_last(self) -> int:
        """The highest number that can be known; notes what lies behind the last frame."""
        frame = self._segments[-1][0] - 1 if self._segments else 0
        marked = max(self.acknowledged, self._drops.last.last if self._drops else 0)
        if not self._segments:
            return marked
        data = self._segments[-1][1].read_bytes()
        end = 0
        for found in scan_frames(data, complete=True):
            frame, end = found.seq, found.end
        last = max(frame, marked)
        tail = data[end:]
        if tail and last == frame:
            torn = is_torn(tail, next_seq=frame + 1)
            last = frame + 1
            self._drops.add(last, DropReason.TORN if torn else DropReason.UNREADABLE)
        return last


def find_orphans(root: Path) -> list[Path]:
    """Folders of journals under ``root`` whose producer is dead; empty when there is no root."""
    found = []
    for path in sorted(root.iterdir()) if root.is_dir() else []:
        if path.name.startswith(".") or not (path / STREAM_FILE).is_file():
            continue
        try:
            folder = ProducerFolder.adopt(path)
        except OSError as error:
            _log.error("journal %s cannot be looked at: %s", path, error)
            continue
        if folder is not None:
            found.append(path)
            folder.close()
    return found


async def drain_orphan(
    path: Path,
    transport: Transport,
    *,
    settings: SenderSettings,
    rng: random.Random,
    timeout_s: float,
) -> Drained | None:
    """Deliver one dead producer's journal and delete it; None when somebody else owns it.

    Raises OSError or msgspec.DecodeError when ``stream.json`` or the journal cannot be read.
    """
    folder = ProducerFolder.adopt(path)
    if folder is None:
        return None
    try:
        orphan = await asyncio.to_thread(OrphanJournal, folder)
        dead_letters = DeadLetters(path.parent / DEAD_LETTER_FOLDER, settings.dead_letter_bytes)
        sender = Sender(orphan, transport, dead_letters, settings=settings, rng=rng)
        finished = await sender.flush(timeout_s)
    except BaseException:
        folder.close()
        raise
    if finished:
        await asyncio.to_thread(folder.delete)
    else:
        folder.close()
    return Drained(
        producer=orphan.description.producer,
        first=orphan.first,
        last=orphan.last,
        acknowledged=orphan.acknowledged,
        finished=finished,
    )


async def drain_orphans(
    root: Path,
    transport_for: Callable[[str], Transport],
    *,
    settings: SenderSettings,
    rng: random.Random,
    timeout_s: float = 30.0,
) -> list[Drained]:
    """Drain every orphan under ``root``, each within ``timeout_s``.

    ``transport_for`` gives a producer's way to its agent. An orphan that can't be drained is
    logged and left where it is; the others come all the same.
    """
    try:
        await asyncio.to_thread(sweep, root)
    except OSError as error:
        _log.error("remains of journals under %s cannot be removed: %s", root, error)
    drained = []
    for path in await asyncio.to_thread(find_orphans, root):
        try:
            result = await drain_orphan(
                path, transport_for(path.name), settings=settings, rng=rng, timeout_s=timeout_s
            )
        except Exception as error:  # noqa: BLE001  one bad journal must not hold up the others
            _log.error("orphaned journal %s cannot be drained: %r", path, error)
            continue
        if result is not None:
            drained.append(result)
    return drained
