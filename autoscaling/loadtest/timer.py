"""Waiting on the event loop to within some 50 microseconds, where Linux allows it.

An event loop's own timers are rounded up to whole milliseconds (``epoll_wait`` takes no less),
which would add up to 1 ms to every latency counted from a planned time. A ``timerfd`` wakes the
loop as a readable file does, without the rounding and without spinning.
"""

import asyncio
import ctypes
import errno
import os
import sys
import time
from typing import Final, Protocol, Self

# From <sys/timerfd.h>; Python has these calls from 3.13 on.
CLOCK_MONOTONIC: Final = 1
TFD_TIMER_ABSTIME: Final = 1
NANOSECONDS: Final = 1_000_000_000


class Timer(Protocol):
    async def until(self, deadline_s: float) -> None:
        """Return at ``deadline_s`` of ``time.monotonic`` or soon after; never before."""

    def close(self) -> None: ...


class LoopTimer:
    """The event loop's own timer: whole milliseconds on Linux."""

    async def until(self, deadline_s: float) -> None:
        while (left_s := deadline_s - time.monotonic()) > 0:
            await asyncio.sleep(left_s)

    def close(self) -> None:
        """Hold nothing."""


class _TimeSpec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _TimerSpec(ctypes.Structure):
    _fields_ = (("interval", _TimeSpec), ("value", _TimeSpec))


class FileTimer:
    """A ``timerfd`` watched by the running event loop; one waiter at a time."""

    def __init__(self, libc: ctypes.CDLL, fd: int) -> None:
        self._libc = libc
        self._fd = fd
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._loop.add_reader(fd, self._ring)

    @classmethod
    def open(cls) -> Self:
        """Open one; OSError where the system has none."""
        libc = ctypes.CDLL(None, use_errno=True)
        if not hasattr(libc, "timerfd_create"):
            raise OSError(errno.ENOSYS, "no timerfd on this system")
        fd = libc.timerfd_create(CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create failed")
        return cls(libc, fd)

    async def until(self, deadline_s: float) -> None:
        if deadline_s <= time.monotonic():
            return
        # One nanosecond at least: zero would disarm the timer.
        at_ns = max(1, int(deadline_s * NANOSECONDS) + 1)
        spec = _TimerSpec(_TimeSpec(0, 0), _TimeSpec(*divmod(at_ns, NANOSECONDS)))
        waiter = self._loop.create_future()
        self._waiter = waiter
        if self._libc.timerfd_settime(self._fd, TFD_TIMER_ABSTIME, ctypes.byref(spec), None) < 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime failed")
        await waiter

    def close(self) -> None:
        self._loop.remove_reader(self._fd)
        os.close(self._fd)

    def _ring(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:  # armed again since the loop saw it readable
            return
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def open_timer() -> Timer:
    """The finest timer this system has."""
    if sys.platform != "linux":
        return LoopTimer()
    try:
        return FileTimer.open()
    except OSError:
        return LoopTimer()
