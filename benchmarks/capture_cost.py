"""What capturing one event costs its replica: CPU microseconds of the calling thread.

Single-row events of 20 float features with probabilities, a pseudonym and two tags, in interleaved
rounds; each figure is the median over rounds. ``journal`` writes to a real folder, ``buffer`` holds
events in memory (the folder cannot be made), ``encode`` is mask + encode + checksum without either.
The hand-over (read, Arrow, payload) runs in a thread and is given beside them.

    python -m benchmarks.capture_cost [--rounds 15] [--events 2000]
"""

import argparse
import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from monitoring.capture.backlog import SliceLimits, read_slice
from monitoring.capture.batches import to_batch
from monitoring.capture.folder import StreamDescription
from monitoring.capture.frames import encode_frame
from monitoring.capture.journal import Journal, JournalLimits
from monitoring.capture.masking import FieldRule, MaskingPolicy, MaskingRules
from monitoring.capture.recorder import Recorder
from monitoring.events import DeliveryHeader, Feature, Stream, encode_delivery

FEATURES = tuple(Feature(f"f{n}", "float64") for n in range(20))
POLICY = MaskingPolicy(
    MaskingRules(
        tags={"channel": FieldRule("keep"), "customer": FieldRule("hmac")},
        features={"f3": FieldRule("bucket", width=10.0)},
    ),
    key=bytes(32),
)
STREAM = Stream(
    model="m",
    version="1",
    feature_set_version="1",
    variant="champion",
    task="classification",
    features=FEATURES,
    classes=("good", "bad"),
)


class EncodeOnly(Journal):
    """Frames an event and throws it away."""

    def append(self, seq: int, body: bytes) -> None:
        encode_frame(seq, body)
        self.recorded = seq


def capture(make: type[Journal], root: Path, name: str) -> tuple[Journal, Recorder]:
    described = StreamDescription(
        producer=name, stream=STREAM, policy_id=POLICY.policy_id, node="n", env="bench"
    )
    limits = JournalLimits(buffer_bytes=64 * 1024 * 1024)
    quiet = logging.getLogger("bench")
    quiet.setLevel(logging.ERROR)
    journal = make(root, described, limits=limits, monotonic=time.monotonic, log=quiet)
    return journal, Recorder(journal, POLICY, FEATURES)


def record_all(recorder: Recorder, rows: list[list[float]], users: list[str]) -> None:
    probabilities = np.array([0.25, 0.75]).tobytes()
    for n, row in enumerate(rows):
        recorder.record(
            ts_us=1_700_000_000_000_000 + n,
            request_id="0f8fad5b-d9cb-469f-a165-70867728950e",
            status=200,
            latency_ms=3.25,
            inputs=[row],
            labels=["good"],
            scores=[0.75],
            probabilities=probabilities,
            user_id=users[n],
            session_id="s-1",
            context_tags={"channel": "web", "customer": "c-1", "note": "free text"},
        )


def hand_over(journal: Journal) -> None:
    while (backlog := journal.backlog()) is not None:
        part = read_slice(backlog, SliceLimits())
        batch = to_batch(STREAM, part.events)
        header = DeliveryHeader(
            producer="p",
            first=part.first,
            last=part.last,
            events=len(part.events),
            dropped=part.dropped,
            stream=STREAM,
            policy_id=POLICY.policy_id,
            node="n",
            env="bench",
        )
        encode_delivery(header, batch.rows)
        journal.release(part, part.last)


def cpu_us(work: Callable[[], None], events: int) -> float:
    before = time.thread_time_ns()
    work()
    return (time.thread_time_ns() - before) / 1000 / events


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--events", type=int, default=2000)
    arguments = parser.parse_args()
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(arguments.events, 20)).tolist()
    figures: dict[str, list[float]] = {}
    to_batch(STREAM, ())  # imports pandas, once
    with tempfile.TemporaryDirectory(prefix="capture-cost-") as folder:
        root = Path(folder)
        (root / "file").touch()
        cases = {
            "encode": capture(EncodeOnly, root, "encode"),
            "buffer": capture(Journal, root / "file", "buffer"),
            "journal": capture(Journal, root, "journal"),
        }
        for turn in range(arguments.rounds):
            for name, (journal, recorder) in cases.items():
                # Fresh users: every pseudonym is computed, none comes from the cache.
                users = [f"user-{name}-{turn}-{n}" for n in range(arguments.events)]
                spent = cpu_us(lambda r=recorder, u=users: record_all(r, rows, u), arguments.events)
                figures.setdefault(name, []).append(spent)
                if name != "encode":
                    handed = cpu_us(lambda j=journal: hand_over(j), arguments.events)
                    figures.setdefault(f"hand-over from {name}", []).append(handed)
    for name, spent in figures.items():
        low, high = min(spent), max(spent)
        print(f"{name:24} {statistics.median(spent):6.2f} us/event  ({low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()
