"""A real HTTP server on loopback whose answers are scripted, and recordings made by hand."""

from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager

import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from autoscaling.loadtest.plan import Kind, Plan
from autoscaling.loadtest.recording import Outcome, Recording

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
ONE_ROW = (Kind(name="light", rows=1, weight=1.0),)


@pytest.fixture
def serving():
    """``async with serving(predict) as origin``; ``scaling`` answers /monitor/api/scaling."""

    @asynccontextmanager
    async def serve(predict: Handler, scaling: Handler | None = None):
        app = web.Application(client_max_size=64 << 20)
        app.router.add_post("/predict", predict)
        if scaling is not None:
            app.router.add_get("/monitor/api/scaling", scaling)
        server = TestServer(app, access_log=None)
        await server.start_server(shutdown_timeout=0)
        try:
            yield str(server.make_url("")).rstrip("/")
        finally:
            await server.close()

    return serve


def plan_at(*at_s: float, duration_s: float = 10.0, warmup_s: float = 0.0) -> Plan:
    """One-row requests at exactly these times."""
    return Plan(
        at_s=np.array(at_s, dtype=np.float64),
        kind=np.zeros(len(at_s), dtype=np.uint8),
        kinds=ONE_ROW,
        duration_s=duration_s,
        warmup_s=warmup_s,
    )


@pytest.fixture
def planned():
    return plan_at


def record(latency_ms, *, every_s: float = 0.1, warmup_s: float = 0.0) -> Recording:
    """A recording in which every request went well after ``latency_ms``; tests change it."""
    at_s = np.arange(len(latency_ms)) * every_s
    plan = plan_at(*at_s, duration_s=max(1.0, len(at_s) * every_s), warmup_s=warmup_s)
    recording = Recording.empty(plan, "lt-test")
    recording.begun_s[:] = at_s
    recording.sent_s[:] = at_s
    recording.done_s[:] = at_s + np.asarray(latency_ms) / 1e3
    recording.status[:] = 200
    recording.outcome[:] = Outcome.ANSWERED
    recording.started_at_s = 1_700_000_000.0
    recording.wall_s, recording.cpu_s = plan.duration_s, plan.duration_s / 4
    return recording


@pytest.fixture(scope="session")
def cut():
    """Make a recording one that was stopped before request ``first``."""

    def cut_from(recording: Recording, first: int) -> None:
        recording.outcome[first:], recording.status[first:] = Outcome.NOT_SENT, 0
        for times_s in (recording.begun_s, recording.sent_s, recording.done_s):
            times_s[first:] = np.nan

    return cut_from


@pytest.fixture(scope="session")
def recorded():
    return record
