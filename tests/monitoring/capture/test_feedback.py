"""Feedback from the replica's call to the file: the real journal, agent and reader."""

import random
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from monitoring.agent.settings import SamplingSettings, SinkSettings
from monitoring.agent.verify import verify
from monitoring.analysis.stored import read_feedback
from monitoring.capture.feedback import FeedbackCapture
from monitoring.capture.journal import JournalLimits
from monitoring.capture.masking import FieldRule, MaskingPolicy, MaskingRules
from monitoring.capture.sender import SenderSettings
from monitoring.capture.stream_capture import StreamCapture
from monitoring.events import FEEDBACK_SCHEMA, Ack, feedback_stream
from tests.monitoring.agent.conftest import T0_US, Agent, delivery
from tests.monitoring.capture.streams import KEY

POLICY = MaskingPolicy(MaskingRules(), key=KEY)


class ToAgent:
    """A transport straight into an agent without threads."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent

    async def ingest(self, payload: bytes) -> Ack:
        return self.agent.take(payload)


def capture_of(folder: Path, transport: object, limits: JournalLimits | None = None):
    return StreamCapture(
        folder / "journal",
        "f-1",
        feedback_stream("credit"),
        POLICY.for_feedback(),
        transport,  # type: ignore[arg-type]
        node="n1",
        env="test",
        limits=limits or JournalLimits(),
        settings=SenderSettings(flush_interval_s=0, first_backoff_s=0),
        rng=random.Random(1),
    )


def agent_of(folder: Path, **more: object) -> Agent:
    agent = Agent(folder, **more)  # type: ignore[arg-type]
    agent.intake._policy_ids |= {POLICY.for_feedback().policy_id}
    return agent


async def test_feedback_is_stored_whole_whatever_the_sampling(tmp_path: Path) -> None:
    agent = agent_of(tmp_path, sampling=SamplingSettings(rates={"champion": 0.0}, rows_per_s=1.0))
    capture = capture_of(tmp_path, ToAgent(agent))
    feedback = FeedbackCapture(capture)
    assert feedback.record(received_us=T0_US, request_id="a", kind="label", value="good", row=2)
    assert feedback.record(
        received_us=T0_US + 1,
        request_id="b",
        kind="click",
        value=True,
        outcome_us=T0_US - 5_000_000,
    )
    assert feedback.record(received_us=T0_US + 2, request_id="c", kind="price", value=3.5)
    assert await capture.close(timeout_s=20)
    agent.drain()
    sink = SinkSettings(url=str(tmp_path / "sink"))
    (path,) = (tmp_path / "sink" / "feedback").rglob("*.parquet")
    assert path.parent.name == "date=2026-09-21"
    assert pq.read_schema(path).remove_metadata().equals(FEEDBACK_SCHEMA)
    rows = read_feedback(sink, "credit", None).to_pylist()
    assert [(r["request_id"], r["row"], r["kind"], r["value"], r["number"]) for r in rows] == [
        ("a", 2, "label", "good", None),
        ("b", None, "click", "True", 1.0),
        ("c", None, "price", "3.5", 3.5),
    ]
    assert [r["event_id"] for r in rows] == ["f-1-1-0", "f-1-2-0", "f-1-3-0"]
    assert (rows[1]["ts"] - rows[1]["outcome_ts"]).total_seconds() == 5.000001
    assert read_feedback(sink, "another", None).num_rows == 0
    agent.die()


async def test_the_ledger_covers_predictions_and_feedback(tmp_path: Path) -> None:
    agent = agent_of(tmp_path)
    agent.take(delivery(1, 5))
    capture = capture_of(tmp_path, ToAgent(agent))
    for number in range(7):
        FeedbackCapture(capture).record(
            received_us=T0_US, request_id=f"r{number}", kind="label", value=number
        )
    assert await capture.close(timeout_s=20)
    agent.drain()
    sink = SinkSettings(url=str(tmp_path / "sink"))
    verdict = verify(sink)
    assert verdict.ok, verdict.problems
    assert (verdict.producers, verdict.written) == (2, 12)
    (path,) = (tmp_path / "sink" / "feedback").rglob("*.parquet")
    path.unlink()
    assert [(p.kind, p.producer, p.first, p.last) for p in verify(sink).problems] == [
        ("gap", "f-1", 1, 7)
    ]
    agent.die()


async def test_what_the_agent_acknowledged_survives_its_death_once(tmp_path: Path) -> None:
    agent = agent_of(tmp_path)
    capture = capture_of(tmp_path, ToAgent(agent))
    for number in range(3):
        FeedbackCapture(capture).record(
            received_us=T0_US, request_id=f"r{number}", kind="label", value="x"
        )
    assert await capture.flush(timeout_s=20)
    agent.die()
    heir = agent_of(tmp_path, epoch="e2")
    heir.drain()
    sink = SinkSettings(url=str(tmp_path / "sink"))
    assert verify(sink).ok
    stored = read_feedback(sink, "credit", None)
    assert pc.count_distinct(stored["event_id"]).as_py() == stored.num_rows == 3
    await capture.close(timeout_s=0)
    heir.die()


def test_a_full_journal_says_no_and_counts_it(tmp_path: Path) -> None:
    tiny = JournalLimits(segment_bytes=500, quota_bytes=1_000, buffer_bytes=0)
    capture = capture_of(tmp_path, object(), tiny)
    feedback = FeedbackCapture(capture)
    kept = [
        feedback.record(received_us=T0_US, request_id="r", kind="label", value="x" * 100)
        for _ in range(20)
    ]
    assert kept[0]
    assert not kept[-1]
    assert capture.counts().dropped == {"journal_full": kept.count(False)}


def test_masked_features_do_not_mask_feedback() -> None:
    rules = MaskingRules(features={"value": FieldRule("drop")})
    policy = MaskingPolicy(rules, key=KEY).for_feedback()
    assert policy.row_masks(feedback_stream("credit").features) == ()
    assert policy.policy_id == POLICY.policy_id
