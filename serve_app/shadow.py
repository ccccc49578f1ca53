"""A version that gets copies of requests and answers nobody.

A copy waits in a queue of its own, bounded in rows, and is scored after the answer has been made:
one at a time, as soon as no request is being answered, or in the first turn of the event loop after
``PATIENCE_S``. So a shadow takes at most 1 / PATIENCE_S of its scorings a second from a replica
that is never idle, and falls behind there; what finds the queue full is dropped and counted.

Few rows of a quick model are scored on the event loop: to hand them to a thread takes 100
microseconds from the requests beside them, and a forest of 100 trees 20. Larger copies, slower
models (``timed_scorer.py`` measures them) and all that takes scikit-learn are scored in a thread of
their own, which shares the interpreter with the event loop.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from serve_app.admission import Admission
from serve_app.logs import log_failure
from serve_app.prediction import PredictionFailedError, Predictor
from serve_app.schema import PredictRequest, RequestInvalidError

logger = logging.getLogger(__name__)

PATIENCE_S: Final = 0.02
STOPPING_GLANCE_S: Final = 0.001
INLINE_ROWS: Final = 8
QUEUE_FULL: Final = "queue_full"
REFUSED: Final = "refused"
STOPPED: Final = "stopped"
FAILED: Final = "failed"


class Shadow:
    """``predictor`` scores at most ``INLINE_ROWS`` at once and bounds nothing: see ``versions.py``.

    ``offer`` neither waits nor raises; everything it was offered is scored or counted as dropped.
    """

    def __init__(
        self,
        predictor: Predictor,
        *,
        project: Callable[[PredictRequest], PredictRequest],
        busy: Admission,
        max_rows: int,
    ) -> None:
        """``busy`` tells whether requests are being answered; ``project`` picks the features."""
        self._predictor = predictor
        self._project = project
        self._busy = busy
        self._max_rows = max_rows
        self._waiting: deque[tuple[PredictRequest, str]] = deque()
        self._rows = 0
        self._drop = predictor.variant.telemetry.drop
        self._something = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def offer(self, request: PredictRequest, request_id: str) -> None:
        """Take a copy of an answered request; called on the event loop."""
        rows = len(request.rows)
        if self._waiting and self._rows + rows > self._max_rows:
            self._drop(QUEUE_FULL)
            return
        self._waiting.append((request, request_id))
        self._rows += rows
        self._something.set()

    def start(self) -> None:
        """Begin to score; the second time does nothing."""
        if self._task is None:
            self._task = asyncio.create_task(self._score_for_ever())

    async def stop(self, timeout_s: float) -> None:
        """Score what waits, within ``timeout_s``; the rest is counted as dropped."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._waiting:
                    await asyncio.sleep(STOPPING_GLANCE_S)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        while self._waiting:
            self._waiting.popleft()
            self._drop(STOPPED)

    async def _score_for_ever(self) -> None:
        while True:
            while not self._waiting:
                self._something.clear()
                await self._something.wait()
            await self._quiet_moment()
            request, request_id = self._waiting[0]
            try:
                await self._score(request, request_id)
            except asyncio.CancelledError:
                self._drop(STOPPED)
                raise
            finally:
                self._waiting.popleft()
                self._rows -= len(request.rows)
            await asyncio.sleep(0)  # let requests in that came meanwhile

    async def _quiet_moment(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                while self._busy.requests:
                    self._busy.idle.clear()
                    await self._busy.idle.wait()

    async def _score(self, request: PredictRequest, request_id: str) -> None:
        try:
            await self._predictor.answer(
                self._project(request), request_id, started_s=time.perf_counter()
            )
        except PredictionFailedError:
            logger.debug("a shadow failed on a request; the event is logged with status 500")
        except RequestInvalidError:
            self._drop(REFUSED)
        except Exception as exc:  # noqa: BLE001  the next copy must be scored all the same
            log_failure(logger, "a shadow failed", exc, request_id)
            self._drop(FAILED)
