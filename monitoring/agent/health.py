"""What an operator should know about one shard now. Pure.

Numbers stand in fields, what asks for a person in ``warnings``, one sentence each. ``ok`` is false
only when the agent itself does not work; warnings alone mean that it copes.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from monitoring.agent.fleet import drops, is_alive
from monitoring.agent.nodes import NodeHealth
from monitoring.agent.spool import SpoolState
from monitoring.events import ReplicaReport

Kind = Literal["agent", "spool", "storage", "dead_letters", "nodes", "drops", "replicas"]

NEARLY_FULL: Final = 0.9
PATIENCE_S: Final = 60.0
DROPS_OPEN_S: Final = 600.0


class SinkHealth(msgspec.Struct, frozen=True, kw_only=True):
    """Times are seconds since 1970, None where it never happened in this agent's life."""

    last_success_s: float | None
    failing_since_s: float | None
    last_error: str | None


class SpoolHealth(msgspec.Struct, frozen=True, kw_only=True):
    """``lag_s`` is the age of the oldest segment; ``foreign_epochs`` are not taken over yet."""

    bytes: int
    max_bytes: int
    segments: int
    lag_s: float
    foreign_epochs: int


class ReplicaWarnings(msgspec.Struct, frozen=True, kw_only=True):
    """What a living replica says about its journals and senders."""

    replica: str
    node: str
    warnings: tuple[str, ...]


class AgentHealth(msgspec.Struct, frozen=True, kw_only=True):
    """One shard: the agent, its spool and sink, the replicas that report to it, silent nodes.

    ``causes`` are what alerts open for: the first warning of each kind. Storage that fails does
    after ``PATIENCE_S``, since every upload is tried again; drops do until none has been told of
    for ``DROPS_OPEN_S``, and stay a warning as long as their replica lives.
    """

    shard: str
    ok: bool
    warnings: tuple[str, ...]
    causes: dict[Kind, str]
    sink: SinkHealth
    spool: SpoolHealth
    dead_letters: tuple[str, ...]
    replicas: tuple[ReplicaWarnings, ...]
    nodes: tuple[NodeHealth, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What ``judge`` looks at.

    ``troubles`` are chores of the agent that fail now, ``dead_threads`` threads that have ended,
    ``last_drops`` tell by replica when its latest drop became known.
    """

    shard: str
    now_s: float
    troubles: tuple[str, ...]
    dead_threads: tuple[str, ...]
    sink: SinkHealth
    spool: SpoolHealth
    dead_letters: tuple[str, ...]
    reports: tuple[tuple[float, ReplicaReport], ...]
    last_drops: Mapping[str, float]
    nodes: tuple[NodeHealth, ...]


def spool_health(state: SpoolState, max_bytes: int, now_s: float) -> SpoolHealth:
    oldest_s = state.oldest_opened_at_s
    return SpoolHealth(
        bytes=state.bytes,
        max_bytes=max_bytes,
        segments=state.open_segments + state.sealed_segments,
        lag_s=0.0 if oldest_s is None else max(0.0, now_s - oldest_s),
        foreign_epochs=state.foreign_epochs,
    )


def judge(seen: Observed) -> AgentHealth:
    """Put together what is known; the warnings are in order of urgency."""
    replicas = tuple(
        ReplicaWarnings(replica=report.replica, node=report.node, warnings=report.warnings)
        for seen_s, report in seen.reports
        if report.warnings and is_alive(seen_s, seen.now_s)
    )
    found = list(_warnings(seen, replicas))
    causes = dict(reversed(found))
    failing_since_s = seen.sink.failing_since_s
    if failing_since_s is not None and seen.now_s - failing_since_s < PATIENCE_S:
        del causes["storage"]
    causes.pop("drops", None)
    for text in _drops(seen, within_s=DROPS_OPEN_S):
        causes.setdefault("drops", text)
    return AgentHealth(
        shard=seen.shard,
        ok=not seen.dead_threads,
        warnings=tuple(text for _, text in found),
        causes=causes,
        sink=seen.sink,
        spool=seen.spool,
        dead_letters=seen.dead_letters,
        replicas=replicas,
        nodes=seen.nodes,
    )


def _warnings(seen: Observed, replicas: Iterable[ReplicaWarnings]) -> Iterable[tuple[Kind, str]]:
    for name in seen.dead_threads:
        yield "agent", f"agent {seen.shard}: its thread {name} has ended; restart the agent"
    for trouble in seen.troubles:
        yield "agent", f"agent {seen.shard}: {trouble}"
    spool, sink = seen.spool, seen.sink
    if spool.bytes >= spool.max_bytes:
        yield (
            "spool",
            f"agent {seen.shard}: the spool is full ({spool.bytes} of {spool.max_bytes} bytes);"
            " events wait in the replicas' journals",
        )
    elif spool.bytes > NEARLY_FULL * spool.max_bytes:
        yield (
            "spool",
            f"agent {seen.shard}: {spool.bytes} of {spool.max_bytes} bytes of the spool are used",
        )
    if sink.failing_since_s is not None:
        away_s = max(0.0, seen.now_s - sink.failing_since_s)
        yield "storage", f"agent {seen.shard}: storage fails for {away_s:.0f} s: {sink.last_error}"
    if seen.dead_letters:
        yield (
            "dead_letters",
            f"agent {seen.shard}: {len(seen.dead_letters)} files lie in the dead letters, the last"
            f" {seen.dead_letters[-1]}",
        )
    for node in seen.nodes:
        yield from (("nodes", text) for text in _about(node))
    yield from (("drops", text) for text in _drops(seen))
    for replica in replicas:
        yield from (("replicas", text) for text in replica.warnings)


def _drops(seen: Observed, within_s: float = math.inf) -> Iterable[str]:
    """Name the living replicas that have lost events for good, the last one ``within_s`` ago."""
    for seen_s, report in seen.reports:
        dropped = drops(report)
        recent = abs(seen.now_s - seen.last_drops.get(report.replica, -math.inf)) <= within_s
        if dropped.total() and recent and is_alive(seen_s, seen.now_s):
            reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(dropped.items()))
            yield f"replica {report.replica}: {dropped.total()} events were dropped ({reasons})"


def _about(node: NodeHealth) -> Iterable[str]:
    if node.replicas and not node.alive:
        yield (
            f"node {node.node} is gone for {node.silent_s:.0f} s; journals of {node.replicas}"
            f" replica{'' if node.replicas == 1 else 's'} wait there for its return,"
            " with at least"
            f" {node.unacknowledged} events"
        )
    yield from (f"node {node.node}: {problem}" for problem in node.problems)
