import asyncio
import json
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitoring.capture.backlog import Backlog, Slice, SliceLimits
from monitoring.capture.batches import Batch, to_batch
from monitoring.capture.dead_letters import DeadLetters
from monitoring.capture.journal import Journal, JournalLimits
from monitoring.capture.orphans import drain_orphans
from monitoring.capture.rowbytes import RowEvent
from monitoring.capture.sender import Sender, SenderSettings
from monitoring.errors import DeliveryRejected
from monitoring.events import Ack, PredictionEvent, Stream, decode_delivery
from tests.monitoring.capture.fleet import FakeAgent, Sleeper
from tests.monitoring.capture.streams import Clock, describe, open_journal, open_recorder, record

SETTINGS = SenderSettings(limits=SliceLimits(max_rows=4), refusals_before_giving_up=3)
ROOMY = JournalLimits(segment_bytes=1000, quota_bytes=1_000_000, retry_s=5)


def sender_of(
    journal: Journal,
    agent: FakeAgent,
    sleeper: Sleeper | None = None,
    dead_bytes: int = 10**6,
    transpose: Callable[[Stream, Sequence[PredictionEvent | RowEvent]], Batch] = to_batch,
) -> Sender:
    return Sender(
        journal,
        agent,
        DeadLetters(journal.path.parent / "dead-letter", dead_bytes),
        settings=SETTINGS,
        rng=random.Random(1),
        sleep=sleeper or Sleeper(),
        transpose=transpose,
    )


async def test_everything_arrives_once_in_order_and_leaves_the_journal(tmp_path: Path) -> None:
    journal = open_journal(tmp_path, limits=ROOMY)
    recorder, agent = open_recorder(journal), FakeAgent()
    for n in range(1, 31):
        record(recorder, f"r{n}", rows=1 + n % 3)
    sender = sender_of(journal, agent)
    assert await sender.flush(10)
    assert agent.requests == [f"r{n}" for n in range(1, 31) for _ in range(1 + n % 3)]
    assert agent.stored == {"p-1": list(range(1, 31))}
    assert recorder.counts().acknowledged == 30
    assert all(decode_delivery(p)[1].num_rows <= 4 for p in agent.payloads)
    assert sender.warnings() == []
    journal.close()
    assert not journal.path.exists()


async def test_failures_are_repeated_byte_for_byte_with_growing_waits(tmp_path: Path) -> None:
    journal = open_journal(tmp_path, limits=ROOMY)
    recorder, agent, sleeper = open_recorder(journal), FakeAgent(), Sleeper()
    record(recorder)
    agent.script.extend([ConnectionError("away")] * 9)
    sender = sender_of(journal, agent, sleeper)
    assert await sender.flush(10)
    assert len(set(agent.payloads)) == 1
    assert agent.stored == {"p-1": [1]}
    ceilings = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5, 5, 5]
    for slept_s, ceiling_s in zip(sleeper.slept_s, ceilings, strict=True):
        assert ceiling_s / 2 <= slept_s <= ceiling_s
    assert sender.warnings() == []


async def test_run_goes_on_for_ever_and_warns_while_the_agent_is_away(tmp_path: Path) -> None:
    journal = open_journal(tmp_path, limits=ROOMY)
    recorder, agent = open_recorder(journal), FakeAgent()
    record(recorder)
    agent.script.extend([ConnectionError("away")] * 100)
    sender = sender_of(journal, agent, Sleeper(stop_after=20))
    with pytest.raises(asyncio.CancelledError):
        await sender.run()
    assert "19 deliveries in a row failed (ConnectionError: away)" in sender.warnings()[0]
    assert journal.acknowledged == 0


async def test_flush_gives_up_at_its_time_out_and_loses_nothing(tmp_path: Path) -> None:
    journal = open_journal(tmp_path, limits=ROOMY)
    record(open_recorder(journal))

    class Silent(FakeAgent):
        async def ingest(self, payload: bytes) -> Ack:
            return await asyncio.get_running_loop().create_future()

    assert not await sender_of(journal, Silent()).flush(0)
    agent = FakeAgent()
    assert await sender_of(journal, agent).flush(10)
    assert agent.stored == {"p-1": [1]}


