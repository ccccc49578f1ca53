"""Any order, any overlap, any repetition: each event is stored once and the ledger closes."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitoring.agent.intake import Intake
from monitoring.agent.ledger import Covered
from monitoring.agent.settings import SamplingSettings, SpoolSettings
from monitoring.errors import DeliveryRejected, SinkUnavailable
from tests.monitoring.agent.conftest import (
    STREAM,
    T0_US,
    Agent,
    delivery,
    memory_folder,
    rows_of,
    stored_events,
)

HOUR_US = 3_600_000_000
LAST = 40


def stored_ranges(folder: Path) -> list[dict]:
    return sorted(
        (
            part
            for path in (folder / "sink" / "events").rglob("*.parquet")
            for parts in json.loads(pq.read_metadata(path).metadata[b"treeline.coverage"]).values()
            for part in parts
        ),
        key=lambda part: part["first"],
    )


def straddling(seq: int):
    """Two rows on every third request; the hour turns at 20, requests near it interleave."""
    later = seq > 20 or seq in (17, 19)
    return rows_of(seq, ts_us=T0_US + later * HOUR_US, rows=2 if seq % 3 == 0 else 1)


class Poisoned(Intake):
    """Fails on one producer in a way that nobody thought of."""

    def _take(self, payload):
        if b"poison" in payload:
            raise IndexError("beyond the last row")
        return super()._take(payload)


def test_a_delivery_that_fails_unexpectedly_is_refused_alone(tmp_path, caplog):
    agent = Agent(tmp_path)
    intake = Poisoned(agent.settings, agent.spool, agent.clock)
    group = [delivery(1, 2), delivery(1, 2, producer="poison"), delivery(3, 4)]
    first, refused, second = intake.commit(group)
    assert (first.through, second.through) == (2, 4)
    assert isinstance(refused, DeliveryRejected)
    assert "IndexError" in str(refused)
    assert intake.counts.rejected == 1
    assert "IndexError" in caplog.text
    agent.die()


RANGE = st.tuples(st.integers(1, LAST), st.integers(1, LAST)).map(sorted)
DROPPED = st.dictionaries(
    st.integers(1, LAST), st.sampled_from(["journal_full", "too_large"]), max_size=6
)


@settings(max_examples=30, deadline=None)
@given(sent=st.lists(RANGE, max_size=12), dropped=DROPPED, data=st.data())
def test_every_event_is_stored_once_whatever_is_resent(sent, dropped, data):
    """Ends with one delivery of everything; agents die and come back in between."""
    crashes = data.draw(st.sets(st.integers(0, len(sent)), max_size=2))
    with memory_folder() as name:
        folder = Path(name)
        agent = Agent(folder)
        seen: set[int] = set()
        for step, (first, last) in enumerate([*sent, [1, LAST]]):
            ack = agent.take(delivery(first, last, dropped=dropped, events=straddling))
            seen |= set(range(first, last + 1))
            assert ack.through == next(n for n in range(1, LAST + 2) if n not in seen) - 1
            if step in crashes:
                agent.die()
                agent = Agent(folder, epoch=f"e{step + 2}")
        agent.drain()
        agent.die()
        expected = [
            f"p1-{seq}-{row['row']}"
            for seq in range(1, LAST + 1)
            if seq not in dropped
            for row in straddling(seq)
        ]
        assert stored_events(folder) == sorted(expected)
        ranges = stored_ranges(folder)
        assert [r["first"] for r in ranges] == [1, *(r["last"] + 1 for r in ranges[:-1])]
        assert ranges[-1]["last"] == LAST
        assert sum(r["written"] for r in ranges) == LAST - len(dropped)
        assert sum(sum(r["dropped"].values()) for r in ranges) == len(dropped)
        assert all(
            r["received"] == r["written"] + r["sampled_out"] + sum(r["dropped"].values())
            for r in ranges
        )


def test_sampled_out_events_are_accounted_for(tmp_path):
    agent = Agent(tmp_path, sampling=SamplingSettings(rates={"champion": 0.5}))
    agent.take(delivery(1, 200))
    settled, waiting, _ = agent.spool.accounts()
    assert settled == {}
    assert waiting["p1"].settled == 200
    agent.drain()
    settled, waiting, _ = agent.spool.accounts()
    assert waiting == {}
    assert settled["p1"].settled == 200
    assert settled["p1"].written == len(stored_events(tmp_path))
    agent.die()


def test_a_run_without_kept_rows_still_closes_its_range(tmp_path):
    agent = Agent(tmp_path, sampling=SamplingSettings(rates={"champion": 0.0}))
    agent.take(delivery(1, 5, dropped={2: "too_large"}))
    agent.drain()
    agent.die()
    assert stored_events(tmp_path) == []
    assert stored_ranges(tmp_path) == [
        {
            "first": 1,
            "last": 5,
            "received": 5,
            "written": 0,
            "sampled_out": 4,
            "dropped": {"too_large": 1},
        }
    ]


def test_an_unknown_masking_policy_is_refused_for_good(agent):
    with pytest.raises(DeliveryRejected, match="'other' is unknown; known: \\['policy'\\]"):
        agent.take(delivery(1, 2, policy_id="other"))
    assert agent.intake.counts.rejected == 1


def test_a_policy_known_yesterday_is_taken_today(tmp_path):
    Agent(tmp_path).die()
    path = tmp_path / "state" / "policies.json"
    path.write_text('["yesterday"]')
    agent = Agent(tmp_path, epoch="e2")
    assert agent.take(delivery(1, 2, policy_id="yesterday")).through == 2
    assert json.loads(path.read_text()) == ["policy", "yesterday"]
    agent.die()


@pytest.mark.parametrize("cut", [0, 3, 40, -9])
def test_unreadable_bytes_are_refused(agent, cut):
    with pytest.raises(DeliveryRejected):
        agent.take(delivery(1, 3)[:cut])


def test_an_account_that_does_not_add_up_is_refused(agent):
    good = delivery(1, 3)
    with pytest.raises(DeliveryRejected, match="1 to 3 are not 2 events"):
        agent.take(good.replace(b"\xa6events\x03", b"\xa6events\x02"))


def test_a_full_spool_asks_to_come_again_and_loses_nothing(tmp_path):
    agent = Agent(tmp_path, spool_settings=SpoolSettings(max_bytes=3000))
    acks = 0
    with pytest.raises(SinkUnavailable, match="max_bytes is 3000"):
        for number in range(1, 99):
            acks = agent.take(delivery(number, number)).through
    agent.drain()
    assert agent.take(delivery(acks + 1, acks + 1)).through == acks + 1
    agent.die()


def test_numbers_acknowledged_by_another_agent_are_not_waited_for(agent):
    assert agent.take(delivery(101, 110)).through == 0
    assert agent.take(delivery(111, 120, acknowledged=100)).through == 120
    agent.drain()
    assert [r["first"] for r in stored_ranges(agent.folder)] == [101]


def test_a_group_answers_each_delivery_for_itself(agent):
    answers = agent.intake.commit([delivery(1, 2), b"nonsense", delivery(3, 4)])
    assert answers[0].through == 2
    assert isinstance(answers[1], DeliveryRejected)
    assert answers[2].through == 4


def test_drops_alone_are_booked_under_the_present_hour(agent):
    agent.take(delivery(1, 2, dropped={1: "journal_full", 2: "journal_full"}))
    agent.drain()
    assert agent.spool.accounts()[0]["p1"].dropped == {"journal_full": 2}
    (path,) = agent.folder.rglob("*.parquet")
    assert "/date=2026-09-21/hour=14/" in str(path)


def test_names_cannot_leave_their_folder(tmp_path):
    import msgspec

    stream = msgspec.structs.replace(STREAM, model="../../etc", version="a/b=c")
    agent = Agent(tmp_path)
    agent.take(delivery(1, 1, stream=stream))
    agent.drain()
    agent.die()
    (path,) = tmp_path.rglob("*.parquet")
    assert "/model=..%2F..%2Fetc/version=a%2Fb%3Dc/" in str(path)


def test_ranges_of_a_merged_account_add_up():
    part = Covered(first=1, last=3, received=3, written=1, sampled_out=1, dropped={"x": 1})
    from monitoring.agent.ledger import merged

    after = Covered(first=4, last=4, received=1, written=0, sampled_out=0, dropped={"y": 1})
    assert merged([after, part]) == [
        Covered(first=1, last=4, received=4, written=1, sampled_out=1, dropped={"x": 1, "y": 1})
    ]
