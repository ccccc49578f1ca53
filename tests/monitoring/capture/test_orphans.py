import random
from pathlib import Path

from monitoring.capture.drops import DropLog
from monitoring.capture.folder import MARKS_FILE, ProducerFolder
from monitoring.capture.frames import encode_frame, scan_frames
from monitoring.capture.orphans import Drained, drain_orphan, drain_orphans, find_orphans
from monitoring.capture.sender import SenderSettings
from monitoring.errors import DeliveryRejected
from tests.monitoring.capture.fleet import FakeAgent
from tests.monitoring.capture.streams import describe, open_journal, open_recorder, record
from tests.monitoring.capture.victims import die, drop_two, hold_one_and_drop_one

QUICK = SenderSettings(first_backoff_s=0)


async def drain(root: Path, agent: FakeAgent) -> list[Drained]:
    agent.through.setdefault("p-1", 2)
    return await drain_orphans(
        root, lambda _: agent, settings=QUICK, rng=random.Random(1), timeout_s=20
    )


async def test_a_dead_replicas_journal_is_delivered_and_deleted(tmp_path: Path) -> None:
    path = die(tmp_path)
    assert find_orphans(tmp_path) == [path]
    agent = FakeAgent()
    drained = await drain(tmp_path, agent)
    assert drained == [Drained(producer="p-1", first=3, last=5, acknowledged=5, finished=True)]
    assert agent.requests == ["r3", "r4", "r5"]
    assert agent.dropped == {}
    assert list(tmp_path.iterdir()) == []


async def test_a_living_journal_is_left_alone(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    record(open_recorder(journal))
    assert find_orphans(tmp_path) == []
    assert await drain(tmp_path, FakeAgent()) == []
    journal.close()
    assert find_orphans(tmp_path) == [journal.path]
    assert find_orphans(tmp_path / "nowhere") == []


async def test_two_drainers_do_not_meet(tmp_path: Path) -> None:
    path = die(tmp_path)
    first = ProducerFolder.adopt(path)
    assert first is not None
    settings, agent = QUICK, FakeAgent()
    second = await drain_orphan(path, agent, settings=settings, rng=random.Random(1), timeout_s=20)
    assert second is None
    first.delete()
    assert agent.payloads == []


async def test_held_and_dropped_events_at_the_end_are_accounted_for(tmp_path: Path) -> None:
    die(tmp_path, hold_one_and_drop_one)
    agent = FakeAgent()
    await drain(tmp_path, agent)
    assert agent.requests == ["r3", "r4", "r5"]
    assert agent.dropped == {"lost_in_replica": 1, "journal_full": 1}


async def test_without_marks_everything_is_sent_again_and_nothing_is_lost(tmp_path: Path) -> None:
    path = die(tmp_path)
    (path / MARKS_FILE).unlink()
    agent = FakeAgent()
    drained = await drain(tmp_path, agent)
    assert drained[0].first == 1
    assert agent.requests == ["r3", "r4", "r5"]


async def test_a_torn_tail_is_told_from_a_damaged_one(tmp_path: Path) -> None:
    for tail, reason in ((encode_frame(6, b"body")[:-1], "torn"), (b"rubbish", "unreadable")):
        path = die(tmp_path)
        last = max(path.glob("*.journal"))
        last.write_bytes(last.read_bytes() + tail)
        agent = FakeAgent()
        drained = await drain(tmp_path, agent)
        assert drained[0].finished
        assert drained[0].last == 6
        assert agent.dropped == {reason: 1}


async def test_damage_before_counted_drops_is_told_from_a_loss(tmp_path: Path) -> None:
    """Marks go further than the last frame, and that frame is damaged."""

    path = die(tmp_path, drop_two)
    last = max(path.glob("*.journal"))
    data = bytearray(last.read_bytes())
    (*_, end) = scan_frames(bytes(data), complete=True)
    data[end.end - 3] ^= 1
    last.write_bytes(data)
    agent = FakeAgent()
    await drain(tmp_path, agent)
    assert agent.requests == ["r3", "r4"]
    assert agent.dropped == {"unreadable": 1, "journal_full": 2}


async def test_an_unfinished_drain_is_taken_up_again(tmp_path: Path) -> None:
    path = die(tmp_path)

    agent = FakeAgent()
    agent.through["p-1"] = 2
    unfinished = await drain_orphan(path, agent, settings=QUICK, rng=random.Random(1), timeout_s=0)
    assert unfinished is not None
    assert not unfinished.finished
    assert path.exists()
    await drain(tmp_path, agent)
    assert agent.through == {"p-1": 5}
    assert not path.exists()


async def test_an_unreadable_description_is_left_for_a_person(tmp_path: Path) -> None:
    path = die(tmp_path)
    (path / "stream.json").write_text("{")
    assert await drain(tmp_path, FakeAgent()) == []
    assert path.exists()
    assert ProducerFolder.adopt(path) is not None


async def test_what_the_agent_refuses_for_good_is_kept_as_a_dead_letter(tmp_path: Path) -> None:
    die(tmp_path)
    agent = FakeAgent()
    agent.script.extend([DeliveryRejected("unknown policy")] * QUICK.refusals_before_giving_up)
    drained = await drain(tmp_path, agent)
    assert drained[0].finished
    assert agent.dropped == {"rejected": 3}
    assert (tmp_path / "dead-letter" / "p-1-3-5.delivery").exists()
    assert find_orphans(tmp_path) == []


async def test_a_missing_segment_is_counted_not_passed_over(tmp_path: Path) -> None:
    path = die(tmp_path)
    for segment in path.glob("*.journal"):
        segment.unlink()
    (path / "notes.journal").write_text("not a segment")
    agent = FakeAgent()
    drained = await drain(tmp_path, agent)
    # Nothing is left that knows of numbers 3 to 5: that much can no longer be told.
    assert drained == [Drained(producer="p-1", first=3, last=2, acknowledged=2, finished=True)]


async def test_remains_of_folders_half_made_or_half_deleted_go(tmp_path: Path) -> None:
    (tmp_path / ".gone-p-1").mkdir()
    (tmp_path / ".new-p-2").mkdir()
    (tmp_path / ".new-p-2" / "lock").touch()
    (tmp_path / ".mine").mkdir()
    being_made = ProducerFolder.create(tmp_path, describe("p-3"), 0, DropLog())
    being_made.path = being_made.path.rename(tmp_path / ".new-p-3")
    assert await drain(tmp_path, FakeAgent()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == [".mine", ".new-p-3"]
    being_made.close()


def test_whoever_waits_for_a_lock_gets_nothing_once_the_folder_is_gone(tmp_path: Path) -> None:
    path = die(tmp_path)
    owner = ProducerFolder.adopt(path)
    assert owner is not None
    assert owner.in_place()
    (path / "lock").rename(path / "old lock")
    (path / "lock").touch()
    assert not owner.in_place()
    owner.close()
