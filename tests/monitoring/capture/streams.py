"""What the capture tests share: a stream, its journal and scripted time."""

from pathlib import Path

from monitoring.capture.backlog import Backlog, Slice, SliceLimits, read_slice
from monitoring.capture.folder import StreamDescription
from monitoring.capture.journal import Journal, JournalLimits
from monitoring.capture.masking import MaskingPolicy, MaskingRules
from monitoring.capture.recorder import Recorder
from monitoring.events import Feature, Stream

FEATURES = (
    Feature("age", "int64"),
    Feature("amount", "float64"),
    Feature("purpose", "string"),
    Feature("owner", "bool"),
)
STREAM = Stream(
    model="credit",
    version="1.0.0",
    feature_set_version="1",
    variant="champion",
    task="classification",
    features=FEATURES,
    classes=("good", "bad"),
)
KEY = b"0123456789abcdef"
POLICY = MaskingPolicy(MaskingRules(), key=KEY)
SMALL = JournalLimits(segment_bytes=1000, quota_bytes=4000, buffer_bytes=2000, retry_s=5)


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def describe(producer: str = "replica-1") -> StreamDescription:
    return StreamDescription(
        producer=producer, stream=STREAM, policy_id=POLICY.policy_id, node="n1", env="test"
    )


def open_journal(
    root: Path, *, limits: JournalLimits = SMALL, clock: Clock | None = None, producer: str = "p-1"
) -> Journal:
    return Journal(root, describe(producer), limits=limits, monotonic=clock or Clock())


def open_recorder(journal: Journal) -> Recorder:
    return Recorder(journal, POLICY, FEATURES)


def record(recorder: Recorder, request_id: str = "r", rows: int = 1, **more: object) -> None:
    fields = {
        "ts_us": 1_700_000_000_000_000,
        "request_id": request_id,
        "status": 200,
        "latency_ms": 1.5,
        "inputs": [[30, 12.5, "car", True]] * rows,
        "labels": ["good"] * rows,
        "scores": [0.75] * rows,
        "user_id": "anna",
    }
    recorder.record(**{**fields, **more})  # type: ignore[arg-type]


def everything(backlog: Backlog | None) -> Slice | None:
    """Read without limits."""
    return backlog and read_slice(backlog, SliceLimits(max_rows=10**9, max_bytes=10**9))
