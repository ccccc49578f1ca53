"""One run from options to result, with what watches it beside."""

import asyncio

import pytest
from aiohttp import web

from autoscaling.loadtest.errors import PlanInvalid
from autoscaling.loadtest.generator import Target
from autoscaling.loadtest.plan import Kind
from autoscaling.loadtest.results import Objective, Schedule
from autoscaling.loadtest.run import LoadTest, plan_for, run

KINDS = (Kind(name="1-row", rows=1, weight=0.5), Kind(name="3-row", rows=3, weight=0.5))
SCHEDULE = Schedule(rate_rps=100.0, duration_s=0.2, kinds=KINDS, arrivals="even")


def load_test(origin, **changes):
    return LoadTest(
        target=Target(url=f"{origin}/predict"),
        schedule=SCHEDULE,
        objective=Objective(slo_ms=9_000.0),
        sample={"instances": [[1], [2]]},
        prefix="lt-run",
        **changes,
    )


async def test_rows_of_the_mix_arrive_and_the_run_is_judged(serving):
    sizes = []

    async def predict(request):
        sizes.append(len((await request.json())["instances"]))
        return web.Response()

    shown = []
    async with serving(predict) as origin:
        result, recording = await run(load_test(origin), show=shown.append)
    assert result.verdict.held
    assert result.counts.planned == len(sizes) == 20
    assert sizes.count(3) == int((recording.plan.kind == 1).sum())
    assert result.scaling.note == "not asked for"
    assert shown == [recording]


async def test_decisions_are_kept_beside(serving):
    asked = asyncio.Event()

    async def predict(_request):
        await asked.wait()
        return web.Response()

    async def scaling(_request):
        asked.set()
        return web.json_response({"decisions": [{"ts": 2e9, "target": 2, "running": 1}]})

    async with serving(predict, scaling=scaling) as origin:
        result, _ = await run(load_test(origin, scaling_url=f"{origin}/monitor/api/scaling"))
    assert result.counts.ok == 20


async def test_an_error_of_the_view_is_not_lost(serving):
    async def predict(_request):
        return web.Response()

    def show(_recording):
        raise RuntimeError("broken view")

    async with serving(predict) as origin:
        with pytest.raises(RuntimeError, match="broken view"):
            await run(load_test(origin), show=show)


def test_the_result_holds_the_duration_of_the_trace(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text("t_s,rps\n0,10\n10,20\n")
    schedule = Schedule(trace=str(path), kinds=KINDS, speed=2.0)
    assert plan_for(schedule).duration_s == 10.0
    shorter = Schedule(trace=str(path), kinds=KINDS, speed=2.0, duration_s=4.0)
    assert plan_for(shorter).duration_s == 4.0


def test_a_rate_or_a_trace():
    with pytest.raises(PlanInvalid, match="not both"):
        plan_for(Schedule(kinds=KINDS))
    with pytest.raises(PlanInvalid, match="not both"):
        plan_for(Schedule(rate_rps=1.0, trace="t.csv", duration_s=1.0, kinds=KINDS))
