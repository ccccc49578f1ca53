"""The account of every event: what a file covers, what a shard has settled. Pure.

All counts are events (answered requests) unless they are called rows. For every range
``received == last - first + 1 == written + sampled_out + sum(dropped)``.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

HEAD_VERSION: Final = 1
FILES_PER_HEAD: Final = 200


class Covered(msgspec.Struct, frozen=True):
    """A closed range of one producer's numbers, and what became of its events."""

    first: int
    last: int
    received: int
    written: int
    sampled_out: int
    dropped: dict[str, int] = {}


Coverage = dict[str, list[Covered]]  # by producer, ranges in order


class FileEntry(msgspec.Struct, frozen=True):
    """One stored file, as the ledger's head lists it. ``file`` is relative to the sink."""

    file: str
    rows: int
    bytes: int
    coverage: Coverage


class Head(msgspec.Struct, frozen=True):
    """``<sink>/ledger/<shard>-<epoch>-<part>.json``: which files one epoch has stored."""

    shard: str
    epoch: str
    part: int
    files: tuple[FileEntry, ...]
    version: int = HEAD_VERSION


class Tally(msgspec.Struct):
    """Events of one producer by what became of them."""

    written: int = 0
    sampled_out: int = 0
    dropped: dict[str, int] = {}

    def add(self, part: "Tally | Covered") -> None:
        self.written += part.written
        self.sampled_out += part.sampled_out
        for reason, count in part.dropped.items():
            self.dropped[reason] = self.dropped.get(reason, 0) + count

    @property
    def settled(self) -> int:
        return self.written + self.sampled_out + sum(self.dropped.values())


def merged(ranges: Iterable[Covered]) -> list[Covered]:
    """Sort ranges and join those that follow each other without a hole."""
    joined: list[Covered] = []
    for part in sorted(ranges, key=lambda r: r.first):
        if joined and joined[-1].last + 1 == part.first:
            joined[-1] = _together(joined[-1], part)
        else:
            joined.append(part)
    return joined


def _together(left: Covered, right: Covered) -> Covered:
    reasons = sorted(left.dropped.keys() | right.dropped.keys())
    return Covered(
        first=left.first,
        last=right.last,
        received=left.received + right.received,
        written=left.written + right.written,
        sampled_out=left.sampled_out + right.sampled_out,
        dropped={r: left.dropped.get(r, 0) + right.dropped.get(r, 0) for r in reasons},
    )


def all_dropped(ranges: Iterable[Covered], reason: str) -> list[Covered]:
    """Book what would have been written as dropped instead."""
    return [
        msgspec.structs.replace(
            part,
            written=0,
            dropped={**part.dropped, reason: part.dropped.get(reason, 0) + part.written}
            if part.written
            else part.dropped,
        )
        for part in ranges
    ]


class ProducerLedger(msgspec.Struct, frozen=True):
    """``received == written + sampled_out + sum(dropped) + pending``, in events."""

    received: int
    written: int
    sampled_out: int
    dropped: dict[str, int]
    pending: int


class LiveLedger(msgspec.Struct, frozen=True):
    """The account of one shard; ``retired`` sums producers not heard of for long."""

    shard: str
    producers: dict[str, ProducerLedger]
    retired: ProducerLedger


def live_ledger(
    shard: str, settled: dict[str, Tally], waiting: dict[str, Tally], retired: Tally
) -> LiveLedger:
    """Join what is on storage with what is still in the spool, by producer."""
    return LiveLedger(
        shard=shard,
        producers={
            producer: _account(settled.get(producer, Tally()), waiting.get(producer, Tally()))
            for producer in sorted(settled.keys() | waiting.keys())
        },
        retired=_account(retired, Tally()),
    )


def total(ledgers: Iterable[LiveLedger]) -> ProducerLedger:
    """Sum every producer of every shard, forgotten ones included."""
    accounts = [a for ledger in ledgers for a in (*ledger.producers.values(), ledger.retired)]
    dropped: dict[str, int] = {}
    for account in accounts:
        for reason, count in account.dropped.items():
            dropped[reason] = dropped.get(reason, 0) + count
    return ProducerLedger(
        received=sum(a.received for a in accounts),
        written=sum(a.written for a in accounts),
        sampled_out=sum(a.sampled_out for a in accounts),
        dropped=dropped,
        pending=sum(a.pending for a in accounts),
    )


def _account(settled: Tally, waiting: Tally) -> ProducerLedger:
    dropped = dict(settled.dropped)
    for reason, count in waiting.dropped.items():
        dropped[reason] = dropped.get(reason, 0) + count
    return ProducerLedger(
        received=settled.settled + waiting.settled,
        written=settled.written,
        sampled_out=settled.sampled_out + waiting.sampled_out,
        dropped=dropped,
        pending=waiting.written,
    )
