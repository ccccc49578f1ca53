"""From a sealed spool segment to the bytes of one Parquet file. Reads no clock and draws no chance:
the same segment gives the same file, so storing it twice changes nothing.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from monitoring.agent.ingest import frame_schema, sampled_by_names
from monitoring.agent.ledger import Coverage, Covered, Tally, all_dropped, merged
from monitoring.agent.spool_frames import Frame, Kind, OpenHead, RowsHead, scan
from monitoring.errors import FrameCorrupt
from monitoring.events import (
    FEATURE_PREFIX,
    FEEDBACK_FEATURES,
    SCHEMA_VERSION,
    Stream,
    stored_schema,
)

ROW_GROUP_ROWS: Final = 131_072
CORRUPT: Final = "spool_corrupt"
UNSTORABLE: Final = "dead_letter"
# Few distinct values in a file: dictionaries pay. Everywhere else they halve the speed.
DICTIONARY: Final = (
    "model",
    "version",
    "feature_set_version",
    "variant",
    "status",
    "label",
    "top_k.list.element",
    "tags.key_value.key",
    "tags.key_value.value",
    "weight",
    "sampled_by",
    "producer",
    "node",
    "env",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltFile:
    """A file ready to be stored. ``corrupt`` counts frames whose rows could not be read."""

    data: pa.Buffer
    rows: int
    coverage: Coverage
    corrupt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentAccount:
    """What the heads of a segment's frames say."""

    opening: OpenHead
    runs: tuple[tuple[Frame, RowsHead], ...]
    sealed: bool

    @property
    def coverage(self) -> Coverage:
        ranges: dict[str, list[Covered]] = {}
        for frame, head in self.runs:
            part = covered(head)
            lost = frame.body is None
            ranges.setdefault(head.producer, []).extend(
                all_dropped([part], CORRUPT) if lost else [part]
            )
        return {producer: merged(parts) for producer, parts in sorted(ranges.items())}


def covered(head: RowsHead) -> Covered:
    """Return a run's account without its rows."""
    return Covered(
        first=head.first,
        last=head.last,
        received=head.last - head.first + 1,
        written=head.written,
        sampled_out=head.sampled_out,
        dropped=head.dropped,
    )


def read_account(view: memoryview) -> SegmentAccount:
    """Read the heads of a segment. Raises ``FrameCorrupt`` when its opening frame is lost."""
    opening: OpenHead | None = None
    runs = []
    sealed = False
    for frame in scan(view):
        match frame.kind:
            case Kind.OPEN:
                opening = msgspec.msgpack.decode(frame.head, type=OpenHead)
            case Kind.ROWS:
                runs.append((frame, msgspec.msgpack.decode(frame.head, type=RowsHead)))
            case Kind.SEAL:
                sealed = True
    if opening is None:
        raise FrameCorrupt("no opening frame: the segment's stream is unknown")
    return SegmentAccount(opening=opening, runs=tuple(runs), sealed=sealed)


def lost(tallies: Iterable[Tally]) -> dict[str, int]:
    """Sum what the agent itself had to drop, by reason."""
    lost: dict[str, int] = {}
    for tally in tallies:
        for reason in (CORRUPT, UNSTORABLE):
            if tally.dropped.get(reason):
                lost[reason] = lost.get(reason, 0) + tally.dropped[reason]
    return lost


def build(account: SegmentAccount) -> BuiltFile:
    """Write a segment's rows as Parquet, one row group in memory at a time beside the result.

    Raises ``pyarrow.ArrowException`` when rows do not fit the stream's schema.
    """
    stream = account.opening.stream
    coverage = account.coverage
    rows = sum(head.rows for frame, head in account.runs if frame.body is not None)
    sink = pa.BufferOutputStream()
    schema = stored_schema(stream)
    with pq.ParquetWriter(sink, schema, **_writer_options(stream)) as writer:
        for table in _row_groups(account):
            writer.write_table(table, row_group_size=ROW_GROUP_ROWS)
        writer.add_key_value_metadata(_metadata(account, coverage, rows))
    corrupt = sum(frame.body is None for frame, _ in account.runs)
    return BuiltFile(data=sink.getvalue(), rows=rows, coverage=coverage, corrupt=corrupt)


def build_without_rows(account: SegmentAccount) -> BuiltFile:
    """Write the file that closes the ranges of a segment that can never be stored."""
    stream = account.opening.stream
    coverage = {p: all_dropped(parts, UNSTORABLE) for p, parts in account.coverage.items()}
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, stored_schema(stream), **_writer_options(stream)) as writer:
        writer.add_key_value_metadata(_metadata(account, coverage, 0))
    return BuiltFile(data=sink.getvalue(), rows=0, coverage=coverage, corrupt=0)


