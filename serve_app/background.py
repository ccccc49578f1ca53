"""Work that a replica does again and again for as long as it lives, whatever goes wrong with it."""

import asyncio
import logging
import time
import traceback
from collections.abc import Awaitable, Callable
from typing import Final, NoReturn

logger = logging.getLogger(__name__)

MUTE_S: Final = 60.0


async def repeat(
    work: Callable[[], Awaitable[object]],
    name: str,
    *,
    interval_s: float,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    monotonic: Callable[[], float] = time.monotonic,
) -> NoReturn:
    """Do ``work``, wait, and do it again; ends only by being cancelled.

    An exception is logged with its traceback, at most once in ``MUTE_S`` for each cause: the type
    and the line it came from.
    """
    next_log_s: dict[tuple[type[Exception], str, int | None], float] = {}
    while True:
        try:
            await work()
        except Exception as exc:
            origin = traceback.extract_tb(exc.__traceback__)[-1]
            cause = (type(exc), origin.filename, origin.lineno)
            now_s = monotonic()
            if now_s >= next_log_s.get(cause, now_s):
                next_log_s[cause] = now_s + MUTE_S
                logger.exception("%s failed and is tried again in %g s", name, interval_s)
        await sleep(interval_s)
