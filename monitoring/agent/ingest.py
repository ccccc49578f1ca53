"""From one delivery to the runs that go into the spool. Pure.

A *run* is a closed range of one producer's numbers whose events lie in one hour. Numbers that were
received before are cut away first, so any delivery can be sent again, whole, in part or overlapping
others, and every event still lands in exactly one run.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Final

import msgspec
import numpy as np
import pyarrow as pa

from monitoring.agent.aside import counted_schema
from monitoring.agent.sampling import SAMPLED_BY, Decision, EventTable, Ints
from monitoring.errors import DeliveryRejected
from monitoring.events import DeliveryHeader, Stream, batch_schema, decode_delivery

HOUR_US: Final = 3_600_000_000
WEIGHT: Final = pa.field("weight", pa.float64(), nullable=False)
RULE: Final = pa.field("sampled_by", pa.int8(), nullable=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Numbers ``first`` to ``last``, events ``low`` up to ``high`` of the delivery's table.

    ``hour`` counts hours since 1970. A run without events consists of drops alone.
    """

    first: int
    last: int
    hour: int
    low: int
    high: int
    dropped: dict[str, int]


def read_delivery(payload: bytes) -> tuple[DeliveryHeader, pa.RecordBatch, EventTable]:
    """Decode and check a delivery; its rows come back in the order of their events.

    Raises ``DeliveryRejected`` for whatever a second attempt could not mend.
    """
    try:
        header, batch = decode_delivery(payload)
        batch.validate(full=True)
    except (msgspec.DecodeError, pa.ArrowException, StopIteration, EOFError, OSError) as error:
        raise DeliveryRejected(f"unreadable delivery of {len(payload)} bytes: {error}") from error
    if not batch.schema.equals(frame_schema(header.stream, sampled=header.decided)):
        raise DeliveryRejected(
            f"producer {header.producer}: the batch's columns are not those of "
            f"{header.stream.model} {header.stream.version}"
        )
    required = required_columns(header.stream, sampled=header.decided)
    nulls = [name for name in required if batch.column(name).null_count]
    if nulls:
        raise DeliveryRejected(f"producer {header.producer}: missing values in {nulls}")
    batch, events = _events_of(batch)
    _check_account(header, events)
    return header, batch, events


@lru_cache(maxsize=256)
def frame_schema(stream: Stream, *, sampled: bool = True) -> pa.Schema:
    """Schema of a delivery's batch, and with ``sampled`` of the batches in the spool."""
    schema = batch_schema(stream)
    if not sampled:
        return schema
    return schema.append(WEIGHT).append(RULE)


@lru_cache(maxsize=256)
def required_columns(stream: Stream, *, sampled: bool) -> tuple[str, ...]:
    """Columns of a delivery in which no value may be missing."""
    schema = frame_schema(stream, sampled=sampled)
    return tuple(field.name for field in schema if not field.nullable)


def _events_of(batch: pa.RecordBatch) -> tuple[pa.RecordBatch, EventTable]:
    seq = batch.column("seq").to_numpy(zero_copy_only=False)
    steps = np.diff(seq)
    if len(steps) and steps.min() < 0:
        batch = batch.sort_by([("seq", "ascending"), ("row", "ascending")])
        seq = batch.column("seq").to_numpy(zero_copy_only=False)
        steps = np.diff(seq)
    firsts = np.flatnonzero(np.concatenate(([True], steps > 0))[: len(seq)])
    ts = batch.column("ts").view(pa.int64()).to_numpy(zero_copy_only=False)
    starts = np.append(firsts, len(seq)).astype(np.int64)
    return batch, EventTable(seqs=seq[firsts], starts=starts, ts_us=ts[firsts])


def _check_account(header: DeliveryHeader, events: EventTable) -> None:
    numbers = header.last - header.first + 1
    told = header.events + sum(header.dropped.values())
    if (
        header.first < 1
        or numbers < 1
        or told != numbers
        or any(count < 0 for count in header.dropped.values())
    ):
        raise DeliveryRejected(
            f"producer {header.producer}: {header.first} to {header.last} are not "
            f"{header.events} events and {header.dropped} drops"
        )
    found = len(events.seqs)
    if found != header.events or (
        found and (events.seqs[0] < header.first or events.seqs[-1] > header.last)
    ):
        raise DeliveryRejected(
            f"producer {header.producer}: {header.events} events announced between "
            f"{header.first} and {header.last}, {found} found"
        )


