"""The agent's side: has its spool counted every other second, by a process of its own.

Counting, fitting baselines and judging take CPU in bursts. In the agent's own process they would
hold up deliveries whenever they hold the interpreter; so they run beside it, at a lower priority.
The process is started again when it dies, and ends when the agent does.
"""

import asyncio
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final

import msgspec

from monitoring.agent.segment import SealedSegment
from monitoring.agent.settings import AgentSettings
from monitoring.agent.spool import Spool
from monitoring.live.errors import LiveUnavailable
from monitoring.live.wire import Answer, Call, Question, Segments, read_frame, write_frame

log = logging.getLogger(__name__)

COUNT_TIMEOUT_S: Final = 120.0  # a bundle may have to be read and its baseline fitted
FINISH_TIMEOUT_S: Final = 30.0
SHOW_TIMEOUT_S: Final = 4.0  # below the time-out of a call to an agent
LONGEST_WAIT_S: Final = 30.0


def start_process() -> "subprocess.Popen[bytes]":
    """Start what counts, with this process's own import path."""
    return subprocess.Popen(
        [sys.executable, "-m", "monitoring.live.process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


class LiveClient:
    """A follower of one spool. ``start`` and ``stop`` belong to the agent's own."""

    def __init__(
        self,
        settings: AgentSettings,
        spool: Spool,
        start_process: "Callable[[], subprocess.Popen[bytes]]" = start_process,
    ) -> None:
        assert settings.live is not None
        self.unfinished_segments = 0  # deleted although not wholly counted
        self._settings = settings
        self._interval_s = settings.live.interval_s
        self._spool = spool
        self._start_process = start_process
        self._process: subprocess.Popen[bytes] | None = None
        self._number = 0
        self._open: dict[int, Future[bytes]] = {}
        self._mutex = threading.Lock()
        self._up = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="treeline-live", daemon=True)
        self._thread.start()

    def finish(self, segment: SealedSegment) -> None:
        """Have a segment counted to its end. Raises ``LiveUnavailable``."""
        try:
            self._up.wait(FINISH_TIMEOUT_S)
            places = Segments([(str(segment.path), segment.bytes)])
            self._call("finish", msgspec.msgpack.encode(places), FINISH_TIMEOUT_S)
        except LiveUnavailable:
            self.unfinished_segments += 1
            raise

    async def show(self, question: Question) -> bytes:
        """Return a view as MessagePack. Raises ``LiveUnavailable``."""
        body = msgspec.msgpack.encode(question)
        return await asyncio.to_thread(self._call, "show", body, SHOW_TIMEOUT_S)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
        self._kill()

    def _run(self) -> None:
        wait_s = self._interval_s
        while not self._stop.is_set():
            try:
                self._count()
                wait_s = self._interval_s
            except Exception as error:  # noqa: BLE001  the thread must live
                log.warning("live figures stand still: %r", error)
                wait_s = min(2 * wait_s, LONGEST_WAIT_S)
            self._stop.wait(wait_s)

    def _count(self) -> None:
        if self._process is None or self._process.poll() is not None:
            self._start()
        contents = self._spool.contents()
        places = Segments([(str(path), size) for path, size in contents.segments])
        self._call("count", msgspec.msgpack.encode(places), COUNT_TIMEOUT_S)
        self._spool.release_aside(contents.aside_mark)

    def _start(self) -> None:
        self._kill()
        process = self._start_process()
        assert process.stdin
        write_frame(process.stdin, msgspec.msgpack.encode(self._settings))
        with self._mutex:
            self._process, self._open = process, {}
        listener = threading.Thread(target=_listen, args=(process, self._open), daemon=True)
        listener.start()
        self._up.set()

    def _call(self, method: str, body: bytes, timeout_s: float) -> bytes:
        future: Future[bytes] = Future()
        with self._mutex:
            process = self._process
            if process is None or process.stdin is None or process.poll() is not None:
                raise LiveUnavailable("the process that counts is being started")
            self._number += 1
            number, waiting = self._number, self._open
            waiting[number] = future
            try:
                write_frame(process.stdin, Call(number, method, body))
            except OSError as error:
                waiting.pop(number, None)
                raise LiveUnavailable(f"the process that counts is gone: {error}") from error
        started_s = time.monotonic()
        try:
            return future.result(timeout_s)
        except TimeoutError as error:
            waited_s = time.monotonic() - started_s
            raise LiveUnavailable(f"`{method}` not answered within {waited_s:.0f} s") from error
        finally:
            waiting.pop(number, None)

    def _kill(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


def _listen(process: "subprocess.Popen[bytes]", waiting: "dict[int, Future[bytes]]") -> None:
    """Hand the answers of one process out, and tell all who still wait when it has died."""
    assert process.stdout
    while (answer := read_frame(process.stdout, Answer)) is not None:
        future = waiting.pop(answer.number, None)
        if future is not None:
            _settle(future, answer.body, answer.error)
    reason = f"the process that counts ended with code {process.wait()}"
    for number in list(waiting):
        future = waiting.pop(number, None)
        if future is not None:
            _settle(future, b"", reason)


def _settle(future: "Future[bytes]", body: bytes, error: str | None) -> None:
    if error is None:
        future.set_result(body)
    else:
        future.set_exception(LiveUnavailable(error))
