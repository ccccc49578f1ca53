"""A spool on a node without an agent reaches the agent that lives elsewhere, once."""

import random

import pytest

from monitoring.agent.settings import SamplingSettings, SinkSettings, SpoolSettings
from monitoring.agent.sink import FsspecSink
from monitoring.agent.stranded import hand_over, stranded
from monitoring.agent.verify import verify
from monitoring.errors import SinkUnavailable
from tests.monitoring.agent.conftest import T0_US, Agent, delivery, rows_of, stored_events

HALF = SamplingSettings(rates={"champion": 0.5})


class ToAgent:
    """A transport to an agent in this process; ``fail_after`` calls it is away."""

    def __init__(self, agent, fail_after=10**9):
        self.agent = agent
        self.left = fail_after

    async def ingest(self, payload):
        self.left -= 1
        if self.left < 0:
            raise SinkUnavailable("no agent")
        return self.agent.take(payload)


class Disks:
    """Agents with a disk each, and one sink for all."""

    def __init__(self, folder):
        self.folder = folder
        self.sink = FsspecSink(SinkSettings(url=str(folder / "sink")))
        self.living = []

    def start(self, disk, epoch=None, **options):
        name = epoch or f"e-{disk}"
        agent = Agent(self.folder / disk, epoch=name, sink=self.sink, **options)
        self.living.append(agent)
        return agent

    def lose(self, agent):
        self.living.remove(agent)
        agent.die()


@pytest.fixture
def disks(tmp_path):
    made = Disks(tmp_path)
    yield made
    for agent in made.living:
        agent.die()


async def give(old, transport, **options):
    spool = old.folder / "state" / "spool"
    (folder,) = stranded(spool, 1, ())
    return await hand_over(
        folder,
        lambda producer: transport,
        options.get("storage", FsspecSink(SinkSettings(url=str(old.folder.parent / "sink")))),
        shards=1,
        clock=old.clock,
        chance=random.Random(2),
        timeout_s=options.get("timeout_s", 20.0),
    )


def checked(tmp_path):
    verdict = verify(SinkSettings(url=str(tmp_path / "sink")))
    assert verdict.problems == ()
    return verdict


async def test_what_the_old_agent_acknowledged_is_stored_by_the_new_one(tmp_path, disks):
    old = disks.start("old")
    old.take(delivery(1, 5))
    old.drain()  # stored long ago
    old.take(delivery(6, 10))
    disks.lose(old)
    new = disks.start("new")
    assert new.take(delivery(11, 15, acknowledged=10)).through == 15
    done = await give(old, ToAgent(new))
    assert (done.segments, done.left, done.problem) == (1, 0, None)
    assert stranded(old.folder / "state" / "spool", 1, ()) == []
    new.drain()
    assert checked(tmp_path).written == 15
    assert len(set(stored_events(tmp_path))) == len(stored_events(tmp_path)) == 15


async def test_a_lost_acknowledgement_does_not_store_twice(tmp_path, disks):
    old = disks.start("old")
    old.take(delivery(1, 7))
    old.take(delivery(8, 12))  # taken, but nobody heard
    disks.lose(old)
    new = disks.start("new")
    new.take(delivery(8, 14, acknowledged=7))
    await give(old, ToAgent(new))
    new.drain()
    assert checked(tmp_path).written == 14
    assert len(stored_events(tmp_path)) == 14


class BreaksAfterTheFile:
    """Storage that takes files of events and then no ledger: the agent dies in between."""

    def __init__(self, sink):
        self.sink = sink

    def put(self, key, data):
        if key.startswith("ledger/"):
            raise SinkUnavailable("gone")
        self.sink.put(key, data)


class Silent:
    """Storage that does not answer."""

    def holds(self, key):
        raise SinkUnavailable("silent")


async def test_what_the_old_agent_had_stored_and_not_settled_is_not_stored_again(tmp_path, disks):
    old = disks.start("old")
    old.uploader._sink = BreaksAfterTheFile(disks.sink)
    old.take(delivery(1, 5))
    with pytest.raises(SinkUnavailable):
        old.drain()
    assert len(stored_events(tmp_path)) == 5
    disks.lose(old)
    new = disks.start("new")
    assert new.take(delivery(6, 8, acknowledged=5)).through == 8
    done = await give(old, ToAgent(new))
    assert (done.segments, done.left, done.problem) == (1, 0, None)
    new.drain()
    assert checked(tmp_path).written == 8
    assert len(stored_events(tmp_path)) == 8


async def test_while_storage_does_not_answer_nothing_is_sent(tmp_path, disks):
    old = disks.start("old")
    old.take(delivery(1, 5))
    disks.lose(old)
    new = disks.start("new")
    done = await give(old, ToAgent(new), storage=Silent())
    assert (done.segments, done.left, done.problem) == (0, 1, "SinkUnavailable: silent")
    assert new.intake.counts.events == 0


async def test_broken_off_it_goes_on_and_sends_nothing_twice(tmp_path, disks):
    old = disks.start("old")
    for first in range(1, 30, 5):
        old.take(delivery(first, first + 4))
    disks.lose(old)
    new = disks.start("new")
    done = await give(old, ToAgent(new, fail_after=3))
    assert (done.segments, done.left) == (0, 1)
    assert "no agent" in done.problem
    disks.lose(new)  # what it has acknowledged it keeps, on its own disk
    again = disks.start("new", "e-again")
    assert (await give(old, ToAgent(again))).problem is None
    again.drain()
    assert checked(tmp_path).written == 30


