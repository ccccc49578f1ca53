"""The highest rate at which the load generator is on time, on one core against a trivial server.

Starts an aiohttp server that answers at once, in a process of its own, and sends one-row requests
at rising rates. A rate counts as reached when fewer than 1% of the requests were begun more than
10 ms late: the report's own rule. The first rate is low, so its latency is the one to hold the
others against: what is above it is queueing in the generator and in the server together.

    python -m benchmarks.generator_rate [--seconds 5] [--rates 250,500,1000,1500,2000,3000,4000]
"""

import argparse
import asyncio
import os
import subprocess
import sys
import time

import numpy as np
from aiohttp import web

from autoscaling.loadtest.generator import Generator, Target
from autoscaling.loadtest.plan import Kind, make_plan
from autoscaling.loadtest.profile import RateProfile
from autoscaling.loadtest.recording import Recording

ONE_ROW = (Kind(name="light", rows=1, weight=1.0),)
BODY = b'{"instances": [' + b"1" * 600 + b"]}"
LATE_MS = 10.0


async def answer(request: web.Request) -> web.Response:
    await request.read()
    return web.json_response({})


def serve() -> None:
    app = web.Application()
    app.router.add_post("/predict", answer)

    async def start() -> None:
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        print(runner.addresses[0][1], flush=True)
        await asyncio.Event().wait()

    asyncio.run(start())


def measure(url: str, rate_rps: float, seconds: float) -> Recording:
    plan = make_plan(RateProfile.constant(rate_rps, seconds), ONE_ROW)
    generator = Generator(plan, [[BODY]], Target(url=url), prefix="bench")
    asyncio.run(generator.run())
    return generator.recording


def describe(rate_rps: float, recording: Recording) -> bool:
    lag_ms, latency_ms = recording.lag_ms, recording.latency_ms
    late = float((lag_ms > LATE_MS).mean())
    lag = np.quantile(lag_ms, [0.5, 0.99])
    latency = np.quantile(latency_ms, [0.5, 0.99])
    cost_us = recording.cpu_s / len(recording.plan) * 1e6
    print(
        f"{rate_rps:7.0f} rps  ok {recording.ok.mean():6.1%}  late {late:6.2%}  "
        f"lag p50 {lag[0]:7.2f} p99 {lag[1]:8.2f} ms  "
        f"latency p50 {latency[0]:7.2f} p99 {latency[1]:8.2f} ms  {cost_us:4.0f} us CPU/request"
    )
    return late < 0.01


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rates", default="250,500,1000,1500,2000,3000,4000")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve()
        return
    command = [sys.executable, "-m", "benchmarks.generator_rate", "--serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{server.stdout.readline().strip()}/predict"
        measure(url, 50.0, 1.0)  # warm up both sides
        reached = 0.0
        for rate_rps in map(float, options.rates.split(",")):
            load = os.getloadavg()[0]
            time.sleep(0.5)
            if describe(rate_rps, measure(url, rate_rps, options.seconds)):
                reached = rate_rps
        print(f"reached {reached:.0f} rps (load average of the machine {load:.1f})")
        server.terminate()


if __name__ == "__main__":
    main()
