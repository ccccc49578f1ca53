"""How long a new replica took to each stage of its start, counted from its process's birth.

An autoscaler is as slow as its replicas' starts, so each start says where its time went. A worker
that Ray held in reserve was born before it was needed: its first stage then includes that wait.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path


def process_started_s() -> float:
    """When this process began, in seconds since 1970; now, where Linux's /proc is missing."""
    now_s = time.time()
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return now_s
    began_s = int(fields[19]) / os.sysconf("SC_CLK_TCK")  # since the machine's boot
    return now_s - (time.clock_gettime(time.CLOCK_BOOTTIME) - began_s)


class StageClock:
    """Marks stages in order; ``str`` gives the seconds at which each was reached.

    >>> times = iter([12.0, 12.5])
    >>> stages = StageClock(10.0, clock=lambda: next(times))
    >>> stages.mark("imported"); stages.mark("model")
    >>> str(stages)
    'imported 2.00, model 2.50'
    """

    def __init__(self, started_s: float, *, clock: Callable[[], float] = time.time) -> None:
        self._started_s = started_s
        self._clock = clock
        self._stages: list[tuple[str, float]] = []

    def mark(self, stage: str) -> None:
        self._stages.append((stage, self._clock() - self._started_s))

    def __str__(self) -> str:
        return ", ".join(f"{stage} {at_s:.2f}" for stage, at_s in self._stages)
