"""Seeded chaos as a plan: what is hit, when, and for how long.

``plan`` is pure: a seed gives the same schedule every time. Carrying it out is ``chaos``'s part.
"""

import random
from dataclasses import dataclass
from enum import StrEnum
from itertools import cycle, islice

from tests.e2e.s3 import Fault


class Target(StrEnum):
    """A kind of process, named by how its command line begins."""

    REPLICA = "ray::ServeReplica:treeline:ModelServer"
    AGENT = "ray::MonitoringAgentActor"
    CONTROLLER = "ray::ServeController"
    HAPROXY_MANAGER = "ray::HAProxyManager"
    HAPROXY = "haproxy"


class Change(StrEnum):
    """What is different in a release."""

    ARGS = "args"
    CODE = "code"
    REPLICAS = "replicas"  # one instead of two


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


@dataclass(frozen=True, kw_only=True)
class Skew:
    """The wall clocks of replicas and agent are off by so much for a while; kills go on."""

    wait_s: float
    ahead_s: float
    kills: tuple[Kill, ...]


@dataclass(frozen=True, kw_only=True)
class Fill:
    """The agent stands still until a replica's journal has used up its quota of the disk."""

    wait_s: float


@dataclass(frozen=True, kw_only=True)
class Release:
    """Deploy a changed application, and then the one before again."""

    wait_s: float
    change: Change


Blow = Kill | Outage | Skew | Fill | Release

FAULTS = [fault for fault in Fault if fault is not Fault.PASS]
SKEWS_S = [3 * 3600.0, -2 * 3600.0, 40.0]


def plan(
    rng: random.Random,
    *,
    mean_wait_s: float,
    kills: int,
    outages: int = 0,
    skews: int = 0,
    fills: int = 0,
    releases: int = 0,
) -> list[Blow]:
    """Draw a schedule: every target is hit in turn, in random order, at random moments.

    An outage and a skew hold two of the kills each, so that processes die and come back while
    storage is away or the clock is wrong; there must be so many. Faults, skews and changes come in
    turn.
    """
    if kills < 2 * (outages + skews):
        raise ValueError(f"{kills} kills; {outages} outages and {skews} skews need two each")
    targets: list[Target] = []
    while len(targets) < kills:
        targets += rng.sample(list(Target), k=len(Target))
    del targets[kills:]

    def wait_s() -> float:
        return rng.uniform(0.2, 2 * mean_wait_s)

    def kill() -> Kill:
        return Kill(wait_s=wait_s(), target=targets.pop())

    blows: list[Blow] = [
        Outage(wait_s=0.0, fault=fault, kills=(kill(), kill()))
        for fault in islice(cycle(FAULTS), outages)
    ]
    blows += [
        Skew(wait_s=0.0, ahead_s=ahead_s, kills=(kill(), kill()))
        for ahead_s in islice(cycle(SKEWS_S), skews)
    ]
    blows += [Fill(wait_s=wait_s()) for _ in range(fills)]
    blows += [Release(wait_s=wait_s(), change=change) for change in islice(cycle(Change), releases)]
    blows += [kill() for _ in range(len(targets))]
    rng.shuffle(blows)
    return blows
