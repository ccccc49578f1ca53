"""Deliveries, a clock that stands still, and an agent without threads."""

import random
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from monitoring.agent.intake import Intake
from monitoring.agent.settings import AgentSettings, SamplingSettings, SinkSettings, SpoolSettings
from monitoring.agent.sink import FsspecSink
from monitoring.agent.spool import Spool
from monitoring.agent.uploader import Uploader
from monitoring.events import (
    Ack,
    DeliveryHeader,
    Feature,
    Stream,
    batch_schema,
    encode_delivery,
)

T0_US = 1_790_000_000_000_000  # 2026-09-21 14:13:20 UTC

STREAM = Stream(
    model="credit",
    version="1.0.0",
    feature_set_version="1",
    variant="champion",
    task="classification",
    features=(Feature("age", "float64"), Feature("job", "string")),
    classes=("bad", "good"),
)


def memory_folder() -> tempfile.TemporaryDirectory:
    """A folder where fsync costs nothing, for tests with hundreds of commits."""
    memory = Path("/dev/shm")
    return tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None)


def stored_events(folder: Path) -> list[str]:
    """Every event_id under a test's sink, sorted, repetitions included."""
    return sorted(
        event_id
        for path in (folder / "sink" / "events").rglob("*.parquet")
        for event_id in pq.read_table(path, columns=["event_id"]).column(0).to_pylist()
    )


def rows_of(seq: int, *, ts_us: int = T0_US, rows: int = 1, status: int = 200, score: float = 0.9):
    return [
        {
            "seq": seq,
            "row": row,
            "ts": ts_us,
            "request_id": f"request-{seq}",
            "status": status,
            "latency_ms": 1.5,
            "label": "good",
            "score": score,
            "probabilities": [0.1, 0.9],
            "top_k": None,
            "user_id": None,
            "session_id": "s",
            "tags": {"a": "b"},
            "x_age": float(seq),
            "x_job": "clerk",
        }
        for row in range(rows)
    ]


def delivery(
    first: int,
    last: int,
    *,
    producer: str = "p1",
    dropped: dict[int, str] | None = None,
    stream: Stream = STREAM,
    policy_id: str = "policy",
    acknowledged: int = 0,
    events=None,
) -> bytes:
    """Numbers first to last; ``dropped`` maps numbers to reasons; ``events(seq)`` makes rows."""
    dropped = {seq: why for seq, why in (dropped or {}).items() if first <= seq <= last}
    make = events or rows_of
    kept = [seq for seq in range(first, last + 1) if seq not in dropped]
    lines = [line for seq in kept for line in make(seq)]
    reasons: dict[str, int] = {}
    for why in dropped.values():
        reasons[why] = reasons.get(why, 0) + 1
    header = DeliveryHeader(
        producer=producer,
        first=first,
        last=last,
        events=len(kept),
        dropped=reasons,
        stream=stream,
        policy_id=policy_id,
        node="n1",
        env="test",
        acknowledged=acknowledged,
    )
    schema = batch_schema(stream)
    names = set(schema.names)
    lines = [{k: v for k, v in line.items() if k in names} for line in lines]
    return encode_delivery(header, pa.RecordBatch.from_pylist(lines, schema=schema))


@dataclass
class Agent:
    """Everything of one agent but its threads; ``drain`` does what they would do."""

    folder: Path
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    spool_settings: SpoolSettings = field(default_factory=SpoolSettings)
    epoch: str = "e1"
    sink: object = None
    now_s: float = T0_US / 1e6
    shard: str = "0"
    shards: int = 1
    keep_aside: bool = False
    follower: object = None

    def __post_init__(self) -> None:
        self.settings = AgentSettings(
            policy_ids=("policy",),
            state_dir=str(self.folder / "state"),
            shard=self.shard,
            sink=SinkSettings(url=str(self.folder / "sink")),
            sampling=self.sampling,
            spool=self.spool_settings,
        )
        self.spool = Spool(
            self.folder / "state" / "spool" / self.shard,
            self.epoch,
            self.spool_settings,
            self.now_s,
            self.shards,
        )
        self.intake = Intake(self.settings, self.spool, self.clock, keep_aside=self.keep_aside)
        self.uploader = Uploader(
            shard=self.shard,
            spool=self.spool,
            sink=self.sink or FsspecSink(self.settings.sink),
            retry=self.settings.retry,
            clock=self.clock,
            chance=random.Random(1),
            follower=self.follower,
        )

    def clock(self) -> float:
        return self.now_s

    def take(self, payload: bytes) -> Ack:
        (answer,) = self.intake.commit([payload])
        if isinstance(answer, Exception):
            raise answer
        return answer

    def drain(self) -> None:
        self.spool.seal_everything(self.now_s)
        while self.uploader.step():
            pass

    def die(self) -> None:
        """Lose the process: its locks go, nothing is sealed or flushed."""
        self.spool.close()


@pytest.fixture
def agent(tmp_path: Path):
    made = Agent(tmp_path)
    yield made
    made.die()
