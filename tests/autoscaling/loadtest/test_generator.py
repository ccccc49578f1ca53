"""The generator against a real server: open loop, latency from the plan, everything counted."""

import asyncio
from itertools import pairwise

import numpy as np
import pytest
from aiohttp import web

from autoscaling.loadtest.errors import TargetInvalid
from autoscaling.loadtest.generator import Generator, Target
from autoscaling.loadtest.recording import Outcome

BODIES = [[b'{"instances": [[1]]}', b'{"instances": [[2]]}']]


async def generate(plan, origin, bodies=BODIES, **limits):
    generator = Generator(plan, bodies, Target(url=f"{origin}/predict", **limits), prefix="lt-1")
    await generator.run()
    return generator.recording


async def test_every_request_is_sent_once_under_its_own_id(serving, planned):
    seen = []

    async def predict(request):
        seen.append((request.headers["X-Request-ID"], request.content_type, await request.text()))
        return web.json_response({}, headers={"X-Request-ID": request.headers["X-Request-ID"]})

    async with serving(predict) as origin:
        recording = await generate(planned(0.0, 0.01, 0.01, 0.02), origin)
    assert recording.ok.all()
    assert sorted(request_id for request_id, _, _ in seen) == [f"lt-1-{n:07d}" for n in range(4)]
    assert {content_type for _, content_type, _ in seen} == {"application/json"}
    assert {text.encode() for _, _, text in seen} == set(BODIES[0])
    assert recording.started_at_s > 0
    assert (recording.begun_s >= recording.plan.at_s).all()  # late perhaps, early never
    assert (recording.sent_s >= recording.begun_s).all()
    assert (recording.done_s >= recording.sent_s).all()


async def test_a_stalled_server_delays_no_later_request(serving, planned):
    """Nothing is answered until all have arrived: a closed loop would never get that far."""
    total = 20
    arrived = 0
    all_there = asyncio.Event()

    async def predict(_request):
        nonlocal arrived
        arrived += 1
        if arrived == total:
            all_there.set()
        await all_there.wait()
        return web.Response()

    at_s = np.linspace(0.0, 0.3, total)
    async with serving(predict) as origin:
        recording = await generate(planned(*at_s), origin)
    assert recording.ok.all()
    last_sent_s = recording.sent_s.max()
    assert (recording.done_s >= last_sent_s).all()
    # The first waited for the last, and its latency says so: nothing is omitted.
    waited_ms = (last_sent_s - at_s) * 1e3
    assert (recording.latency_ms >= waited_ms).all()
    assert recording.latency_ms[0] >= 300


async def test_waiting_for_a_connection_counts_as_latency(serving, planned):
    release = asyncio.Event()

    async def predict(_request):
        await release.wait()
        return web.Response()

    async with serving(predict) as origin:
        plan = planned(0.0, 0.0, 0.0)
        generator = Generator(
            plan, BODIES, Target(url=f"{origin}/predict", connections=1), prefix="a"
        )
        running = asyncio.create_task(generator.run())
        while generator.recording.queued.sum() != 2:
            await asyncio.sleep(0)
        release.set()
        await running
    recording = generator.recording
    assert recording.ok.all()
    by_turn = np.argsort(recording.sent_s)
    for before, after in pairwise(by_turn):
        assert recording.sent_s[after] >= recording.done_s[before] - 0.005
        assert recording.latency_ms[after] > recording.latency_ms[before]


async def test_statuses_redirects_and_foreign_ids_are_no_success(serving, planned):
    async def predict(request):
        match int(request.headers["X-Request-ID"].rpartition("-")[2]):
            case 0:
                return web.Response(status=503)
            case 1:
                return web.Response(status=307, headers={"Location": "/predict"})
            case 2:
                return web.Response(headers={"X-Request-ID": "someone-else"})
            case _:
                return web.Response(status=201)

    async with serving(predict) as origin:
        recording = await generate(planned(0.0, 0.0, 0.0, 0.0), origin)
    assert recording.status.tolist() == [503, 307, 200, 201]
    assert recording.mismatched.tolist() == [False, False, True, False]
    assert recording.ok.tolist() == [False, False, False, True]


async def test_timeouts_and_broken_connections_are_told_apart(serving, planned):
    async def predict(request):
        if request.headers["X-Request-ID"].endswith("0"):
            await asyncio.Event().wait()
        request.transport.close()
        return web.Response()

    async with serving(predict) as origin:
        recording = await generate(planned(0.0, 0.01), origin, timeout_s=0.2)
    assert recording.outcome.tolist() == [Outcome.TIMED_OUT, Outcome.FAILED]
    assert np.isfinite(recording.sent_s).all()  # both were lost after sending
    assert recording.failures == {"ServerDisconnectedError": 1}
    assert recording.latency_ms[0] >= 200


async def test_nobody_listening(planned, unused_tcp_port):
    recording = await generate(planned(0.0, 0.01), f"http://127.0.0.1:{unused_tcp_port}")
    assert recording.outcome.tolist() == [Outcome.FAILED] * 2
    assert np.isnan(recording.sent_s).all()
    assert sum(recording.failures.values()) == 2


async def test_stopping_sends_no_more_and_waits_for_what_was_sent(serving, planned):
    answered = 0

    async def predict(_request):
        nonlocal answered
        answered += 1
        return web.Response()

    async with serving(predict) as origin:
        plan = planned(0.0, 0.01, 3_600.0)
        generator = Generator(plan, BODIES, Target(url=f"{origin}/predict"), prefix="a")
        await generator.run(stopped=lambda: answered == 2)
    outcomes = [Outcome.ANSWERED, Outcome.ANSWERED, Outcome.NOT_SENT]
    assert generator.recording.outcome.tolist() == outcomes


async def test_a_body_of_some_megabytes(serving, planned):
    async def predict(request):
        return web.Response(status=200 if len(await request.read()) == 3_000_000 else 400)

    async with serving(predict) as origin:
        recording = await generate(planned(0.0, 0.0), origin, bodies=[[b"x" * 3_000_000]])
    assert recording.ok.all()


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"url": "127.0.0.1:8000/predict"}, "--url"),
        ({"url": "ftp://host/predict"}, "--url"),
        ({"connections": 0}, "--connections 0"),
        ({"timeout_s": 0.0}, "--timeout 0"),
        ({"timeout_s": float("nan")}, "--timeout nan"),
    ],
)
def test_bad_targets_are_refused(changes, complaint):
    with pytest.raises(TargetInvalid, match=complaint):
        Target(**{"url": "http://127.0.0.1/predict", **changes})
