"""Closed-loop load, every request with an id that the log can be asked for."""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass

import aiohttp
import numpy as np


@dataclass(frozen=True)
class Answers:
    """What came back. Latencies in seconds, in order of completion."""

    statuses: Counter[int]
    answered: list[str]
    latencies_s: list[float]

    def percentile_ms(self, q: float) -> float:
        return float(np.percentile(self.latencies_s, q)) * 1e3


async def send(url: str, body: bytes, *, requests: int, concurrency: int, prefix: str) -> Answers:
    """Send ``requests`` requests named ``<prefix>-<n>``, ``concurrency`` at a time."""
    statuses: Counter[int] = Counter()
    answered: list[str] = []
    latencies: list[float] = []
    numbers = iter(range(requests))

    async def worker(session: aiohttp.ClientSession) -> None:
        for number in numbers:
            name = f"{prefix}-{number}"
            started = time.perf_counter()
            headers = {"X-Request-ID": name, "Content-Type": "application/json"}
            async with session.post(url, data=body, headers=headers) as answer:
                await answer.read()
            latencies.append(time.perf_counter() - started)
            statuses[answer.status] += 1
            if answer.status == 200:
                answered.append(name)

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(worker(session) for _ in range(concurrency)))
    return Answers(statuses, answered, latencies)


def load(url: str, body: bytes, *, requests: int, concurrency: int, prefix: str) -> Answers:
    return asyncio.run(send(url, body, requests=requests, concurrency=concurrency, prefix=prefix))