def _writer_options(stream: Stream) -> dict[str, object]:
    """Measured choices, see docs/adr/0005; columns beside ``DICTIONARY`` are written plainly."""
    if stream.kind == "feedback":
        return {
            "compression": "zstd",
            "compression_level": 1,
            "use_dictionary": ["kind", "value", "model", "producer", "node", "env"],
            "write_page_checksum": True,
        }
    strings = [FEATURE_PREFIX + f.name for f in stream.features if f.dtype == "string"]
    floats = [FEATURE_PREFIX + f.name for f in stream.features if f.dtype == "float64"]
    split = ["latency_ms", "score", "probabilities.list.element", *floats]
    return {
        "compression": "zstd",
        "compression_level": 1,
        "use_dictionary": [*DICTIONARY, *strings],
        "column_encoding": {
            **dict.fromkeys(split, "BYTE_STREAM_SPLIT"),
            "event_id": "DELTA_BYTE_ARRAY",
            "seq": "DELTA_BINARY_PACKED",
            "ts": "DELTA_BINARY_PACKED",
        },
        "write_page_checksum": True,
    }


def _metadata(account: SegmentAccount, coverage: Coverage, rows: int) -> dict[str, str]:
    opening = account.opening
    policies = sorted({head.policy_id for _, head in account.runs})
    return {
        "treeline.schema_version": SCHEMA_VERSION,
        "treeline.feature_set_version": opening.stream.feature_set_version,
        "treeline.policy_ids": json.dumps(policies),
        "treeline.shard": opening.shard,
        "treeline.segment": opening.segment,
        "treeline.rows": str(rows),
        "treeline.coverage": msgspec.json.encode(coverage).decode(),
    }


def _row_groups(account: SegmentAccount) -> Iterator[pa.Table]:
    """Yield stored rows, gathered into tables of about one row group."""
    stream = account.opening.stream
    schema = frame_schema(stream)
    waiting: list[tuple[RowsHead, pa.RecordBatch]] = []
    waiting_rows = 0
    for frame, head in account.runs:
        if not head.rows or frame.body is None:
            continue
        waiting.append((head, pa.ipc.read_record_batch(pa.py_buffer(frame.body), schema)))
        waiting_rows += head.rows
        if waiting_rows >= ROW_GROUP_ROWS:
            yield _stored(stream, waiting)
            waiting, waiting_rows = [], 0
    if waiting:
        yield _stored(stream, waiting)


def _stored(stream: Stream, parts: list[tuple[RowsHead, pa.RecordBatch]]) -> pa.Table:
    """Join batches and add what is the same for a whole file or a whole frame."""
    rows = pa.Table.from_batches([batch for _, batch in parts]).combine_chunks()
    lengths = np.array([batch.num_rows for _, batch in parts])
    producer = _per_frame([head.producer for head, _ in parts], lengths)
    columns = {name: rows.column(name) for name in rows.column_names}
    columns["event_id"] = pc.binary_join_element_wise(
        producer, pc.cast(columns["seq"], pa.string()), pc.cast(columns["row"], pa.string()), "-"
    )
    columns["producer"] = producer
    columns["node"] = _per_frame([head.node for head, _ in parts], lengths)
    columns["env"] = _per_frame([head.env for head, _ in parts], lengths)
    for name in ("model", "version", "feature_set_version", "variant"):
        columns[name] = pa.repeat(getattr(stream, name), rows.num_rows)
    if stream.kind == "feedback":
        columns |= _said(columns)
    else:
        columns["sampled_by"] = sampled_by_names(columns["sampled_by"].combine_chunks())
    schema = stored_schema(stream)
    return pa.Table.from_arrays([columns[name] for name in schema.names], schema=schema)


def _said(columns: dict[str, pa.ChunkedArray]) -> dict[str, pa.ChunkedArray]:
    """Return the columns of feedback, which travelled as the inputs of an event."""
    named = {f.name: columns[FEATURE_PREFIX + f.name] for f in FEEDBACK_FEATURES}
    outcome_ts = named.pop("outcome_ts_us").cast(pa.timestamp("us", tz="UTC"))
    return {**named, "row": named["row"].cast(pa.int32()), "outcome_ts": outcome_ts}


def _per_frame(values: list[str], lengths: np.ndarray) -> pa.Array:
    if len(set(values)) == 1:
        return pa.repeat(values[0], int(lengths.sum()))
    return pa.array(values).take(pa.array(np.repeat(np.arange(len(values)), lengths)))
