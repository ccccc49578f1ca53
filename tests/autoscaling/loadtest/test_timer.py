"""Both timers wake at their time or later, never before."""

import time

import pytest

from autoscaling.loadtest.timer import LoopTimer, open_timer


@pytest.mark.parametrize("open_one", [LoopTimer, open_timer])
async def test_never_early(open_one):
    timer = open_one()
    try:
        for wait_s in (0.0, -1.0, 0.0001, 0.003, 0.0002):
            deadline_s = time.monotonic() + wait_s
            await timer.until(deadline_s)
            assert time.monotonic() >= deadline_s
    finally:
        timer.close()