def plan_runs(
    header: DeliveryHeader,
    events: EventTable,
    missing: Sequence[tuple[int, int]],
    hour_now: int,
) -> list[Run]:
    """Cut the missing ranges of a delivery into runs, one hour each, in order of their numbers.

    Drops without any event beside them are booked under ``hour_now``. Where only a part of a
    delivery with several drop reasons is missing, the number of drops is exact and their split
    over reasons is not: a delivery does not say which number was dropped why.
    """
    hours = events.ts_us // HOUR_US
    reasons = dict(sorted(header.dropped.items()))
    runs = []
    for first, last in missing:
        low = int(np.searchsorted(events.seqs, first, side="left"))
        high = int(np.searchsorted(events.seqs, last, side="right"))
        for cut in _cuts(events.seqs, hours, (first, last), (low, high), hour_now):
            run_first, run_last, hour, run_low, run_high = cut
            dropped = _take(reasons, run_last - run_first + 1 - (run_high - run_low))
            runs.append(
                Run(
                    first=run_first,
                    last=run_last,
                    hour=hour,
                    low=run_low,
                    high=run_high,
                    dropped=dropped,
                )
            )
    return runs


def _cuts(
    seqs: Ints, hours: Ints, numbers: tuple[int, int], span: tuple[int, int], hour_now: int
) -> Iterator[tuple[int, int, int, int, int]]:
    """Yield first, last, hour, low, high for each stretch of one hour; holes go with the left."""
    first, last = numbers
    low, high = span
    if low == high:
        yield first, last, hour_now, low, high
        return
    turns = (np.flatnonzero(np.diff(hours[low:high])) + low + 1).tolist()
    edges = [low, *turns, high]
    for left, right in pairwise(edges):
        starts = first if left == low else int(seqs[left])
        ends = last if right == high else int(seqs[right]) - 1
        yield starts, ends, int(hours[left]), left, right


def _take(reasons: dict[str, int], count: int) -> dict[str, int]:
    taken = {}
    for reason, left in list(reasons.items()):
        share = min(left, count)
        if share:
            taken[reason] = share
            reasons[reason] = left - share
            count -= share
    return taken


def kept_rows(
    batch: pa.RecordBatch, events: EventTable, run: Run, decision: Decision | None
) -> pa.RecordBatch:
    """Return the stored rows of a run with their ``weight`` and ``sampled_by`` code.

    Without a decision all rows are kept, as they are: another agent has decided.
    """
    start, end = int(events.starts[run.low]), int(events.starts[run.high])
    whole = end - start == batch.num_rows
    rows = batch if whole else batch.slice(start, end - start)
    if decision is None:
        return rows
    counts = events.row_counts[run.low : run.high]
    keep = decision.keep[run.low : run.high]
    weight = np.repeat(decision.weight[run.low : run.high], counts)
    rule = np.repeat(decision.rule[run.low : run.high], counts)
    if not keep.all():
        wanted = np.repeat(keep, counts)
        rows = rows.filter(pa.array(wanted))
        weight, rule = weight[wanted], rule[wanted]
    weighted = rows.append_column(WEIGHT, pa.array(weight))
    return weighted.append_column(RULE, pa.array(rule))


def sampled_out_rows(
    stream: Stream, batch: pa.RecordBatch, events: EventTable, run: Run, decision: Decision
) -> pa.RecordBatch:
    """Return the other rows of a run, with the columns that live windows look at."""
    start, end = int(events.starts[run.low]), int(events.starts[run.high])
    counts = events.row_counts[run.low : run.high]
    out = np.repeat(~decision.keep[run.low : run.high], counts)
    rows = batch.slice(start, end - start).select(counted_schema(stream).names)
    return rows.filter(pa.array(out))


def sampled_by_names(codes: pa.Array) -> pa.Array:
    """Turn ``sampled_by`` codes into their names."""
    return pa.array(SAMPLED_BY).take(codes)
