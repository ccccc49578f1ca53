"""Decisions are collected when there are any, and their absence is explained."""

import asyncio

from aiohttp import web

from autoscaling.loadtest.scaling import Decision, ScalingWatch


async def refuse(_request):
    return web.Response()


async def watch_until(serving, answer, done):
    """Run a watch against ``answer`` until ``done(watch)`` or it ends by itself."""
    async with serving(refuse, scaling=answer) as origin:
        watch = ScalingWatch(f"{origin}/monitor/api/scaling")
        task = asyncio.create_task(watch.run())
        while not task.done() and not done(watch):
            await asyncio.sleep(0)
        ended = task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    return watch, ended


async def test_decisions_since_the_start_and_the_one_before(serving):
    decisions = [
        {"ts": 3.0, "target": 4, "running": 2, "reason": "burst"},
        {"ts": 1.0, "target": 1, "running": 1, "reason": "steady"},
        {"ts": 2.0, "target": 2, "running": 1, "reason": "forecast", "rate_rps": 7},
        {"ts": 3.0, "target": 4, "running": 2, "reason": "burst"},
    ]

    async def answer(_request):
        return web.json_response({"decisions": decisions, "policy": "latency"})

    watch, ended = await watch_until(serving, answer, lambda watch: watch.history(0).decisions)
    assert not ended
    history = watch.history(since_s=2.5)
    assert history.note is None
    assert history.decisions == (
        Decision(ts=2.0, target=2, running=1, reason="forecast"),
        Decision(ts=3.0, target=4, running=2, reason="burst"),
    )


async def test_a_server_without_the_api_is_asked_once(serving):
    asked = 0

    async def answer(_request):
        nonlocal asked
        asked += 1
        return web.Response(status=404)

    watch, ended = await watch_until(serving, answer, lambda _: False)
    assert (ended, asked) == (True, 1)
    assert watch.history(0).decisions == ()
    assert watch.history(0).note.endswith("/monitor/api/scaling answered 404")


async def test_another_shape_is_left_out(serving):
    async def answer(_request):
        return web.json_response({"decisions": [{"ts": "noon"}]})

    watch, ended = await watch_until(serving, answer, lambda _: False)
    assert ended
    assert "decisions" in watch.history(0).note


async def test_an_overloaded_server_is_asked_again(serving):
    async def answer(_request):
        return web.Response(status=503)

    _, ended = await watch_until(
        serving, answer, lambda watch: "503" in (watch.history(0).note or "")
    )
    assert not ended


async def test_an_empty_list_is_explained(serving):
    async def answer(_request):
        return web.json_response({"decisions": []})

    watch, _ = await watch_until(
        serving, answer, lambda watch: "no decisions" in (watch.history(0).note or "")
    )
    assert watch.history(0).decisions == ()
