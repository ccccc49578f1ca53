"""An agent may die between any two steps, and an old one may live beside a new one."""

import errno
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from monitoring.agent.settings import SinkSettings, SpoolSettings
from monitoring.agent.sink import FsspecSink
from monitoring.agent.spool_frames import RowsHead
from monitoring.agent.verify import verify
from monitoring.errors import SinkUnavailable
from tests.monitoring.agent.conftest import (
    STREAM,
    T0_US,
    Agent,
    delivery,
    memory_folder,
    rows_of,
    stored_events,
)


class Crash(BaseException):
    """The process is gone. Not an ``Exception``: nothing may catch it and go on."""


class ScriptedSink:
    """A local sink that does, for each ``put``, what the script says next."""

    def __init__(self, folder: Path, script=()):
        self._real = FsspecSink(SinkSettings(url=str(folder / "sink")))
        self.script = list(script)
        self.puts = []

    def put(self, key, data):
        step = self.script.pop(0) if self.script else "store"
        if step == "crash before":
            raise Crash
        if step == "away":
            raise SinkUnavailable("away")
        self._real.put(key, data)
        self.puts.append((key, bytes(data)))
        if step == "crash after":
            raise Crash
        if step == "lost answer":
            raise SinkUnavailable("stored, but nobody heard")

    def holds(self, key):
        return self._real.holds(key)


def whole(folder: Path, last: int) -> None:
    assert stored_events(folder) == sorted(f"p1-{seq}-0" for seq in range(1, last + 1))
    verdict = verify(SinkSettings(url=str(folder / "sink")))
    assert verdict.problems == ()
    assert verdict.written == last


@pytest.mark.parametrize(
    "script",
    [
        ["crash before"],
        ["crash after"],
        ["store", "crash before"],
        ["store", "crash after"],
        ["lost answer", "crash before"],
    ],
)
def test_a_crash_at_any_upload_step_stores_once(tmp_path, script):
    old = Agent(tmp_path, sink=ScriptedSink(tmp_path, script))
    old.take(delivery(1, 10))
    with pytest.raises((Crash, SinkUnavailable)):
        old.drain()
    old.die()
    new = Agent(tmp_path, epoch="e2")
    assert new.take(delivery(8, 12)).through == 12
    new.drain()
    new.die()
    whole(tmp_path, 12)


def test_a_crash_between_checkpoint_and_deletion_counts_once(tmp_path):
    old = Agent(tmp_path)
    old.take(delivery(1, 10))
    old.spool.seal_everything(old.now_s)
    segment = old.spool.next_sealed()
    shutil.copy(segment.path, tmp_path / "kept")
    old.uploader.step()
    shutil.copy(tmp_path / "kept", segment.path)
    old.die()
    new = Agent(tmp_path, epoch="e2")
    settled, waiting, _ = new.spool.accounts()
    assert (settled["p1"].written, waiting) == (10, {})
    assert not segment.path.exists()
    new.drain()
    new.die()
    whole(tmp_path, 10)


def test_a_retry_writes_the_same_bytes_under_the_same_key(tmp_path):
    sink = ScriptedSink(tmp_path, ["lost answer", "store", "lost answer"])
    agent = Agent(tmp_path, sink=sink)
    agent.take(delivery(1, 10))
    for _ in range(2):
        with pytest.raises(SinkUnavailable):
            agent.drain()
        agent.now_s += 5000.0  # another hour, and no difference
    agent.drain()
    files = [put for put in sink.puts if put[0].startswith("events/")]
    assert len(files) == 3
    assert len(set(files)) == 1
    agent.die()
    whole(tmp_path, 10)


def test_a_torn_tail_is_cut_and_can_come_again(tmp_path):
    old = Agent(tmp_path)
    old.take(delivery(1, 5))
    old.take(delivery(6, 9))
    old.die()
    (path,) = (tmp_path / "state" / "spool" / "0" / "e1").glob("*.spool")
    path.write_bytes(path.read_bytes()[:-7])
    new = Agent(tmp_path, epoch="e2")
    assert new.take(delivery(3, 9)).through == 9
    new.drain()
    new.die()
    whole(tmp_path, 9)


