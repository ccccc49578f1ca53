import random
import resource
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitoring.capture.backlog import SliceLimits, read_slice
from monitoring.capture.drops import DropReason
from monitoring.capture.folder import ProducerFolder
from monitoring.capture.journal import Journal, JournalLimits
from monitoring.capture.orphans import drain_orphans
from monitoring.capture.sender import SenderSettings
from tests.monitoring.capture.fleet import FakeAgent
from tests.monitoring.capture.streams import (
    Clock,
    describe,
    everything,
    open_journal,
    open_recorder,
    record,
)
from tests.monitoring.capture.victims import kill_while_writing


def ids(journal: Journal) -> list[str]:
    found = everything(journal.backlog())
    return [event.request_id for event in found.events] if found else []


def acknowledge_all(journal: Journal) -> None:
    found = everything(journal.backlog())
    assert found is not None
    journal.release(found, found.last)


def closes(journal: Journal) -> bool:
    """Read all that waits in small slices; each must account for its whole range."""
    next_seq = journal.acknowledged + 1
    while (backlog := journal.backlog()) is not None:
        part = read_slice(backlog, SliceLimits(max_rows=3))
        assert part.first == next_seq
        assert part.last - part.first + 1 == len(part.events) + sum(part.dropped.values())
        assert len(part.dropped) <= 1
        next_seq = part.last + 1
        journal.release(part, part.last)
    return next_seq == journal.recorded + 1


