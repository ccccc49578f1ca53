"""The vocabulary of the log: events, streams, deliveries, acknowledgements and the stored schema.

Capture (in the replica) and the agent (in the actor) meet only here.

Invariants:

- A *producer* is one stream of one replica process. It numbers its events 1, 2, 3, … without holes;
  a number, once given, stays with its event for ever. ``(producer, seq)`` identifies an event and
  ``event_id = "<producer>-<seq>-<row>"`` one of its rows.
- A *delivery* covers a closed range of one producer's numbers. Every number in it is either in the
  batch or counted under a drop reason, so ``last - first + 1 == events + sum(dropped)``.
- An acknowledgement says that all numbers up to ``through`` are durable with the agent. Sending a
  number again is always allowed and never stores it twice.
"""

from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec
import pyarrow as pa

SCHEMA_VERSION: Final = "1"
FEATURE_PREFIX: Final = "x_"
SAMPLED_OUT: Final = "sampled_out"  # stands among the reasons of a delivery that is ``decided``

Dtype = Literal["float64", "int64", "bool", "string"]
VariantRole = Literal["champion", "challenger", "shadow"]
StreamKind = Literal["predictions", "feedback"]

ARROW_TYPES: Final[dict[str, pa.DataType]] = {
    "float64": pa.float64(),
    "int64": pa.int64(),
    "bool": pa.bool_(),
    "string": pa.string(),
}


class Feature(msgspec.Struct, frozen=True):
    """Name and logged type of one input column."""

    name: str
    dtype: Dtype


class Stream(msgspec.Struct, frozen=True):
    """What all events of one producer have in common."""

    model: str
    version: str
    feature_set_version: str
    variant: VariantRole
    task: Literal["classification", "regression"]
    features: tuple[Feature, ...]
    classes: tuple[str, ...] = ()
    kind: StreamKind = "predictions"


FEEDBACK_FEATURES: Final = (
    Feature("kind", "string"),
    Feature("value", "string"),
    Feature("number", "float64"),
    Feature("row", "int64"),
    Feature("outcome_ts_us", "int64"),
)


def feedback_stream(model: str) -> Stream:
    """Stream of what becomes known later about a model's answers.

    A feedback is an event of one row whose inputs are ``FEEDBACK_FEATURES``, so that it rides the
    journal, the deliveries and the spool of predictions; only its file has a schema of its own.
    """
    return Stream(
        model=model,
        version="",
        feature_set_version="feedback-1",
        variant="champion",
        task="classification",
        features=FEEDBACK_FEATURES,
        kind="feedback",
    )


class PredictionEvent(msgspec.Struct, array_like=True, gc=False):
    """One prediction request as captured, already masked.

    ``inputs`` is row-major in the stream's feature order, with None for missing values.
    ``probabilities`` holds ``rows x classes`` little-endian float64, or nothing for regression and
    for failed requests. ``labels`` is None for regression, where ``scores`` are the predictions.
    """

    seq: int
    ts_us: int
    request_id: str
    status: int
    latency_ms: float
    inputs: Sequence[Sequence[Any]]
    labels: list[str] | None = None
    scores: list[float] | None = None
    probabilities: bytes | None = None
    top_k: list[list[str]] | None = None
    user_id: str | None = None
    session_id: str | None = None
    tags: dict[str, str] | None = None


class DeliveryHeader(msgspec.Struct, frozen=True):
    """What a delivery says about itself; the Arrow IPC stream with its rows follows it.

    ``node`` and ``env`` are enrichment, stored beside every row. ``acknowledged`` is the highest
    number that any agent has acknowledged to this producer so far: an agent that starts without
    the old one's disk counts on from there instead of waiting for numbers that will not come again.

    ``decided`` marks what comes out of another agent's spool: its rows carry their weights already,
    its sampled-out events stand in ``dropped``, and ``acknowledged`` says nothing about it.
    """

    producer: str
    first: int
    last: int
    events: int
    dropped: dict[str, int]
    stream: Stream
    policy_id: str
    node: str
    env: str
    acknowledged: int = 0
    decided: bool = False


class Ack(msgspec.Struct, frozen=True):
    """All events of ``producer`` up to and including ``through`` are durable with the agent."""

    producer: str
    through: int