def test_a_broken_frame_in_the_middle_is_counted_as_lost_and_kept_aside(tmp_path):
    old = Agent(tmp_path)
    for first in (1, 6, 11):
        old.take(delivery(first, first + 4))
    old.die()
    (path,) = (tmp_path / "state" / "spool" / "0" / "e1").glob("*.spool")
    data = bytearray(path.read_bytes())
    data[data.index(b"request-7")] ^= 1
    path.write_bytes(data)
    new = Agent(tmp_path, epoch="e2")
    new.drain()
    assert new.spool.accounts()[0]["p1"].dropped == {"spool_corrupt": 5}
    new.die()
    verdict = verify(SinkSettings(url=str(tmp_path / "sink")))
    assert (verdict.ok, verdict.written, verdict.dropped) == (True, 10, {"spool_corrupt": 5})
    kept = tmp_path / "state" / "dead-letter"
    assert sorted(p.name for p in kept.iterdir()) == [path.name, f"{path.name}.reason.txt"]
    assert {p.stat().st_mode & 0o777 for p in kept.iterdir()} == {0o600}


def test_a_file_of_noise_is_no_reason_not_to_start(tmp_path):
    Agent(tmp_path).die()
    folder = tmp_path / "state" / "spool" / "0" / "e1"
    folder.mkdir(exist_ok=True)
    (folder / "e1-000000.spool").write_bytes(b"noise" * 100)
    (folder / "e1-000001.spool").write_bytes(b"")
    agent = Agent(tmp_path, epoch="e2")
    assert agent.take(delivery(1, 1)).through == 1
    agent.die()


def refusing(code):
    def fail(*_args):
        raise OSError(code, os.strerror(code))

    return fail


def test_a_full_disk_is_no_reason_not_to_start(tmp_path, monkeypatch):
    old = Agent(tmp_path)
    old.take(delivery(1, 5))
    old.die()
    with monkeypatch.context() as full:
        full.setattr(os, "writev", refusing(errno.ENOSPC))
        new = Agent(tmp_path, epoch="e2")
        assert new.spool.state().sealed_segments == 1
        with pytest.raises(SinkUnavailable, match="cannot write"):
            new.take(delivery(4, 7))
        new.drain()
    assert stored_events(tmp_path) == [f"p1-{seq}-0" for seq in range(1, 6)]
    assert new.take(delivery(4, 7)).through == 7
    new.drain()
    new.die()
    whole(tmp_path, 7)


def test_the_reserve_makes_room_for_a_new_epoch(tmp_path, monkeypatch):
    Agent(tmp_path).die()
    folder = tmp_path / "state" / "spool" / "0"
    reserve = folder / "reserve"
    assert reserve.exists()
    mkdir = Path.mkdir

    def full_until_freed(path, *args, **options):
        if path.parent == folder and reserve.exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        mkdir(path, *args, **options)

    with monkeypatch.context() as full:
        full.setattr(Path, "mkdir", full_until_freed)
        agent = Agent(tmp_path, epoch="e2")
    assert not reserve.exists()
    agent.take(delivery(1, 2))
    agent.drain()
    agent.die()
    assert reserve.exists()
    whole(tmp_path, 2)


def test_a_segment_that_cannot_be_taken_now_waits_alone_and_is_taken_later(tmp_path, monkeypatch):
    old = Agent(tmp_path)
    old.take(delivery(1, 5))
    old.take(delivery(6, 9, events=lambda seq: rows_of(seq, ts_us=T0_US + 3_600_000_000)))
    old.die()
    torn = min((tmp_path / "state" / "spool" / "0" / "e1").glob("*.spool"))
    torn.write_bytes(torn.read_bytes() + b"half a frame")
    with monkeypatch.context() as full:
        full.setattr(os, "truncate", refusing(errno.EIO))
        new = Agent(tmp_path, epoch="e2")
        assert new.spool.state().sealed_segments == 1
        assert new.spool.state().foreign_epochs == 1
        assert new.spool.adopt(new.now_s) == 0
        assert new.take(delivery(1, 10)).through == 10
        new.drain()
    assert new.spool.adopt(new.now_s) == 1
    new.drain()
    assert new.spool.state().foreign_epochs == 0
    new.die()
    assert not torn.parent.exists()
    whole(tmp_path, 10)


def test_a_living_old_agent_and_a_new_one_refuse_the_same_numbers(tmp_path):
    old, new = Agent(tmp_path), Agent(tmp_path, epoch="e2")
    old.take(delivery(1, 5))
    assert new.take(delivery(3, 8)).through == 8
    assert old.take(delivery(1, 9)).through == 9
    assert new.spool.adopt(new.now_s) == 0
    assert new.spool.state().foreign_epochs == 1
    old.drain()
    assert new.take(delivery(1, 10)).through == 10
    old.die()
    new.spool.adopt(new.now_s)
    new.drain()
    assert new.spool.state().foreign_epochs == 0
    new.die()
    assert not (tmp_path / "state" / "spool" / "0" / "e1").exists()
    whole(tmp_path, 10)


