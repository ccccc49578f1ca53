"""The process dies at each single change it makes to the disk, one after the other.

A life of a replica and its agent in one process: record (past rotations and the quota), hand over,
seal, upload, acknowledge, delete, adopt what is left. The first run counts the calls that change
the disk; then the life is lived again for each of them, and ends before it, after it, or in the
middle of the write. A later process must find every answered event stored once or counted.
"""

import asyncio
import os
import random
import sys
from pathlib import Path

from monitoring.agent.settings import SinkSettings, SpoolSettings
from monitoring.agent.verify import verify
from monitoring.capture.dead_letters import DeadLetters
from monitoring.capture.folder import StreamDescription
from monitoring.capture.journal import Journal, JournalLimits
from monitoring.capture.orphans import drain_orphans
from monitoring.capture.recorder import Recorder
from monitoring.capture.sender import Sender, SenderSettings
from tests.monitoring.agent.conftest import T0_US, Agent, memory_folder, stored_events
from tests.monitoring.capture.streams import FEATURES, POLICY, STREAM, Clock, record

CHANGES = (
    *("open", "write", "writev", "pwrite", "truncate", "ftruncate", "fsync", "fdatasync"),
    *("mkdir", "rmdir", "rename", "replace", "unlink", "posix_fallocate"),
)
LIMITS = JournalLimits(segment_bytes=500, quota_bytes=1_500, buffer_bytes=1_000, retry_s=5)
SENDING = SenderSettings(first_backoff_s=0)
WAYS = ("before", "after", "torn")
DIED = 9


class Fuse:
    """Counts the calls that change the disk and ends the process at one of them."""

    def __init__(self, at: int, way: str) -> None:
        self.count = 0
        self._at = at
        self._way = way

    def arm(self) -> None:
        for name in CHANGES:
            setattr(os, name, self._fused(name, getattr(os, name)))

    def _fused(self, name, real):
        def call(*args, **kwargs):
            if name == "open" and not args[1] & os.O_CREAT:
                return real(*args, **kwargs)
            self.count += 1
            if self.count != self._at:
                return real(*args, **kwargs)
            if self._way == "torn" and name in ("write", "pwrite"):
                real(args[0], bytes(args[1])[: len(args[1]) // 2], *args[2:])
            elif self._way == "torn" and name == "writev":
                whole = b"".join(args[1])
                real(args[0], [whole[: len(whole) // 2]])
            elif self._way == "after":
                real(*args, **kwargs)
            os._exit(DIED)

        return call


def live(folder: Path, at: int, way: str, answers: int) -> None:
    """Everything a replica and its agent do; writes to ``answers`` what has been answered."""
    tell = os.write
    fuse = Fuse(at, way)
    fuse.arm()
    agent = new_agent(folder, "e1")
    described = StreamDescription(
        producer="p0", stream=STREAM, policy_id="policy", node="n1", env="test"
    )
    journal = Journal(folder / "journal", described, limits=LIMITS, monotonic=Clock())
    recorder = Recorder(journal, POLICY, FEATURES)
    way_there = ToAgent(agent)
    dead_letters = DeadLetters(folder / "dead-letter", 1 << 20)
    sender = Sender(journal, way_there, dead_letters, settings=SENDING, rng=random.Random(1))

    def answer(count: int) -> None:
        for _ in range(count):
            record(recorder, "r", ts_us=T0_US, probabilities=bytes(16))
            tell(answers, b".")

    answer(7)  # the quota holds fewer
    asyncio.run(sender.flush(20))
    agent.spool.seal_everything(agent.now_s)
    answer(3)
    agent.uploader.step()
    asyncio.run(sender.flush(20))
    agent.drain()
    journal.close()
    agent.die()
    tell(answers, b"|%d" % fuse.count)


class ToAgent:
    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    async def ingest(self, payload: bytes):
        return self._agent.take(payload)


def new_agent(folder: Path, epoch: str) -> Agent:
    return Agent(folder, epoch=epoch, spool_settings=SpoolSettings(fsync="always"))


def die_at(folder: Path, at: int, way: str) -> tuple[int, int]:
    """Return how many requests were answered, and the number of changes in a life lived through."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            live(folder, at, way, writing)
            os._exit(0)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
    os.close(writing)
    said = b""
    while part := os.read(reading, 4096):
        said += part
    os.close(reading)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) in (0, DIED), "it did not die of the fuse"
    dots, _, count = said.partition(b"|")
    return len(dots), int(count or 0)


def recover(folder: Path, answered: int) -> None:
    """A new agent and a drain; then every answered event is stored once or a counted drop."""
    agent = new_agent(folder, "e2")
    work = drain_orphans(
        folder / "journal",
        lambda _: ToAgent(agent),
        settings=SENDING,
        rng=random.Random(2),
        timeout_s=20,
    )
    asyncio.run(work)
    agent.drain()
    agent.die()
    stored = stored_events(folder)
    assert len(stored) == len(set(stored))
    verdict = verify(SinkSettings(url=str(folder / "sink")))
    assert verdict.problems == ()
    assert verdict.dropped.keys() <= {"journal_full", "torn"}
    assert verdict.written == len(stored)
    missing = {f"p0-{seq}-0" for seq in range(1, answered + 1)} - set(stored)
    assert len(missing) <= verdict.dropped.get("journal_full", 0)
    assert verdict.received >= answered
    # No more than one event that was never answered can have left a trace.
    assert verdict.received <= answered + 1
    journals = folder / "journal"
    assert not journals.exists() or list(journals.iterdir()) == []


def attempt(at: int, way: str) -> tuple[int, int]:
    with memory_folder() as name:
        folder = Path(name)
        (folder / "sink").mkdir()
        answered, count = die_at(folder, at, way)
        recover(folder, answered)
        return answered, count


def test_a_death_at_any_change_of_the_disk_loses_and_doubles_nothing() -> None:
    answered, changes = attempt(0, "before")
    assert answered == 10
    assert changes > 60
    for at in range(1, changes + 1):
        way = WAYS[at % len(WAYS)]
        try:
            attempt(at, way)
        except AssertionError as error:
            raise AssertionError(f"dead {way} change {at} of {changes}: {error}") from error
