"""One run from options to result: the plan is made, sent and judged."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from msgspec import structs

from autoscaling.loadtest.bodies import encode_bodies
from autoscaling.loadtest.errors import PlanInvalid
from autoscaling.loadtest.generator import Generator, Target
from autoscaling.loadtest.plan import Plan, make_plan
from autoscaling.loadtest.profile import RateProfile, read_trace
from autoscaling.loadtest.recording import Recording
from autoscaling.loadtest.results import Objective, Result, Schedule
from autoscaling.loadtest.scaling import ScalingHistory, ScalingWatch
from autoscaling.loadtest.summary import summarise

SHOW_EVERY_S: Final = 1.0

# Called once a second with the recording so far.
Show = Callable[[Recording], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadTest:
    """All that a run needs. Rows come from ``sample``, a body for ``POST /predict``.

    ``prefix`` begins every request id, so it should differ from run to run.
    """

    target: Target
    schedule: Schedule
    objective: Objective
    sample: dict[str, Any]
    prefix: str
    scaling_url: str | None = None


def plan_for(schedule: Schedule) -> Plan:
    """Make the plan a schedule describes; PlanInvalid when none can be made from it."""
    if (schedule.rate_rps is None) == (schedule.trace is None):
        raise PlanInvalid("--rate or --trace is needed, and not both")
    if schedule.trace is not None:
        whole = read_trace(Path(schedule.trace)).changed(speed=schedule.speed, scale=schedule.scale)
        profile = whole if schedule.duration_s is None else whole.first(schedule.duration_s)
    else:
        profile = RateProfile.constant(schedule.rate_rps or 0.0, schedule.duration_s or 0.0)
        profile = profile.changed(scale=schedule.scale)
    return make_plan(
        profile,
        schedule.kinds,
        arrivals=schedule.arrivals,
        seed=schedule.seed,
        warmup_s=schedule.warmup_s,
    )


async def run(
    test: LoadTest,
    *,
    show: Show | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> tuple[Result, Recording]:
    """Send the whole plan, or up to where ``stopped`` turns true, and judge what came back."""
    plan = plan_for(test.schedule)
    bodies = [encode_bodies(test.sample, kind) for kind in plan.kinds]
    generator = Generator(plan, bodies, test.target, prefix=test.prefix)
    watch = None if test.scaling_url is None else ScalingWatch(test.scaling_url)
    async with contextlib.AsyncExitStack() as beside:
        if watch is not None:
            await beside.enter_async_context(_beside(watch.run()))
        if show is not None:
            await beside.enter_async_context(_beside(_show_often(generator.recording, show)))
        await generator.run(stopped)
    recording = generator.recording
    history = ScalingHistory(note="not asked for")
    if watch is not None:
        history = watch.history(recording.started_at_s)
    result = summarise(
        recording,
        target=test.target,
        schedule=structs.replace(test.schedule, duration_s=plan.duration_s),
        objective=test.objective,
        scaling=history,
    )
    return result, recording


@contextlib.asynccontextmanager
async def _beside(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run ``work`` while the block runs, then cancel it; an error of its own is raised."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _show_often(recording: Recording, show: Show) -> None:
    while True:
        show(recording)
        await asyncio.sleep(SHOW_EVERY_S)
