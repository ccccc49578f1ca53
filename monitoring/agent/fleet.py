"""What the replicas report, kept so that the sums never go down, and the agent's own counts.

``AgentCounts`` can be added up over shards: every replica reports to one shard only.
"""

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from typing import Final, TypeVar

import msgspec

from monitoring.events import HistogramCounts, ReplicaReport

MAX_REPLICAS: Final = 1000
ALIVE_S: Final = 10.0

_Key = TypeVar("_Key", str, int)
Labels = tuple[str, str, str]  # model, version, variant


class VariantTotals(msgspec.Struct):
    """Serving and capture counters of one variant over all replicas."""

    requests: dict[int, int] = {}
    rows: int = 0
    latency_s: HistogramCounts | None = None
    captured: int = 0
    acknowledged: int = 0
    dropped: dict[str, int] = {}  # copies that a shadow did not score


class FleetTotals(msgspec.Struct):
    """Everything the replicas count; gauges are those of living ones."""

    variants: dict[Labels, VariantTotals] = {}
    rejected: dict[int, int] = {}
    dropped: dict[str, int] = {}
    ongoing: int = 0
    journal_bytes: int = 0
    journal_fill: float = 0.0  # of the fullest journal, 1.0 is its quota
    replicas: int = 0
    warnings: int = 0
    failed_deliveries: int = 0
    refused_deliveries: int = 0
    dead_letters: int = 0


class AgentCounts(msgspec.Struct):
    """One shard's counters, or several shards' together."""

    fleet: FleetTotals = msgspec.field(default_factory=FleetTotals)
    deliveries: int = 0
    received_events: int = 0
    received_rows: int = 0
    repeated_events: int = 0
    sampled_out_events: int = 0
    lost_events: dict[str, int] = {}  # dropped by the agent itself, by reason
    rejected_deliveries: int = 0
    sink_files: int = 0
    sink_rows: int = 0
    sink_bytes: int = 0
    sink_failures: int = 0
    dead_letters: int = 0
    sink_lag_s: float = 0.0
    spool_bytes: int = 0
    spool_segments: int = 0
    spool_max_bytes: int = 0
    sinks_failing: int = 0
    sink_last_success_s: float = 0.0  # 0 before the first; of several shards the earliest
    waiting_nodes: int = 0
    unfinished_segments: int = 0  # stored, and not wholly counted live


class FleetMemory(msgspec.Struct):
    """The latest report of each replica with its time, last seen last; ``folded`` sums older ones.

    Dead replicas stay, so that sums never go down. Which of two reports is the later one is told by
    their counters, for clocks step back.
    """

    latest: dict[str, tuple[float, ReplicaReport]] = {}
    folded: FleetTotals = msgspec.field(default_factory=FleetTotals)
    dropped_s: dict[str, float] = {}  # by replica: when it last told of another drop

    def put(self, seen_s: float, report: ReplicaReport) -> None:
        known = self.latest.pop(report.replica, None)
        if known is not None and _progress(known[1]) > _progress(report):
            seen_s, report = known
        elif drops(report).total() > (drops(known[1]).total() if known else 0):
            self.dropped_s[report.replica] = seen_s
        self.latest[report.replica] = (seen_s, report)
        if len(self.latest) > MAX_REPLICAS:
            oldest = next(iter(self.latest))
            self.dropped_s.pop(oldest, None)
            _add_report(self.folded, self.latest.pop(oldest)[1], alive=False)


def _progress(report: ReplicaReport) -> tuple[int, int, int, bool]:
    """Order one replica's reports: its counters only grow, and its closing comes last."""
    return (
        sum(sum(counts.requests.values()) for counts in report.variants),
        sum(counts.captured for counts in report.captures),
        sum(counts.acknowledged for counts in report.captures),
        report.closed,
    )


def is_alive(seen_s: float, now_s: float) -> bool:
    """Whether a report is of late; one from the future was noted before the clock stepped back."""
    return abs(now_s - seen_s) <= ALIVE_S


def drops(report: ReplicaReport) -> Counter[str]:
    """Add up by reason the events that a replica's captures have lost for good."""
    dropped = Counter[str]()
    for capture in report.captures:
        dropped.update(capture.dropped)
    return dropped