async def test_a_strange_acknowledgement_releases_nothing(tmp_path: Path) -> None:
    journal = open_journal(tmp_path, limits=ROOMY)
    record(open_recorder(journal))

    class Strange(FakeAgent):
        async def ingest(self, payload: bytes) -> Ack:
            return Ack("somebody else", 10)

    sender = sender_of(journal, Strange(), Sleeper(stop_after=3))
    with pytest.raises(asyncio.CancelledError):
        await sender.run()
    assert journal.acknowledged == 0
    assert "somebody else" in sender.warnings()[0]


async def test_what_is_refused_for_good_goes_to_the_dead_letters_and_into_the_ledger(
    tmp_path: Path,
) -> None:
    journal = open_journal(tmp_path, limits=ROOMY)
    recorder, agent = open_recorder(journal), FakeAgent()
    for n in range(1, 10):
        record(recorder, f"r{n}")
    agent.script.extend([None, *[DeliveryRejected("policy unknown")] * 3])
    assert await sender_of(journal, agent).flush(10)
    assert agent.stored == {"p-1": [1, 2, 3, 4, 9]}
    assert agent.dropped == {"rejected": 4}
    assert recorder.counts().dropped == {"rejected": 4}
    folder = tmp_path / "dead-letter"
    assert sorted(path.name for path in folder.iterdir()) == ["p-1-5-8.delivery", "p-1-5-8.json"]
    about = json.loads((folder / "p-1-5-8.json").read_text())
    assert about == {"producer": "p-1", "first": 5, "last": 8, "reason": "policy unknown"}
    header, batch = decode_delivery((folder / "p-1-5-8.delivery").read_bytes())
    assert (header.first, batch.num_rows) == (5, 4)


async def test_dead_letters_are_bounded(tmp_path: Path) -> None:
    journal = open_journal(tmp_path, limits=ROOMY)
    recorder, agent = open_recorder(journal), FakeAgent()
    record(recorder)
    agent.script.extend([DeliveryRejected("no")] * 3)
    assert await sender_of(journal, agent, dead_bytes=10).flush(10)
    assert list((tmp_path / "dead-letter").iterdir()) == []
    assert agent.dropped == {"rejected": 1}


async def test_an_event_without_rows_is_counted_and_a_wild_time_is_kept(tmp_path: Path) -> None:
    journal = open_journal(tmp_path, limits=ROOMY)
    agent = FakeAgent()
    # `record` never makes these, another version might.
    for event in (
        PredictionEvent(1, 1, "bare", 200, 1.0, []),
        PredictionEvent(2, 2**63, "wild", 200, 1.0, [[1, 1.0, "x", True]]),
    ):
        journal.append(event.seq, msgspec.msgpack.encode(event))
    assert await sender_of(journal, agent).flush(10)
    assert agent.stored["p-1"] == [2]
    assert agent.dropped == {"unreadable": 1}


async def test_an_event_that_cannot_be_transposed_costs_itself_only(tmp_path: Path) -> None:
    journal = open_journal(tmp_path, limits=ROOMY)
    recorder, agent = open_recorder(journal), FakeAgent()
    for n in range(1, 9):
        record(recorder, f"r{n}")

    def fails_at_six(stream: Stream, events: Sequence[PredictionEvent]) -> Batch:
        if any(event.seq == 6 for event in events):
            raise RuntimeError("a defect")
        return to_batch(stream, events)

    sender = Sender(
        journal,
        agent,
        DeadLetters(tmp_path / "dead-letter", 10**6),
        settings=SETTINGS,
        rng=random.Random(1),
        sleep=Sleeper(),
        transpose=fails_at_six,
    )
    assert await sender.flush(10)
    assert agent.stored["p-1"] == [1, 2, 3, 4, 5, 7, 8]
    assert agent.dropped == {"rejected": 1}


