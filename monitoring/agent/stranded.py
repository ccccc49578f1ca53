"""Hand over the spool of a node on which no agent lives any more to the agents that do.

Serve recreates an agent anywhere. What its predecessor has acknowledged lies on the predecessor's
node, and no replica will send it again. It is sent as deliveries that are ``decided``: the living
agent takes in what its own ``state_dir`` does not hold, whichever acknowledgements got lost, so
sending anything again is safe. Only what the predecessor itself had stored is in neither: storage
is asked for each segment's file first. Invariants:

- A segment is deleted only when its file is on storage or every run of it has been acknowledged.
- A segment whose file is on storage is not sent; while storage does not answer, nothing is.
- Epochs whose agent is alive (their lock is taken) are left alone, and are a problem: an agent of
  the release before, say, that will leave them soon.
"""

import asyncio
import random
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from monitoring.agent.epochs import folders, new_epoch
from monitoring.agent.ingest import frame_schema
from monitoring.agent.parquet import CORRUPT, SegmentAccount, read_account
from monitoring.agent.segment import SealedSegment, map_file
from monitoring.agent.settings import SpoolSettings
from monitoring.agent.sink import event_key
from monitoring.agent.spool import Spool
from monitoring.agent.spool_frames import Frame, RowsHead
from monitoring.events import SAMPLED_OUT, Ack, DeliveryHeader, Stream, encode_delivery


class Transport(Protocol):
    """The way to the agent of one producer."""

    async def ingest(self, payload: bytes) -> Ack: ...


class Storage(Protocol):
    """Where the dead agent put its files."""

    def holds(self, key: str) -> bool:
        """Whether a file is there. Raises ``SinkUnavailable`` where that cannot be told."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class HandedOver:
    """What became of one shard's spool; ``left`` segments wait, ``problem`` says for what.

    ``segments`` are gone from it: sent, or found on storage.
    """

    segments: int
    left: int
    problem: str | None


def stranded(root: Path, shards: int, living: Collection[int]) -> list[Path]:
    """List the folders of shards under ``root`` that hold epochs no agent of this node will take.

    ``living`` are the shards whose agents live here. Epochs of shards that nobody runs any more are
    fetched by whoever opens another one.
    """
    if not root.is_dir():
        return []
    used = {shard.name for shard in folders(root) if folders(shard)}
    found = [root / str(n) for n in range(shards) if n not in living and str(n) in used]
    strays = any(name.isdecimal() and int(name) >= shards for name in used)
    return [root / "0"] if strays and not found and not living else found


async def hand_over(
    shard_folder: Path,
    transport_for: Callable[[str], Transport],
    storage: Storage,
    *,
    shards: int,
    clock: Callable[[], float],
    chance: random.Random,
    timeout_s: float,
) -> HandedOver:
    """Send every segment of one shard's dead epochs, oldest first, and delete what is acknowledged.

    Whatever stops it is returned, not raised: the rest is sent another time. Raises ``OSError``
    where the folder cannot be taken.
    """
    epoch = new_epoch(clock(), chance)
    settings = SpoolSettings()
    spool = await asyncio.to_thread(Spool, shard_folder, epoch, settings, clock(), shards)
    done, problem = 0, None
    if others := spool.state().foreign_epochs:
        problem = f"{others} lives of agents are not over or cannot be read"
    try:
        async with asyncio.timeout(timeout_s):
            while (segment := spool.next_sealed()) is not None:
                account = await asyncio.to_thread(_account_of, segment)
                if await asyncio.to_thread(storage.holds, event_key(account.opening)):
                    leave = spool.settle
                else:
                    await _send(spool, segment, account, transport_for)
                    leave = spool.give_away
                await asyncio.to_thread(leave, segment, account.coverage, clock())
                done += 1
    except Exception as error:  # noqa: BLE001  no agent, no room there, no time: later
        problem = f"{type(error).__name__}: {error}"
    finally:
        left = spool.state().sealed_segments
        await asyncio.to_thread(spool.close)
    return HandedOver(segments=done, left=left, problem=problem)


def _account_of(segment: SealedSegment) -> SegmentAccount:
    return read_account(map_file(segment.path))


async def _send(
    spool: Spool,
    segment: SealedSegment,
    account: SegmentAccount,
    transport_for: Callable[[str], Transport],
) -> None:
    """Send a segment's runs and wait until all are acknowledged."""
    if any(frame.body is None for frame, _ in account.runs):
        spool.dead_letters.keep(segment.path, "some of its frames fail their checksum")
    for producer, payload in _payloads(account):
        await transport_for(producer).ingest(payload)


def _payloads(account: SegmentAccount) -> Iterator[tuple[str, bytes]]:
    stream = account.opening.stream
    for frame, head in account.runs:
        yield head.producer, delivery_of(stream, frame, head)


def delivery_of(stream: Stream, frame: Frame, head: RowsHead) -> bytes:
    """Make a delivery of one run; rows that cannot be read any more become drops."""
    dropped = dict(head.dropped)
    schema = frame_schema(stream)
    if frame.body is None and head.written:
        dropped[CORRUPT] = dropped.get(CORRUPT, 0) + head.written
    if head.sampled_out:
        dropped[SAMPLED_OUT] = head.sampled_out
    if frame.body is not None and head.rows:
        rows = pa.ipc.read_record_batch(pa.py_buffer(frame.body), schema)
    else:
        rows = pa.RecordBatch.from_pylist([], schema=schema)
    header = DeliveryHeader(
        producer=head.producer,
        first=head.first,
        last=head.last,
        events=head.written if frame.body is not None else 0,
        dropped=dropped,
        stream=stream,
        policy_id=head.policy_id,
        node=head.node,
        env=head.env,
        decided=True,
    )
    return encode_delivery(header, rows)