class Fleet:
    """What replicas report to this agent, beside what is known from others. Thread-safe."""

    def __init__(self) -> None:
        self._memory = FleetMemory()
        self._noted: dict[str, tuple[float, ReplicaReport]] = {}  # not in the file yet
        self._mutex = threading.Lock()

    def note(self, report: ReplicaReport, now_s: float) -> None:
        with self._mutex:
            self._memory.put(now_s, report)
            self._noted.pop(report.replica, None)
            self._noted[report.replica] = self._memory.latest[report.replica]
            if len(self._noted) > MAX_REPLICAS:
                del self._noted[next(iter(self._noted))]

    def learn(self, stored: FleetMemory) -> dict[str, tuple[float, ReplicaReport]]:
        """Put what was noted here into ``stored`` and go on from a copy of that.

        Returns what was put in, for ``forget_noted`` once ``stored`` is safe.
        """
        with self._mutex:
            for seen_s, report in self._noted.values():
                stored.put(seen_s, report)
            folded = FleetTotals()
            _add_totals(folded, stored.folded)
            self._memory = FleetMemory(
                latest=dict(stored.latest), folded=folded, dropped_s=dict(stored.dropped_s)
            )
            return dict(self._noted)

    def forget_noted(self, noted: dict[str, tuple[float, ReplicaReport]]) -> None:
        """Drop what is stored now, unless a later report has come meanwhile."""
        with self._mutex:
            for replica, entry in noted.items():
                if self._noted.get(replica) is entry:
                    del self._noted[replica]

    def reports(self) -> list[tuple[float, ReplicaReport]]:
        """List the latest report of each replica with the time it came."""
        with self._mutex:
            return list(self._memory.latest.values())

    def last_drops(self) -> dict[str, float]:
        """Tell by replica when a report told of its latest drop."""
        with self._mutex:
            return dict(self._memory.dropped_s)

    def close(self, replica: str, seen_s: float) -> None:
        """Note that the journals of a replica, silent since ``seen_s``, have been handed over."""
        with self._mutex:
            known = self._memory.latest.get(replica)
            if known is not None and known[0] == seen_s:
                entry = (seen_s, msgspec.structs.replace(known[1], closed=True))
                self._memory.latest[replica] = self._noted[replica] = entry

    def totals(self, now_s: float) -> FleetTotals:
        totals = FleetTotals()
        with self._mutex:
            _add_totals(totals, self._memory.folded)
            for seen_s, report in self._memory.latest.values():
                _add_report(totals, report, alive=is_alive(seen_s, now_s))
        return totals


def _add_report(totals: FleetTotals, report: ReplicaReport, *, alive: bool) -> None:
    for counts in report.variants:
        variant = _variant(totals, (counts.model, counts.version, counts.variant))
        _add_counts(variant.requests, counts.requests)
        variant.rows += counts.rows
        _add_counts(variant.dropped, counts.dropped)
        variant.latency_s = add_histograms(variant.latency_s, counts.latency_s)
    for capture in report.captures:
        variant = _variant(totals, (capture.model, capture.version, capture.variant))
        variant.captured += capture.captured
        variant.acknowledged += capture.acknowledged
        _add_counts(totals.dropped, capture.dropped)
        totals.failed_deliveries += capture.failed_deliveries
        totals.refused_deliveries += capture.refused_deliveries
        totals.dead_letters += capture.dead_letters
        if alive:
            totals.journal_bytes += capture.journal_bytes
            if capture.journal_max_bytes:
                fill = capture.journal_bytes / capture.journal_max_bytes
                totals.journal_fill = max(totals.journal_fill, fill)
    _add_counts(totals.rejected, report.rejected)
    totals.ongoing += report.ongoing if alive else 0
    totals.replicas += alive
    totals.warnings += len(report.warnings) if alive else 0


def _add_totals(totals: FleetTotals, other: FleetTotals) -> None:
    for labels, theirs in other.variants.items():
        variant = _variant(totals, labels)
        _add_counts(variant.requests, theirs.requests)
        variant.rows += theirs.rows
        _add_counts(variant.dropped, theirs.dropped)
        variant.captured += theirs.captured
        variant.acknowledged += theirs.acknowledged
        if theirs.latency_s is not None:
            variant.latency_s = add_histograms(variant.latency_s, theirs.latency_s)
    _add_counts(totals.rejected, other.rejected)
    _add_counts(totals.dropped, other.dropped)
    totals.ongoing += other.ongoing
    totals.journal_bytes += other.journal_bytes
    totals.journal_fill = max(totals.journal_fill, other.journal_fill)
    totals.replicas += other.replicas
    totals.warnings += other.warnings
    totals.failed_deliveries += other.failed_deliveries
    totals.refused_deliveries += other.refused_deliveries
    totals.dead_letters += other.dead_letters


def _variant(totals: FleetTotals, labels: Labels) -> VariantTotals:
    return totals.variants.setdefault(labels, VariantTotals())


def _add_counts(into: dict[_Key, int], counts: dict[_Key, int]) -> None:
    for key, count in counts.items():
        into[key] = into.get(key, 0) + count


def add_histograms(left: HistogramCounts | None, right: HistogramCounts) -> HistogramCounts:
    """Add two histograms; where bounds differ, values move up to the next bound of the left one."""
    if left is None:
        return right
    counts = list(left.counts)
    for index, count in enumerate(right.counts):
        above = index == len(right.bounds)
        target = len(left.bounds) if above else bisect_left(left.bounds, right.bounds[index])
        counts[target] += count
    return HistogramCounts(bounds=left.bounds, counts=tuple(counts), sum=left.sum + right.sum)


def merge(parts: Iterable[AgentCounts]) -> AgentCounts:
    """Add up shards; the lag is the longest of theirs."""
    merged = AgentCounts()
    for part in parts:
        _add_totals(merged.fleet, part.fleet)
        _add_counts(merged.lost_events, part.lost_events)
        merged.sink_lag_s = max(merged.sink_lag_s, part.sink_lag_s)
        known = [c.sink_last_success_s for c in (merged, part) if c.sink_last_success_s]
        merged.sink_last_success_s = min(known, default=0.0)
        for name in _SUMMED:
            setattr(merged, name, getattr(merged, name) + getattr(part, name))
    return merged


_SUMMED: Final = tuple(f.name for f in msgspec.structs.fields(AgentCounts) if f.type is int)