@settings(deadline=None)
@given(st.data())
async def test_nothing_is_lost_or_doubled_whatever_the_agent_does(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    journal = open_journal(tmp_path_factory.mktemp("sender"), limits=ROOMY)
    recorder, agent = open_recorder(journal), FakeAgent()
    sender = sender_of(journal, agent)
    for step in data.draw(
        st.lists(st.sampled_from(["record", "fail", "lose", "flush", "break"]), max_size=20)
    ):
        match step:
            case "record":
                for _ in range(3):
                    record(recorder)
            case "fail":
                agent.script.append(ConnectionError("away"))
            case "lose":
                agent.lost_acks += 1
            case "break":
                journal._leave_disk(OSError("pulled"))
            case "flush":
                assert await sender.flush(10)
    assert await sender.flush(10)
    captured = recorder.counts().captured
    assert agent.stored.get("p-1", []) == list(range(1, captured + 1))
    assert recorder.counts().acknowledged == captured
    journal.close()


@settings(deadline=None)
@given(st.data())
async def test_a_crash_at_any_moment_leaves_every_number_stored_or_explained(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    root, clock = tmp_path_factory.mktemp("crash"), Clock()
    tight = JournalLimits(segment_bytes=700, quota_bytes=3000, buffer_bytes=1500, retry_s=5)
    journal = open_journal(root, limits=tight, clock=clock)
    recorder, agent = open_recorder(journal), FakeAgent()
    sender = sender_of(journal, agent)
    steps = st.sampled_from(["record", "lose", "flush", "break", "mend", "refuse", "abandon"])
    answered: list[str] = []
    for step in data.draw(st.lists(steps, max_size=25)):
        match step:
            case "record":
                for _ in range(4):
                    answered.append(f"r{len(answered) + 1}")
                    record(recorder, answered[-1])
            case "lose":
                agent.lost_acks += 1
            case "break":
                journal._leave_disk(OSError("pulled"))
            case "mend":
                clock.now_s += 5
            case "refuse":
                agent.script.extend([DeliveryRejected("no")] * SETTINGS.refusals_before_giving_up)
            case "flush":
                assert await sender.flush(10)
            case "abandon":  # the agent stores it, the replica never hears of it
                backlog = journal.backlog()
                if backlog is not None:
                    with suppress(ConnectionError, DeliveryRejected):
                        await agent.ingest(sender._build(backlog).payload)
    in_memory_only = len(journal._held)
    assert journal._folder is not None
    journal._folder.close()  # as a SIGKILL does: the lock goes, nothing is tidied
    journal._folder = None
    agent.script.clear()
    agent.lost_acks = 0
    await drain_orphans(root, lambda _: agent, settings=SETTINGS, rng=random.Random(1))
    stored = agent.stored.get("p-1", [])
    assert stored == sorted(set(stored))
    assert agent.requests == [f"r{seq}" for seq in stored]
    assert len(stored) + sum(agent.dropped.values()) == len(answered)
    assert agent.dropped.get("lost_in_replica", 0) <= in_memory_only
    assert "unreadable" not in agent.dropped
    journal.close()


async def test_run_pauses_after_what_waited_when_it_began(tmp_path: Path) -> None:
    journal = open_journal(tmp_path, limits=ROOMY)
    recorder, sleeper = open_recorder(journal), Sleeper(stop_after=5)

    class BusyAgent(FakeAgent):
        async def ingest(self, payload: bytes) -> Ack:
            record(recorder)  # requests go on while a delivery is under way
            return await super().ingest(payload)

    agent = BusyAgent()
    record(recorder)
    with suppress(asyncio.CancelledError):
        await sender_of(journal, agent, sleeper).run()
    assert agent.ranges == [(1, 1), (2, 2), (3, 3), (4, 4)]
    assert sleeper.slept_s == [SETTINGS.flush_interval_s] * 5


async def test_run_outlives_an_outbox_that_fails(tmp_path: Path) -> None:
    """A defect somewhere costs a pause and a warning; without its sender a journal would fill."""

    class Defective(Journal):
        failures = 2

        def backlog(self) -> Backlog | None:
            self.failures -= 1
            if self.failures >= 0:
                raise RuntimeError("a defect")
            return super().backlog()

    journal = Defective(tmp_path, describe("p-1"), limits=ROOMY, monotonic=Clock())
    record(open_recorder(journal))
    agent = FakeAgent()
    sender = sender_of(journal, agent, Sleeper(stop_after=4))
    with suppress(asyncio.CancelledError):
        await sender.run()
    assert sender.counts.failed == 2
    assert agent.stored == {"p-1": [1]}
    assert sender.warnings() == []


async def test_flush_answers_though_the_outbox_fails(tmp_path: Path) -> None:
    """Other streams of the replica are flushed after it."""

    class Defective(Journal):
        def give_up(self, refused: Slice) -> None:
            raise RuntimeError("a defect")

    journal = Defective(tmp_path, describe("p-1"), limits=ROOMY, monotonic=Clock())
    record(open_recorder(journal))

    def never(stream: Stream, events: object) -> NoReturn:
        raise ValueError("no batch")

    sender = sender_of(journal, FakeAgent(), transpose=never)
    assert not await sender.flush(0.2)
    assert "a defect" in sender.warnings()[0]