async def test_no_time_is_no_loss(tmp_path, disks):
    old = disks.start("old")
    old.take(delivery(1, 5))
    disks.lose(old)
    done = await give(old, ToAgent(disks.start("new")), timeout_s=0)
    assert (done.segments, done.left) == (0, 1)
    assert "TimeoutError" in done.problem


async def test_weights_sampling_and_drops_stay_as_they_were_decided(tmp_path, disks):
    old = disks.start("old", sampling=HALF)
    old.take(delivery(1, 100, dropped={3: "journal_full", 4: "journal_full"}))
    _, waiting, _ = old.spool.accounts()
    disks.lose(old)
    new = disks.start("new")  # would keep everything
    await give(old, ToAgent(new))
    _, taken, _ = new.spool.accounts()
    assert taken == waiting
    assert taken["p1"].sampled_out > 20
    new.drain()
    verdict = checked(tmp_path)
    assert verdict.dropped == {"journal_full": 2}
    assert (verdict.written, verdict.sampled_out) == (
        waiting["p1"].written,
        waiting["p1"].sampled_out,
    )


async def test_damaged_rows_are_counted_and_kept_aside(tmp_path, disks):
    old = disks.start("old")
    for first in (1, 6, 11):
        old.take(delivery(first, first + 4))
    disks.lose(old)
    (path,) = (old.folder / "state/spool/0/e-old").glob("*.spool")
    data = bytearray(path.read_bytes())
    data[data.index(b"request-7")] ^= 1
    path.write_bytes(data)
    new = disks.start("new")
    await give(old, ToAgent(new))
    new.drain()
    assert checked(tmp_path).dropped == {"spool_corrupt": 5}
    assert (old.folder / "state/dead-letter" / path.name).exists()


async def test_a_policy_that_only_the_old_agent_knew_is_taken(tmp_path, disks):
    old = disks.start("old")
    old.intake._policy_ids = frozenset({"policy", "of old"})
    old.take(delivery(1, 5, policy_id="of old"))
    disks.lose(old)
    new = disks.start("new")
    assert (await give(old, ToAgent(new))).problem is None
    new.drain()
    assert checked(tmp_path).written == 5


async def test_living_epochs_and_living_shards_are_left_alone(tmp_path, disks):
    old = disks.start("old")
    old.take(delivery(1, 5))
    spool = old.folder / "state" / "spool"
    assert stranded(spool, 1, (0,)) == []
    assert stranded(tmp_path / "nowhere", 1, ()) == []
    done = await give(old, ToAgent(disks.start("new")))  # the actor is gone, its process is not
    assert (done.segments, done.left) == (0, 0)
    assert done.problem == "1 lives of agents are not over or cannot be read"
    assert [p.name for p in (spool / "0").iterdir() if p.is_dir()] == ["e-old"]
    old.drain()
    assert checked(tmp_path).written == 5


async def test_shards_that_nobody_runs_any_more_are_handed_over_too(tmp_path, disks):
    old = disks.start("old", shard="1", shards=2)
    old.take(delivery(1, 5))
    disks.lose(old)
    assert stranded(old.folder / "state" / "spool", 1, (0,)) == []  # its agent fetches them
    new = disks.start("new")
    assert (await give(old, ToAgent(new))).segments == 1
    new.drain()
    assert checked(tmp_path).written == 5


async def test_an_agent_that_comes_back_refuses_what_was_handed_over(tmp_path, disks):
    old = disks.start("old")
    old.take(delivery(1, 5))
    disks.lose(old)
    new = disks.start("new")
    await give(old, ToAgent(new))
    new.drain()
    back = disks.start("old", "e-back")
    assert back.take(delivery(3, 7, acknowledged=2)).through == 7
    back.drain()
    assert checked(tmp_path).written == 7


async def test_hours_stay(tmp_path, disks):
    old = disks.start("old", spool_settings=SpoolSettings())
    before = T0_US - 5 * 3_600_000_000
    old.take(delivery(1, 4, events=lambda seq: rows_of(seq, ts_us=before if seq < 3 else T0_US)))
    disks.lose(old)
    new = disks.start("new")
    assert (await give(old, ToAgent(new))).segments == 2
    new.drain()
    checked(tmp_path)
    hours = sorted(p.parent.name for p in (tmp_path / "sink/events").rglob("*.parquet"))
    assert hours == ["hour=09", "hour=14"]


async def test_handed_over_to_and_fro_it_is_stored_once(tmp_path, disks):
    """Agents move from one node to another and back: what was given away is no longer held."""
    first = disks.start("old")
    first.take(delivery(1, 5))
    first.drain()
    first.take(delivery(6, 9))
    disks.lose(first)
    second = disks.start("new")
    await give(first, ToAgent(second))
    disks.lose(second)
    third = disks.start("old", "e-third")
    assert third.take(delivery(8, 12, acknowledged=9)).through == 12
    await give(second, ToAgent(third))
    third.drain()
    assert checked(tmp_path).written == 12
    assert len(stored_events(tmp_path)) == 12