def test_events_come_back_in_order_over_many_segments(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    recorder = open_recorder(journal)
    for n in range(20):
        record(recorder, f"r{n}")
    assert len(list(journal.path.glob("*.journal"))) > 1
    assert ids(journal) == [f"r{n}" for n in range(20)]
    assert closes(journal)
    assert len(list(journal.path.glob("*.journal"))) == 1
    assert journal.backlog() is None
    journal.close()
    assert not journal.path.exists()


def test_past_the_quota_events_are_dropped_and_after_it_recorded_again(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    recorder = open_recorder(journal)
    for n in range(100):
        record(recorder, f"r{n}")
    full = journal.dropped[DropReason.JOURNAL_FULL]
    assert journal.journal_bytes <= journal.limits.quota_bytes
    assert full > 0
    assert any("quota" in warning for warning in journal.warnings())
    found = everything(journal.backlog())
    assert found is not None
    assert found.dropped == {"journal_full": full}
    acknowledge_all(journal)
    record(recorder, "after")
    assert ids(journal) == ["after"]
    assert recorder.counts().captured == 101
    journal.close()


def test_an_unwritable_folder_holds_events_in_memory_and_goes_back_to_disk(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.write_text("a file where the folder should be")
    clock = Clock()
    journal = open_journal(root, clock=clock)
    recorder = open_recorder(journal)
    for n in range(50):
        record(recorder, f"r{n}")
    held = 50 - journal.dropped[DropReason.BUFFER_FULL]
    assert 0 < held < 50
    assert journal.held_bytes <= journal.limits.buffer_bytes
    assert any("unwritable" in warning for warning in journal.warnings())
    assert ids(journal) == [f"r{n}" for n in range(held)]
    root.unlink()
    record(recorder, "too early to try again")
    assert not root.exists()
    clock.now_s += 5
    record(recorder, "last")
    assert journal.held_bytes == 0
    assert journal.warnings() == []
    assert ids(journal) == [*(f"r{n}" for n in range(held)), "last"]
    assert closes(journal)
    journal.close()


def test_a_short_write_is_cut_back_and_held(tmp_path: Path) -> None:
    clock = Clock()
    limits = JournalLimits(segment_bytes=10_000, quota_bytes=40_000, retry_s=5)
    journal = open_journal(tmp_path, limits=limits, clock=clock)
    recorder = open_recorder(journal)
    record(recorder, "before")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    path = next(journal.path.glob("*.journal"))
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (journal.journal_bytes + 50, hard))
        record(recorder, "cut short")
        record(recorder, "held")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.stat().st_size == journal.journal_bytes
    assert journal.held_bytes > 0
    clock.now_s += 5
    record(recorder, "after")
    assert ids(journal) == ["before", "cut short", "held", "after"]
    assert closes(journal)
    journal.close()


def test_a_deleted_folder_is_counted_and_made_again(tmp_path: Path) -> None:
    clock = Clock()
    journal = open_journal(tmp_path, clock=clock)
    recorder = open_recorder(journal)
    for n in range(4):
        record(recorder, f"r{n}")
    for path in journal.path.iterdir():
        path.unlink()
    journal.path.rmdir()
    for n in range(4, 12):
        record(recorder, f"r{n}")
        clock.now_s += 5
    found = everything(journal.backlog())
    assert found is not None
    assert found.events[-1].request_id == "r11"
    assert set(found.dropped) == {"unreadable"}
    assert closes(journal)
    assert recorder.counts().dropped == found.dropped
    journal.close()


def test_a_damaged_frame_is_counted_as_unreadable(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    recorder = open_recorder(journal)
    for n in range(4):
        record(recorder, f"r{n}")
    path = next(journal.path.glob("*.journal"))
    content = bytearray(path.read_bytes())
    content[journal.journal_bytes // 2 + 30] ^= 1
    path.write_bytes(content)
    found = everything(journal.backlog())
    assert found is not None
    assert found.dropped == {"unreadable": 1}
    assert [e.request_id for e in found.events] == ["r0", "r1", "r3"]
    journal.close()


def test_an_intact_frame_without_an_event_is_unreadable(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    journal.append(1, b"\xc1")
    record_two = open_recorder(open_journal(tmp_path, producer="other"))
    record(record_two)
    found = everything(journal.backlog())
    assert found is not None
    assert found.dropped == {"unreadable": 1}


def test_a_frame_larger_than_segment_and_chunk_goes_alone(tmp_path: Path) -> None:
    limits = JournalLimits(segment_bytes=1000, quota_bytes=10**7)
    journal = open_journal(tmp_path, limits=limits)
    recorder = open_recorder(journal)
    record(recorder, "small")
    record(recorder, "large", rows=100_000)
    record(recorder, "small again")
    parts = []
    while (backlog := journal.backlog()) is not None:
        part = read_slice(backlog, SliceLimits())
        parts.append([event.request_id for event in part.events])
        journal.release(part, part.last)
    assert parts == [["small"], ["large"], ["small again"]]
    journal.close()


def test_a_partial_acknowledgement_keeps_the_rest(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    recorder = open_recorder(journal)
    for n in range(6):
        record(recorder, f"r{n}")
    found = everything(journal.backlog())
    assert found is not None
    journal.release(found, 4)
    assert ids(journal) == ["r4", "r5"]
    journal.release(found, 3)
    assert journal.acknowledged == 4
    journal.close()


def test_given_up_events_are_counted_as_rejected_and_their_range_still_told(
    tmp_path: Path,
) -> None:
    journal = open_journal(tmp_path)
    recorder = open_recorder(journal)
    for n in range(8):
        record(recorder, f"r{n}")
    first = read_slice(journal.backlog(), SliceLimits(max_rows=5))  # type: ignore[arg-type]
    journal.give_up(first)
    assert journal.dropped == {"rejected": 5}
    found = everything(journal.backlog())
    assert found is not None
    assert (found.first, found.last, found.dropped) == (1, 8, {"rejected": 5})
    assert closes(journal)
    journal.close()


def test_a_producer_id_is_never_used_twice(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    with pytest.raises(ValueError, match=r"'p-1' has a journal.*never used twice"):
        open_journal(tmp_path)
    journal.close()
    with pytest.raises(ValueError, match=r"quota_bytes is 10; .* \(8388608\)"):
        JournalLimits(quota_bytes=10)


def test_the_folder_is_owned_until_closed(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    record(open_recorder(journal))
    assert ProducerFolder.adopt(journal.path) is None
    journal.close()
    adopted = ProducerFolder.adopt(journal.path)
    assert adopted is not None
    assert adopted.description() == describe("p-1")
    adopted.delete()
    assert ProducerFolder.adopt(journal.path) is None


@settings(deadline=None)
@given(st.data())
def test_whatever_happens_the_ledger_closes(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("ledger")
    clock = Clock()
    journal = open_journal(root, clock=clock)
    recorder = open_recorder(journal)
    delivered: list[int] = []
    told: dict[str, int] = {}
    steps = st.sampled_from(["record", "burst", "odd", "break", "mend", "deliver", "reject"])
    for step in data.draw(st.lists(steps, max_size=25)):
        match step:
            case "record" | "burst":
                for _ in range(1 if step == "record" else 15):
                    record(recorder, f"r{recorder.counts().captured + 1}")
            case "odd":
                record(recorder, ts_us=object())
            case "break":
                journal._leave_disk(OSError("pulled"))
            case "mend":
                clock.now_s += 5
            case "deliver" | "reject":
                backlog = journal.backlog()
                if backlog is None:
                    continue
                part = read_slice(backlog, SliceLimits(max_rows=data.draw(st.integers(1, 9))))
                if step == "reject":
                    journal.give_up(part)
                    continue
                assert part.last - part.first + 1 == len(part.events) + sum(part.dropped.values())
                delivered += [event.seq for event in part.events]
                for why, n in part.dropped.items():
                    told[why] = told.get(why, 0) + n
                journal.release(part, part.last)
    assert delivered == sorted(set(delivered))
    assert len(delivered) + sum(told.values()) == journal.acknowledged
    assert closes(journal)
    total = recorder.counts()
    assert total.captured == total.acknowledged
    journal.close()


async def test_what_was_recorded_before_a_sigkill_is_delivered_once(tmp_path: Path) -> None:
    rng = random.Random(7)
    for n in range(10):
        returned = kill_while_writing(tmp_path, f"p-{n}", after=rng.randrange(1, 2000))
        agent = FakeAgent()
        drained = await drain_orphans(
            tmp_path, lambda _, agent=agent: agent, settings=SenderSettings(), rng=rng
        )
        assert [d.finished for d in drained] == [True]
        # The kill may fall between the journal and the answer: one event more, never one less.
        assert len(agent.requests) in (returned, returned + 1)
        assert agent.requests == [f"r{i + 1}" for i in range(len(agent.requests))]
        assert set(agent.dropped) <= {"torn"}
