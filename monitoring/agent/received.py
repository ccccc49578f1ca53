"""Which numbers of which producer have been received, and what became of those on storage.

``received.msgpack`` is shared by all epochs of a shard and written under the shard's lock, always
before the spool segment it accounts for is deleted. ``settled`` names segments that are in the
account although their files may still lie there; recovery deletes those files.
"""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from monitoring.agent.durable import RESERVE_NAME, replace_file, with_reserve
from monitoring.agent.intervals import Intervals
from monitoring.agent.ledger import Coverage, Tally

log = logging.getLogger(__name__)

FILE_NAME: Final = "received.msgpack"


class ProducerState(msgspec.Struct):
    """One producer's entry in the checkpoint; ``held`` None means all of ``ranges``."""

    ranges: list[tuple[int, int]]
    tally: Tally
    seen_at_s: float
    held: list[tuple[int, int]] | None = None


class Checkpoint(msgspec.Struct):
    """The file's content; ``retired`` sums the producers that were forgotten."""

    producers: dict[str, ProducerState] = {}
    retired: Tally = msgspec.field(default_factory=Tally)
    settled: list[str] = []


class Received:
    """The account in memory, kept equal to the file wherever another process has changed it.

    ``intervals`` are the numbers that some agent has acknowledged, ``held`` those of them that are
    in a spool of this ``state_dir`` or were stored from it. The others lie on another node's disk,
    given away to it or received there, and are taken in when its spool is handed over.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE_NAME
        self._reserve = folder / RESERVE_NAME
        self._stamp: tuple[int, int, int] | None = None
        self.intervals: dict[str, Intervals] = {}
        self.held: dict[str, Intervals] = {}
        self.tallies: dict[str, Tally] = {}
        self.retired = Tally()
        self.settled: list[str] = []
        self._seen_at_s: dict[str, float] = {}

    def refresh(self) -> None:
        """Take over the file if it is not the one last read or written here."""
        try:
            stat = self._path.stat()
        except FileNotFoundError:
            return
        stamp = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        if stamp == self._stamp:
            return
        try:
            stored = msgspec.msgpack.decode(self._path.read_bytes(), type=Checkpoint)
        except msgspec.DecodeError as error:
            self._without_checkpoint(error)
            return
        for producer, state in stored.producers.items():
            for first, last in state.ranges:
                self.add_elsewhere(producer, first, last, state.seen_at_s)
            for first, last in state.ranges if state.held is None else state.held:
                self.add(producer, first, last, state.seen_at_s)
        self.tallies = {p: state.tally for p, state in stored.producers.items()}
        self.retired = stored.retired
        self.settled = stored.settled
        self._stamp = stamp

    def _without_checkpoint(self, error: msgspec.DecodeError) -> None:
        """Go on with what frames and deliveries say, which is nearly all; keep the file for people.

        Each delivery says what its producer has been acknowledged, and a segment that was stored
        and not deleted makes the same file again. Only a delivery that was stored and never
        acknowledged can come twice.
        """
        aside = self._path.with_suffix(".unreadable")
        log.error("%s cannot be read (%s); it is kept as %s", self._path, error, aside)
        self._path.replace(aside)

    def add(self, producer: str, first: int, last: int, now_s: float) -> None:
        """Note numbers that are in a spool here."""
        self.add_elsewhere(producer, first, last, now_s)
        self.held.setdefault(producer, Intervals()).add(first, last)

    def add_elsewhere(self, producer: str, first: int, last: int, now_s: float) -> None:
        """Note numbers that some agent has acknowledged."""
        self.intervals.setdefault(producer, Intervals()).add(first, last)
        self._seen_at_s[producer] = max(now_s, self._seen_at_s.get(producer, 0.0))

    def give_away(self, producer: str, first: int, last: int) -> None:
        """Note numbers that an agent on another disk holds now."""
        self.held.get(producer, Intervals()).remove(first, last)

    def missing(
        self, producer: str, first: int, last: int, *, held_here: bool = False
    ) -> list[tuple[int, int]]:
        known = (self.held if held_here else self.intervals).get(producer)
        return [(first, last)] if known is None else known.missing(first, last)

    def through(self, producer: str) -> int:
        known = self.intervals.get(producer)
        return 0 if known is None else known.through

    def settle(self, segment: str, coverage: Coverage, stale: Iterable[str] = ()) -> None:
        """Book a stored segment; twice changes nothing while its name is in ``settled``.

        ``stale`` names settled segments whose files are gone.
        """
        for name in stale:
            self.settled.remove(name)
        if segment in self.settled:
            return
        for producer, ranges in coverage.items():
            tally = self.tallies.setdefault(producer, Tally())
            for part in ranges:
                tally.add(part)
        self.settled.append(segment)

    def forget(self, before_s: float, busy: Iterable[str]) -> None:
        """Drop producers unheard of since ``before_s``; their sums stay in ``retired``."""
        keep = set(busy)
        for producer, seen in list(self._seen_at_s.items()):
            if seen < before_s and producer not in keep:
                del self._seen_at_s[producer]
                self.intervals.pop(producer, None)
                self.held.pop(producer, None)
                tally = self.tallies.pop(producer, None)
                if tally is not None:
                    self.retired.add(tally)

    def save(self) -> None:
        """Replace the file, forced to disk; a crash leaves the old or the new one whole."""
        stored = Checkpoint(
            producers={
                producer: ProducerState(
                    ranges=list(ranges),
                    tally=self.tallies.get(producer, Tally()),
                    seen_at_s=self._seen_at_s[producer],
                    held=list(self.held.get(producer, ())),
                )
                for producer, ranges in self.intervals.items()
            },
            retired=self.retired,
            settled=self.settled,
        )
        data = msgspec.msgpack.encode(stored)
        with_reserve(self._reserve, lambda: replace_file(self._path, data))
        stat = self._path.stat()
        self._stamp = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
