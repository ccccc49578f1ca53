"""One process that counts, as the agent sees it: calls go in, answers come back in any order.

A call never waits for the pipe: a thread writes, so that a process that reads no more holds up
nobody beyond the call's own time-out. ``kill`` ends both threads.
"""

import logging
import queue
import subprocess
import threading
import time
from concurrent.futures import Future

from monitoring.live.errors import LiveUnavailable, TimedOut
from monitoring.live.wire import Answer, Call, read_frame, write_frame

log = logging.getLogger(__name__)


class Link:
    """Belongs to a process from its first call to its death; calls may come from any thread."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process
        self._mutex = threading.Lock()
        self._number = 0
        self._open: dict[int, Future[bytes]] = {}
        self._frames: queue.SimpleQueue[object] = queue.SimpleQueue()
        for name, work in (("write", self._write), ("listen", self._listen)):
            threading.Thread(target=work, name=f"treeline-live-{name}", daemon=True).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def tell(self, frame: object) -> None:
        """Send a frame that nobody answers."""
        self._frames.put(frame)

    def call(self, method: str, body: bytes, timeout_s: float) -> bytes:
        """Raises ``LiveUnavailable``, of which ``TimedOut`` says that no answer has come."""
        future: Future[bytes] = Future()
        with self._mutex:
            self._number += 1
            number = self._number
            self._open[number] = future
        if not self.alive:
            self._give_up()
        self._frames.put(Call(number, method, body))
        started_s = time.monotonic()
        try:
            return future.result(timeout_s)
        except TimeoutError as error:
            waited_s = time.monotonic() - started_s
            raise TimedOut(f"`{method}` not answered within {waited_s:.0f} s") from error
        finally:
            self._take(number)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._frames.put(None)

    def _take(self, number: int) -> "Future[bytes] | None":
        with self._mutex:
            return self._open.pop(number, None)

    def _write(self) -> None:
        assert self._process.stdin
        try:
            with self._process.stdin as pipe:  # closing it writes what is left
                while (frame := self._frames.get()) is not None:
                    write_frame(pipe, frame)
        except OSError as error:  # the listener tells those who wait
            log.debug("the process that counts is gone: %s", error)

    def _listen(self) -> None:
        """Hand the answers out, and tell all who still wait when the process has died."""
        assert self._process.stdout
        with self._process.stdout as pipe:
            while (answer := read_frame(pipe, Answer)) is not None:
                future = self._take(answer.number)
                if future is None:
                    continue
                if answer.error is None:
                    future.set_result(answer.body)
                else:
                    future.set_exception(LiveUnavailable(answer.error))
        self._process.wait()
        self._give_up()

    def _give_up(self) -> None:
        with self._mutex:
            waiting, self._open = self._open, {}
        reason = f"the process that counts ended with code {self._process.returncode}"
        for future in waiting.values():
            future.set_exception(LiveUnavailable(reason))
