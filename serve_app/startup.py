"""A new replica's start: what is left out of it, and how long it took to each stage.

An autoscaler is as slow as its replicas' starts, so each start says where its time went, counted
from its process's birth. A worker that Ray held in reserve was born before it was needed: its first
stage then includes that wait.

Imported first thing in a replica's process, so nothing heavy may be imported here.
"""

import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Final

logger = logging.getLogger(__name__)

# How Ray hands a job's `worker_process_setup_hook` to workers; it takes none for an actor.
HOOK: Final = "serve_app.startup.leave_pandas_out"
HOOK_VARIABLE: Final = "__RAY_WORKER_PROCESS_SETUP_HOOK_ENV_VAR"


def variables(environment: Mapping[str, str]) -> dict[str, str]:
    """What makes Ray call ``leave_pandas_out`` in a replica; nothing where a job has a hook."""
    return {} if HOOK_VARIABLE in environment else {HOOK_VARIABLE: HOOK}


def leave_pandas_out() -> None:
    """Import Ray Serve as if there were no pandas; called by Ray in a replica's new process.

    Ray Serve imports pandas, if it is there, to encode data frames that deployments return; ours
    return none. It takes 0.6 s of processor time, a fifth of all imports. Who needs pandas later
    imports it as ever. Lets no ImportError out, since Ray ends a worker whose hook raises: the
    replica imports Ray Serve again where it needs it.
    """
    if "pandas" in sys.modules:
        return
    sys.modules["pandas"] = None  # type: ignore[assignment]  # Python's sign for: not there
    try:
        import_module("ray.serve._private.utils")
    except ImportError as exc:
        logger.warning("cannot import Ray Serve without pandas, so it is imported with it: %s", exc)
    finally:
        del sys.modules["pandas"]


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