def test_what_the_other_agent_has_stored_and_deleted_is_known_too(tmp_path):
    old, new = Agent(tmp_path), Agent(tmp_path, epoch="e2")
    for agent, first in ((old, 1), (new, 4), (old, 7), (new, 10)):
        agent.take(delivery(first, first + 2))
        agent.drain()
    old.take(delivery(13, 15))
    old.drain()
    assert new.take(delivery(1, 15)).through == 15
    new.drain()
    assert new.spool.accounts()[0]["p1"].written == 15
    new.die()
    old.die()
    whole(tmp_path, 15)


def test_rows_that_never_become_parquet_go_to_the_dead_letters_and_block_nobody(tmp_path, caplog):
    sink = ScriptedSink(tmp_path, ["away", "store", "away"])
    agent = Agent(tmp_path, sink=sink)
    head = RowsHead(
        producer="p1",
        first=1,
        last=3,
        written=2,
        sampled_out=1,
        dropped={},
        rows=2,
        policy_id="policy",
        node="n",
        env="e",
    )
    wrong = pa.RecordBatch.from_pydict({"seq": ["not", "numbers"]})
    with agent.spool.committing():
        agent.spool.append(STREAM, 0, head, wrong, agent.now_s)
    agent.take(delivery(4, 5))
    for _ in range(2):
        with pytest.raises(SinkUnavailable):
            agent.drain()
    agent.drain()
    assert agent.uploader.counts.dead_letters == 1
    assert agent.spool.accounts()[0]["p1"].dropped == {"dead_letter": 2}
    agent.die()
    verdict = verify(SinkSettings(url=str(tmp_path / "sink")))
    assert (verdict.ok, verdict.written, verdict.sampled_out) == (True, 2, 1)
    assert verdict.dropped == {"dead_letter": 2}
    assert len(list((tmp_path / "state" / "dead-letter").glob("*.spool"))) == 1


class Redeploys(RuleBasedStateMachine):
    """Two agents at most, one producer, a sink that fails: nothing is lost or doubled."""

    def __init__(self):
        super().__init__()
        self._temporary = memory_folder()
        self.folder = Path(self._temporary.name)
        self.alive: list[Agent] = []
        self.epochs = 0
        self.sent = 0
        self.acknowledged = 0
        self.start()

    @precondition(lambda self: len(self.alive) < 2)
    @rule()
    def start(self):
        self.epochs += 1
        sink = ScriptedSink(self.folder)
        spool = SpoolSettings(file_bytes=4000)
        agent = Agent(self.folder, epoch=f"e{self.epochs:03d}", sink=sink, spool_settings=spool)
        self.alive.append(agent)

    @precondition(lambda self: self.alive)
    @rule(which=st.integers(0, 1), back=st.integers(0, 6), more=st.integers(0, 6))
    def deliver(self, which, back, more):
        first, last = max(1, self.sent + 1 - back), self.sent + more
        if last < first:
            return
        agent = self.alive[which % len(self.alive)]
        self.acknowledged = max(self.acknowledged, agent.take(delivery(first, last)).through)
        self.sent = max(self.sent, last)

    @precondition(lambda self: self.alive)
    @rule(
        which=st.integers(0, 1),
        script=st.lists(
            st.sampled_from(["store", "away", "lost answer", "crash before", "crash after"]),
            max_size=4,
        ),
    )
    def upload(self, which, script):
        agent = self.alive[which % len(self.alive)]
        agent.uploader._sink.script = script
        try:
            agent.drain()
        except SinkUnavailable:
            pass
        except Crash:
            self.alive.remove(agent)
            agent.die()
        agent.uploader._sink.script = []

    @precondition(lambda self: self.alive)
    @rule(which=st.integers(0, 1))
    def kill(self, which):
        self.alive.pop(which % len(self.alive)).die()

    @precondition(lambda self: self.alive)
    @rule()
    def adopt(self):
        self.alive[-1].spool.adopt(self.alive[-1].now_s)

    @invariant()
    def what_was_acknowledged_was_sent(self):
        assert self.acknowledged <= self.sent

    def teardown(self):
        while self.alive:
            self.kill(0)
        self.start()
        agent = self.alive[-1]
        if self.acknowledged:
            assert agent.take(delivery(1, 1)).through >= self.acknowledged
        agent.drain()
        settled, waiting, _ = agent.spool.accounts()
        agent.die()
        assert waiting == {}
        assert sum(tally.written for tally in settled.values()) == self.sent
        if self.sent:
            whole(self.folder, self.sent)
        self._temporary.cleanup()


Redeploys.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestRedeploys = Redeploys.TestCase
