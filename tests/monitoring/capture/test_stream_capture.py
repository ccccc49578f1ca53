import asyncio
import random
from pathlib import Path

import pytest

from monitoring.capture.journal import JournalLimits
from monitoring.capture.masking import FieldRule, MaskingPolicy, MaskingRules
from monitoring.capture.orphans import find_orphans
from monitoring.capture.sender import SenderSettings
from monitoring.capture.stream_capture import StreamCapture
from monitoring.errors import MaskingPolicyInvalid
from monitoring.events import decode_delivery
from tests.monitoring.capture.fleet import FakeAgent
from tests.monitoring.capture.streams import KEY, POLICY, STREAM, record


def capture_of(
    root: Path, agent: FakeAgent, policy: MaskingPolicy = POLICY, **more: object
) -> StreamCapture:
    return StreamCapture(
        root,
        "p-1",
        STREAM,
        policy,
        agent,
        node="n1",
        env="test",
        limits=JournalLimits(),
        settings=SenderSettings(**{"flush_interval_s": 0, "first_backoff_s": 0, **more}),  # type: ignore[arg-type]
        rng=random.Random(1),
    )


async def test_a_prediction_reaches_the_agent_masked_and_in_logged_types(tmp_path: Path) -> None:
    policy = MaskingPolicy(MaskingRules(features={"age": FieldRule("hmac")}), key=KEY)
    agent = FakeAgent()
    capture = capture_of(tmp_path, agent, policy)
    capture.start()
    capture.start()
    record(capture.recorder, "r1")
    while not agent.requests:
        await asyncio.sleep(0)
    record(capture.recorder, "r2")
    assert await capture.close(timeout_s=20)
    assert agent.requests == ["r1", "r2"]
    header, batch = decode_delivery(agent.payloads[0])
    assert header.policy_id == policy.policy_id
    assert header.stream.features[0].dtype == "string"
    assert batch.column("x_age").to_pylist()[0] == policy.pseudonym("30")
    assert batch.column("user_id").to_pylist()[0] == policy.pseudonym("anna")
    assert capture.counts().acknowledged == 2
    assert capture.warnings() == []
    assert list(tmp_path.iterdir()) == []


async def test_what_cannot_be_sent_before_the_end_is_left_as_an_orphan(tmp_path: Path) -> None:
    capture = capture_of(tmp_path, FakeAgent())
    record(capture.recorder)
    assert not await capture.close(timeout_s=0)
    assert find_orphans(tmp_path) == [tmp_path / "p-1"]
    record(capture.recorder, "after the end")
    assert "held in memory" in capture.warnings()[0]


async def test_flush_waits_for_the_acknowledgement(tmp_path: Path) -> None:
    agent = FakeAgent()
    agent.script.append(ConnectionError("away"))
    capture = capture_of(tmp_path, agent)
    record(capture.recorder)
    assert await capture.flush(timeout_s=20)
    assert capture.counts().acknowledged == 1
    await capture.close(timeout_s=20)


def test_an_unsound_policy_leaves_no_folder(tmp_path: Path) -> None:
    rules = MaskingRules(features={"purpose": FieldRule("bucket", width=3)})
    with pytest.raises(MaskingPolicyInvalid, match=r"features\.purpose"):
        capture_of(tmp_path, FakeAgent(), MaskingPolicy(rules, key=KEY))
    assert list(tmp_path.iterdir()) == []