class HistogramCounts(msgspec.Struct, frozen=True):
    """Cumulative since the process began: ``counts[i]`` values at or below ``bounds[i]``.

    Not summed over buckets; one more count than bounds, the last for everything above.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    sum: float


class VariantCounts(msgspec.Struct, frozen=True):
    """Serving counters of one variant in one replica, cumulative since the process began."""

    model: str
    version: str
    variant: VariantRole
    requests: dict[int, int]  # by HTTP status
    rows: int
    latency_s: HistogramCounts
    dropped: dict[str, int] = {}  # copies that a shadow did not score, by reason


class CaptureCounts(msgspec.Struct, frozen=True):
    """Capture counters of one producer, cumulative since the process began."""

    producer: str
    model: str
    version: str
    variant: VariantRole
    captured: int  # events numbered, dropped ones included
    acknowledged: int
    dropped: dict[str, int]
    journal_bytes: int
    journal_max_bytes: int = 0
    failed_deliveries: int = 0  # calls to the agent that were not acknowledged, refusals included
    refused_deliveries: int = 0
    dead_letters: int = 0  # deliveries given up for good


class ReplicaReport(msgspec.Struct, frozen=True):
    """What a replica tells the agent once a second, so that one place can answer ``/metrics``.

    ``journals`` names all its producers, and ``closed`` says that they have been handed over to the
    last event: a replica that falls silent without it may have left some of them on its node, whose
    ``disk`` (``monitoring.disk``) may come back under another node's name.
    """

    replica: str
    variants: tuple[VariantCounts, ...]
    captures: tuple[CaptureCounts, ...]
    ongoing: int = 0
    rejected: dict[int, int] = {}  # requests that never reached a model, by HTTP status
    node: str = ""
    journals: tuple[str, ...] = ()
    closed: bool = False
    warnings: tuple[str, ...] = ()
    disk: str = ""


def batch_schema(stream: Stream) -> pa.Schema:
    """Schema of a delivery's batch: one line per row, feature columns last, as ``x_<feature>``."""
    return pa.schema(
        [
            pa.field("seq", pa.int64(), nullable=False),
            pa.field("row", pa.int32(), nullable=False),
            pa.field("ts", pa.timestamp("us", tz="UTC"), nullable=False),
            pa.field("request_id", pa.string(), nullable=False),
            pa.field("status", pa.int16(), nullable=False),
            pa.field("latency_ms", pa.float64(), nullable=False),
            pa.field("label", pa.string()),
            pa.field("score", pa.float64()),
            pa.field("probabilities", pa.list_(pa.float32())),
            pa.field("top_k", pa.list_(pa.string())),
            pa.field("user_id", pa.string()),
            pa.field("session_id", pa.string()),
            pa.field("tags", pa.map_(pa.string(), pa.string())),
            *(pa.field(FEATURE_PREFIX + f.name, ARROW_TYPES[f.dtype]) for f in stream.features),
        ]
    )


def stored_schema(stream: Stream) -> pa.Schema:
    """Schema of a stream's Parquet files: a contract, see docs/log.md."""
    if stream.kind == "feedback":
        return FEEDBACK_SCHEMA
    required = {"nullable": False}
    return pa.schema(
        [
            pa.field("event_id", pa.string(), **required),
            pa.field("request_id", pa.string(), **required),
            pa.field("row", pa.int32(), **required),
            pa.field("ts", pa.timestamp("us", tz="UTC"), **required),
            pa.field("model", pa.string(), **required),
            pa.field("version", pa.string(), **required),
            pa.field("feature_set_version", pa.string(), **required),
            pa.field("variant", pa.string(), **required),
            pa.field("status", pa.int16(), **required),
            pa.field("latency_ms", pa.float64(), **required),
            pa.field("label", pa.string()),
            pa.field("score", pa.float64()),
            pa.field("probabilities", pa.list_(pa.float32())),
            pa.field("top_k", pa.list_(pa.string())),
            pa.field("user_id", pa.string()),
            pa.field("session_id", pa.string()),
            pa.field("tags", pa.map_(pa.string(), pa.string())),
            pa.field("weight", pa.float64(), **required),
            pa.field("sampled_by", pa.string(), **required),
            pa.field("producer", pa.string(), **required),
            pa.field("seq", pa.int64(), **required),
            pa.field("node", pa.string(), **required),
            pa.field("env", pa.string(), **required),
            *(pa.field(FEATURE_PREFIX + f.name, ARROW_TYPES[f.dtype]) for f in stream.features),
        ]
    )


FEEDBACK_SCHEMA: Final = pa.schema(
    [
        pa.field("event_id", pa.string(), nullable=False),
        pa.field("request_id", pa.string(), nullable=False),
        pa.field("row", pa.int32()),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("value", pa.string(), nullable=False),
        pa.field("number", pa.float64()),
        pa.field("ts", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("outcome_ts", pa.timestamp("us", tz="UTC")),
        pa.field("model", pa.string(), nullable=False),
        pa.field("producer", pa.string(), nullable=False),
        pa.field("seq", pa.int64(), nullable=False),
        pa.field("node", pa.string(), nullable=False),
        pa.field("env", pa.string(), nullable=False),
    ]
)


def encode_delivery(header: DeliveryHeader, batch: pa.RecordBatch) -> bytes:
    """Serialise a delivery: 4-byte length, MessagePack header, Arrow IPC stream."""
    head = msgspec.msgpack.encode(header)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    ipc: bytes = sink.getvalue().to_pybytes()
    return len(head).to_bytes(4, "little") + head + ipc


def decode_delivery(payload: bytes | memoryview) -> tuple[DeliveryHeader, pa.RecordBatch]:
    """Read a delivery back; the batch's columns point into ``payload``, without a copy."""
    view = memoryview(payload)
    split = 4 + int.from_bytes(view[:4], "little")
    header = msgspec.msgpack.decode(view[4:split], type=DeliveryHeader)
    with pa.ipc.open_stream(pa.py_buffer(view[split:])) as reader:
        return header, reader.read_next_batch()
