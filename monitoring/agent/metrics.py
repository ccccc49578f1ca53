"""``AgentCounts`` as Prometheus text, through a registry of our own beside Ray's."""

from collections.abc import Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from monitoring.agent.fleet import AgentCounts, FleetTotals

VARIANT = ["model", "version", "variant"]


def exposition(counts: AgentCounts) -> bytes:
    """Return the text format that ``GET /metrics`` answers."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Snapshot(counts))
    text: bytes = generate_latest(registry)
    return text


class _Snapshot(Collector):
    """Collects one set of counts, once."""

    def __init__(self, counts: AgentCounts) -> None:
        self._counts = counts

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        yield from _serving(self._counts.fleet)
        yield from _capture(self._counts)
        yield from _intake(self._counts)
        yield from _storage(self._counts)


def _serving(fleet: FleetTotals) -> Iterator[Metric]:
    requests = CounterMetricFamily(
        "treeline_requests", "Requests answered by a model.", labels=[*VARIANT, "code"]
    )
    rows = CounterMetricFamily("treeline_rows", "Input rows answered.", labels=VARIANT)
    duration = HistogramMetricFamily(
        "treeline_request_duration_seconds",
        "Time from admission to response.",
        labels=VARIANT,
    )
    dropped = CounterMetricFamily(
        "treeline_shadow_dropped_requests",
        "Copies of requests that a shadow did not score.",
        labels=[*VARIANT, "reason"],
    )
    for labels, totals in sorted(fleet.variants.items()):
        for reason, count in sorted(totals.dropped.items()):
            dropped.add_metric([*labels, reason], count)
        for code, count in sorted(totals.requests.items()):
            requests.add_metric([*labels, str(code)], count)
        rows.add_metric(labels, totals.rows)
        if totals.latency_s is not None:
            bounds = [*(repr(float(b)) for b in totals.latency_s.bounds), "+Inf"]
            reached = map(float, accumulate(totals.latency_s.counts))
            buckets = list(zip(bounds, reached, strict=True))
            duration.add_metric(labels, buckets, totals.latency_s.sum)
    rejected = CounterMetricFamily(
        "treeline_rejected_requests", "Requests that reached no model.", labels=["code"]
    )
    for code, count in sorted(fleet.rejected.items()):
        rejected.add_metric([str(code)], count)
    yield from (requests, rows, duration, dropped, rejected)
    yield _gauge("treeline_ongoing_requests", "Requests being answered now.", fleet.ongoing)
    yield _gauge("treeline_replicas", "Replicas that reported of late.", fleet.replicas)


def _capture(counts: AgentCounts) -> Iterator[Metric]:
    captured = CounterMetricFamily(
        "treeline_capture_events", "Events captured, dropped ones included.", labels=VARIANT
    )
    for labels, totals in sorted(counts.fleet.variants.items()):
        captured.add_metric(labels, totals.captured)
    dropped = CounterMetricFamily(
        "treeline_capture_dropped_events", "Events lost for good, by reason.", labels=["reason"]
    )
    for reasons in (counts.fleet.dropped, counts.lost_events):
        for reason, count in sorted(reasons.items()):
            dropped.add_metric([reason], count)
    yield from (captured, dropped)
    yield from _replicas(counts.fleet)


def _replicas(fleet: FleetTotals) -> Iterator[Metric]:
    yield _gauge("treeline_journal_bytes", "Replica journals on disk.", fleet.journal_bytes)
    yield _gauge(
        "treeline_journal_fill_ratio",
        "Share of its quota the fullest journal uses.",
        fleet.journal_fill,
    )
    yield _gauge("treeline_capture_warnings", "Warnings of living replicas.", fleet.warnings)
    yield _counter(
        "treeline_capture_failed_deliveries",
        "Calls to an agent that were not acknowledged; they are repeated.",
        fleet.failed_deliveries,
    )
    yield _counter(
        "treeline_capture_refused_deliveries",
        "Calls that an agent refused, repetitions included.",
        fleet.refused_deliveries,
    )
    yield _counter(
        "treeline_capture_dead_letters",
        "Deliveries refused for good and set aside in the replica.",
        fleet.dead_letters,
    )


def _intake(counts: AgentCounts) -> Iterator[Metric]:
    yield _gauge(
        "treeline_waiting_nodes",
        "Nodes that hold, or may hold, what dead replicas or agents left.",
        counts.waiting_nodes,
    )
    yield _counter(
        "treeline_agent_deliveries", "Deliveries taken in, repetitions included.", counts.deliveries
    )
    yield _counter("treeline_agent_received_events", "Events taken in.", counts.received_events)
    yield _counter("treeline_agent_received_rows", "Rows taken in.", counts.received_rows)
    yield _counter(
        "treeline_agent_repeated_events",
        "Events sent again and not stored again.",
        counts.repeated_events,
    )
    yield _counter(
        "treeline_agent_rejected_deliveries",
        "Deliveries refused for good.",
        counts.rejected_deliveries,
    )
    yield _counter(
        "treeline_sampled_out_events", "Events not stored by choice.", counts.sampled_out_events
    )


def _storage(counts: AgentCounts) -> Iterator[Metric]:
    yield _counter("treeline_sink_files", "Files stored.", counts.sink_files)
    yield _counter("treeline_sink_rows", "Rows stored.", counts.sink_rows)
    yield _counter("treeline_sink_bytes", "Bytes stored.", counts.sink_bytes)
    yield _counter("treeline_sink_failures", "Uploads that failed.", counts.sink_failures)
    yield _counter(
        "treeline_sink_dead_letters", "Spool files set aside as unreadable.", counts.dead_letters
    )
    yield _counter(
        "treeline_live_unfinished_segments",
        "Spool files that were stored and deleted before they were wholly counted live.",
        counts.unfinished_segments,
    )
    yield _gauge(
        "treeline_sink_lag_seconds", "Age of the oldest event not yet stored.", counts.sink_lag_s
    )
    yield _gauge("treeline_sinks_failing", "Agents whose last upload failed.", counts.sinks_failing)
    yield _gauge(
        "treeline_sink_last_success_timestamp_seconds",
        "When the last upload succeeded; 0 before the first.",
        counts.sink_last_success_s,
    )
    yield _gauge("treeline_spool_bytes", "Spool on disk.", counts.spool_bytes)
    yield _gauge("treeline_spool_max_bytes", "What the spool may use.", counts.spool_max_bytes)
    yield _gauge("treeline_spool_segments", "Spool files.", counts.spool_segments)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value=value)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)
