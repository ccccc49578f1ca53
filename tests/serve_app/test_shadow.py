"""A shadow never delays or fails an answer, and loses nothing without counting it."""

import asyncio
import threading
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from serve_app.admission import Admission
from serve_app.router import projection
from serve_app.schema import NO_CONTEXT, PredictRequest
from serve_app.shadow import INLINE_ROWS, Shadow
from tests.serve_app.conftest import HalvesScorer, RememberingRecorder, predictor_of


class HeldScorer(HalvesScorer):
    """Scores only once it is let go."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.let_go = threading.Event()

    def score(self, rows: Sequence[Sequence[Any]]) -> NDArray[np.float64]:
        self.asked.set()
        assert self.let_go.wait(10)
        return super().score(rows)


@pytest.fixture
def busy() -> Admission:
    return Admission(max_requests=10, max_pending_rows=10)


def shadow_of(
    recorder: RememberingRecorder,
    busy: Admission,
    scorer: HalvesScorer,
    max_rows: int = 1_000,
    inline_rows: int = 0,
) -> tuple[Shadow, Any]:
    predictor = predictor_of(
        recorder, version="2.0.0", role="shadow", scorer=scorer, inline_rows=inline_rows
    )
    shadow = Shadow(predictor, project=projection(None), busy=busy, max_rows=max_rows)
    return shadow, predictor.variant.telemetry.counts


def request(first: float = 1.0, rows: int = 1) -> PredictRequest:
    return PredictRequest([(first, None)] * rows, None, NO_CONTEXT)


async def turns(n: int) -> None:
    """Let the event loop turn."""
    for _ in range(n):
        await asyncio.sleep(0)


def names(recorder: RememberingRecorder) -> list[str]:
    return [event["request_id"] for event in recorder.events]


async def test_a_slow_shadow_holds_nobody_up_and_drops_what_is_too_much(
    recorder: RememberingRecorder, busy: Admission
) -> None:
    scorer = HeldScorer()
    shadow, counts = shadow_of(recorder, busy, scorer, max_rows=3)
    shadow.start()
    shadow.offer(request(), "r0")
    assert await asyncio.to_thread(scorer.asked.wait, 10)  # it hangs now; the event loop runs on
    for n in range(1, 6):
        shadow.offer(request(), f"r{n}")
    assert counts().dropped == {"queue_full": 3}
    assert recorder.events == []
    scorer.let_go.set()
    await shadow.stop(5.0)
    assert names(recorder) == ["r0", "r1", "r2"]


async def test_one_copy_of_any_size_fits_an_empty_queue(
    recorder: RememberingRecorder, busy: Admission
) -> None:
    shadow, counts = shadow_of(recorder, busy, HalvesScorer(), max_rows=3)
    shadow.offer(request(rows=20), "large")
    shadow.offer(request(), "more")
    shadow.start()
    await shadow.stop(5.0)
    assert names(recorder) == ["large"]
    assert counts().dropped == {"queue_full": 1}


async def test_a_raising_shadow_logs_its_failure_and_goes_on(
    recorder: RememberingRecorder, busy: Admission
) -> None:
    shadow, counts = shadow_of(recorder, busy, HalvesScorer())
    shadow.start()
    for first, name in ((-1.0, "breaks"), (1e31, "refuses"), (1.0, "works")):
        shadow.offer(request(first), name)
    await shadow.stop(5.0)
    statuses = [(event["request_id"], event["status"]) for event in recorder.events]
    assert statuses == [("breaks", 500), ("works", 200)]
    assert counts().dropped == {"refused": 1}
    assert counts().requests == {500: 1, 200: 1}


async def test_it_waits_for_a_quiet_moment_but_not_for_ever(
    recorder: RememberingRecorder, busy: Admission
) -> None:
    busy.arrive()
    shadow, _ = shadow_of(recorder, busy, HalvesScorer())
    shadow.start()
    shadow.offer(request(), "r")
    for _ in range(3):
        await asyncio.sleep(0)
    assert recorder.events == []
    await shadow.stop(5.0)
    assert names(recorder) == ["r"]


async def test_the_last_request_to_leave_wakes_it(
    recorder: RememberingRecorder, busy: Admission
) -> None:
    for _ in range(2):
        busy.arrive()
    shadow, _ = shadow_of(recorder, busy, HalvesScorer(), inline_rows=INLINE_ROWS)
    shadow.start()
    shadow.offer(request(), "r")
    await turns(3)
    busy.leave()
    await turns(3)
    assert recorder.events == []
    busy.leave()
    busy.arrive()  # another came before it woke: it goes on waiting
    await turns(3)
    assert recorder.events == []
    busy.leave()
    await turns(3)
    assert names(recorder) == ["r"]
    await shadow.stop(5.0)


@pytest.mark.parametrize(("turn_s", "copies"), [(0.0002, 48), (0.002, 38), (0.005, 28)])
async def test_a_replica_that_is_never_idle_lets_one_through_in_20_ms_and_three_turns(
    recorder: RememberingRecorder,
    busy: Admission,
    monkeypatch: pytest.MonkeyPatch,
    turn_s: float,
    copies: int,
) -> None:
    loop = asyncio.get_running_loop()
    now_s = loop.time()
    monkeypatch.setattr(loop, "time", lambda: now_s)
    busy.arrive()
    shadow, _ = shadow_of(recorder, busy, HalvesScorer(), inline_rows=INLINE_ROWS)
    shadow.start()
    for n in range(100):
        shadow.offer(request(), f"r{n}")
    for _ in range(round(1.0 / turn_s)):
        await asyncio.sleep(0)
        now_s += turn_s
    assert len(recorder.events) == pytest.approx(copies, abs=1)
    busy.leave()
    await turns(300)
    await shadow.stop(5.0)


async def test_small_copies_take_no_thread_and_requests_come_in_between(
    recorder: RememberingRecorder, busy: Admission
) -> None:
    threads = []

    class WatchedScorer(HalvesScorer):
        def score(self, rows: Sequence[Sequence[Any]]) -> NDArray[np.float64]:
            threads.append(threading.current_thread() is threading.main_thread())
            return super().score(rows)

        score_at_once = score

    predictor = predictor_of(
        recorder, version="2.0.0", role="shadow", scorer=WatchedScorer(), inline_rows=INLINE_ROWS
    )
    shadow = Shadow(predictor, project=projection(None), busy=busy, max_rows=1_000)
    for n in range(20):
        shadow.offer(request(), f"r{n}")
    shadow.offer(request(rows=INLINE_ROWS + 1), "large")
    shadow.start()
    seen: list[int] = []
    while len(seen) < 20:
        await asyncio.sleep(0)
        seen.append(len(recorder.events))
    assert max(b - a for a, b in pairwise(seen)) == 1  # the loop turned after each copy
    await shadow.stop(5.0)
    assert threads == [True] * 20 + [False]


async def test_what_it_cannot_score_by_the_end_is_counted(
    recorder: RememberingRecorder, busy: Admission
) -> None:
    scorer = HeldScorer()
    shadow, counts = shadow_of(recorder, busy, scorer)
    shadow.start()
    for n in range(5):
        shadow.offer(request(), f"r{n}")
    assert await asyncio.to_thread(scorer.asked.wait, 10)
    await shadow.stop(0.0)
    scorer.let_go.set()
    assert recorder.events == []
    assert counts().dropped == {"stopped": 5}
