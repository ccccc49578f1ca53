"""The agent's side: has its spool counted every other second, by a process of its own.

Counting, fitting baselines and judging take CPU in bursts. In the agent's own process they would
hold up deliveries whenever they hold the interpreter; so they run beside it, at a lower priority.
The process is started again when it dies or does not answer, and ends when the agent does.
"""

import asyncio
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from monitoring.agent.health import Kind
from monitoring.agent.segment import SealedSegment
from monitoring.agent.settings import AgentSettings
from monitoring.agent.spool import Spool
from monitoring.live.errors import LiveUnavailable, TimedOut
from monitoring.live.link import Link
from monitoring.live.wire import Question, Segments

log = logging.getLogger(__name__)

COUNT_TIMEOUT_S: Final = 120.0  # a bundle may have to be read and its baseline fitted
FINISH_TIMEOUT_S: Final = 30.0
SHOW_TIMEOUT_S: Final = 4.0  # below the time-out of a call to an agent
LONGEST_WAIT_S: Final = 30.0
# A count costs some milliseconds however few rows there are: of few, more are gathered first.
FEW_ROWS: Final = 5_000
FEW_ROWS_WAIT: Final = 4  # intervals, and a quarter of the time that a window waits for its rows


def start_process() -> "subprocess.Popen[bytes]":
    """Start what counts, with this process's own import path."""
    return subprocess.Popen(
        [sys.executable, "-m", "monitoring.live.process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


class LiveClient:
    """A follower of one spool. ``start`` and ``stop`` belong to the agent's own.

    ``count_timeout_s`` is after how long without an answer the process is killed,
    ``finish_timeout_s`` how long uploads wait for it altogether from its last answer on.
    """

    def __init__(
        self,
        settings: AgentSettings,
        spool: Spool,
        start_process: "Callable[[], subprocess.Popen[bytes]]" = start_process,
        *,
        count_timeout_s: float = COUNT_TIMEOUT_S,
        finish_timeout_s: float = FINISH_TIMEOUT_S,
    ) -> None:
        assert settings.live is not None
        self._settings = settings
        self._interval_s = settings.live.interval_s
        few_s = min(FEW_ROWS_WAIT * self._interval_s, settings.live.late_s / 4)
        self._few_rows_s = max(self._interval_s, few_s)
        self._spool = spool
        self._start_process = start_process
        self._count_timeout_s = count_timeout_s
        self._finish_timeout_s = finish_timeout_s
        self._link: Link | None = None
        self._health: Callable[[], Mapping[Kind, str]] = dict
        self._answered_s = time.monotonic()
        self._up = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="treeline-live", daemon=True)
        self._thread.start()

    def watch(self, health: Callable[[], Mapping[Kind, str]]) -> None:
        """Have alerts opened for what ``health`` says, by kind."""
        self._health = health

    def finish(self, segment: SealedSegment) -> None:
        """Have a segment counted to its end. Raises ``LiveUnavailable``.

        Uploads wait for a process that does not answer once, and not with every segment again.
        """
        until_s = self._answered_s + self._finish_timeout_s
        self._up.wait(max(0.0, until_s - time.monotonic()))
        places = Segments([(str(segment.path), segment.bytes)])
        patience_s = max(0.0, until_s - time.monotonic())
        self._call("finish", msgspec.msgpack.encode(places), patience_s)
        self._answered_s = time.monotonic()

    async def show(self, question: Question) -> bytes:
        """Return a view as MessagePack. Raises ``LiveUnavailable``."""
        body = msgspec.msgpack.encode(question)
        return await asyncio.to_thread(self._call, "show", body, SHOW_TIMEOUT_S)

    def stop(self) -> None:
        self._stop.set()
        self._kill()  # a count that is under way would hold the thread up
        self._thread.join()
        self._kill()

    def _run(self) -> None:
        wait_s = self._interval_s
        while not self._stop.is_set():
            try:
                few = self._count() < FEW_ROWS
                wait_s = self._few_rows_s if few else self._interval_s
            except Exception as error:  # noqa: BLE001  the thread must live
                log.warning("live figures stand still: %r", error)
                wait_s = min(2 * wait_s, LONGEST_WAIT_S)
                if isinstance(error, TimedOut):
                    self._kill()
            self._stop.wait(wait_s)

    def _count(self) -> int:
        """Have everything counted that is in the spool now; return how many rows were new."""
        if self._link is None or not self._link.alive:
            self._start()
        contents = self._spool.contents()
        body = Segments([(str(path), size) for path, size in contents.segments], self._causes())
        answer = self._call("count", msgspec.msgpack.encode(body), self._count_timeout_s)
        self._answered_s = time.monotonic()
        self._spool.release_aside(contents.aside_mark)
        return msgspec.msgpack.decode(answer, type=int)

    def _causes(self) -> dict[Kind, str]:
        """Ask for the agent's health; that it cannot be told is a cause of its own."""
        try:
            return dict(self._health())
        except Exception as error:  # the figures must go on
            log.exception("the agent's health cannot be told")
            return {
                "agent": f"the health of agent {self._settings.shard} cannot be told: {error!r}"
            }

    def _start(self) -> None:
        self._kill()
        link = Link(self._start_process())
        link.tell(msgspec.msgpack.encode(self._settings))
        self._link = link
        self._up.set()

    def _call(self, method: str, body: bytes, timeout_s: float) -> bytes:
        link = self._link
        if link is None:
            raise LiveUnavailable("the process that counts is being started")
        return link.call(method, body, timeout_s)

    def _kill(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            self._up.clear()
            link.kill()
