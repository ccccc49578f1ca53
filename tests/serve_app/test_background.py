"""Background work under scripted time: what fails is logged and done again."""

import asyncio
import logging

import pytest

from serve_app.background import MUTE_S, repeat


class Script:
    """Work that raises what it is told to, and a clock that the waits move on."""

    def __init__(self, *outcomes):
        self.outcomes = list(outcomes)
        self.now_s = 100.0
        self.done = 0

    async def work(self):
        self.done += 1
        outcome = self.outcomes.pop(0)
        if outcome is not None:
            raise outcome

    async def sleep(self, seconds):
        self.now_s += seconds

    async def run(self, interval_s=1.0):
        """Until the script's last outcome, a cancellation."""
        self.outcomes.append(asyncio.CancelledError())
        with pytest.raises(asyncio.CancelledError):
            await repeat(
                self.work,
                "the work",
                interval_s=interval_s,
                sleep=self.sleep,
                monotonic=lambda: self.now_s,
            )


async def test_it_goes_on_after_any_exception(caplog):
    script = Script(None, KeyError("a"), None, RuntimeError("b"), None)
    await script.run(interval_s=7.0)
    assert script.done == 6
    assert script.now_s == 100.0 + 5 * 7.0
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2
    assert "the work failed and is tried again in 7 s" in caplog.text
    assert "Traceback" in caplog.text
    assert "KeyError: 'a'" in caplog.text


async def test_a_cause_is_logged_once_in_a_while_whatever_it_says(caplog):
    repeats = int(MUTE_S) + 1
    await Script(*(ValueError(f"attempt {n}") for n in range(repeats))).run()
    assert [record.exc_info[1].args for record in caplog.records] == [
        ("attempt 0",),
        (f"attempt {repeats - 1}",),
    ]


async def test_another_cause_is_logged_at_once(caplog):
    await Script(ValueError("one"), TypeError("two"), ValueError("three")).run()
    assert [record.exc_info[0] for record in caplog.records] == [ValueError, TypeError]


async def test_cancelling_ends_a_wait_too():
    async def work():
        return None

    task = asyncio.create_task(repeat(work, "the work", interval_s=3600.0))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
