"""Processes that are killed. They are forked from a server that has the imports behind it."""

import os
import signal
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from monitoring.capture.drops import DropReason
from monitoring.capture.journal import Journal, JournalLimits
from monitoring.capture.recorder import Recorder
from tests.monitoring.capture.streams import everything, open_journal, open_recorder, record

LastWords = Callable[[Journal, Recorder], None]
_context = get_context("forkserver")
_context.set_forkserver_preload([__name__])


def nothing(journal: Journal, recorder: Recorder) -> None:
    pass


def hold_one_and_drop_one(journal: Journal, recorder: Recorder) -> None:
    journal._leave_disk(OSError("pulled"))
    record(recorder, "held")
    journal.drop(7, DropReason.JOURNAL_FULL)


def drop_two(journal: Journal, recorder: Recorder) -> None:
    for number in (6, 7):
        journal.drop(number, DropReason.JOURNAL_FULL)


def die(root: Path, last_words: LastWords = nothing) -> Path:
    """A process records r1 to r5, is acknowledged through 2, and is killed."""
    victim = _context.Process(target=_record_and_die, args=(root, last_words))
    victim.start()
    victim.join()
    assert victim.exitcode == -signal.SIGKILL
    victim.close()
    return root / "p-1"


def _record_and_die(root: Path, last_words: LastWords) -> None:
    journal = open_journal(root)
    recorder = open_recorder(journal)
    for n in range(1, 6):
        record(recorder, f"r{n}")
    found = everything(journal.backlog())
    assert found is not None
    journal.release(found, 2)
    last_words(journal, recorder)
    os.kill(os.getpid(), signal.SIGKILL)


def kill_while_writing(root: Path, producer: str, after: int) -> int:
    """Kill a process that records without end once ``after`` calls have returned; count them."""
    reading, writing = _context.Pipe(duplex=False)
    victim = _context.Process(target=_record_for_ever, args=(root, producer, writing))
    victim.start()
    writing.close()
    returned = 0
    while returned < after:
        returned += len(os.read(reading.fileno(), after - returned))
    victim.kill()
    while rest := os.read(reading.fileno(), 65536):
        returned += len(rest)
    victim.join()
    victim.close()
    reading.close()
    return returned


def _record_for_ever(root: Path, producer: str, writing: Connection) -> None:
    limits = JournalLimits(segment_bytes=20_000, quota_bytes=100_000_000)
    recorder = open_recorder(open_journal(root, limits=limits, producer=producer))
    while True:
        record(recorder, f"r{recorder.counts().captured + 1}")
        os.write(writing.fileno(), b".")
