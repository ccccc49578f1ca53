"""Live figures as Prometheus text."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from monitoring.agent.metrics import VARIANT
from monitoring.live.degrading import DECIDING, Standing
from monitoring.live.outcomes import ERRORS
from monitoring.live.views import DriftView, LiveView


def live_exposition(view: LiveView) -> bytes:
    """Return the text format of a view that was asked for as a summary."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Snapshot(view))
    text: bytes = generate_latest(registry)
    return text


class _Snapshot(Collector):
    """Collects one view, once."""

    def __init__(self, view: LiveView) -> None:
        self._view = view

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        yield from _counted(self._view)
        yield from _drift(self._view)
        yield from _feedback(self._view)
        alerts = GaugeMetricFamily(
            "treeline_alert_open", "1 while an alert is open.", labels=["kind", "cause"]
        )
        for cause, (kind, is_open) in sorted(_alerts(self._view).items()):
            alerts.add_metric([kind, cause], is_open)
        yield alerts


def _counted(view: LiveView) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "treeline_live_counted_timestamp_seconds",
        "When the live windows last held everything received.",
        value=view.counted_at_s,
    )
    for name, text in (
        ("events", "Events in the live windows, sampled-out ones included."),
        ("missed_events", "Events received that could not be counted live."),
        ("too_old_events", "Events older than any live window that is kept."),
    ):
        metric = CounterMetricFamily(f"treeline_live_{name}", text, labels=VARIANT)
        for stream in view.streams:
            labels = [stream.model, stream.version, stream.variant]
            metric.add_metric(labels, getattr(stream, name))
        yield metric


def _drift(view: LiveView) -> Iterator[Metric]:
    alarm = GaugeMetricFamily(
        "treeline_drift_alarm", "1 while a drift alarm is open.", labels=VARIANT
    )
    evidence = GaugeMetricFamily(
        "treeline_drift_evidence", "Evidence for drift since the last alarm.", labels=VARIANT
    )
    threshold = GaugeMetricFamily(
        "treeline_drift_threshold", "Evidence at which an alarm opens.", labels=VARIANT
    )
    compared = GaugeMetricFamily(
        "treeline_drift_compared", "1 where a baseline to compare with is known.", labels=VARIANT
    )
    for (model, version, variant), found in sorted(_by_stream(view).items()):
        labels = [model, version, variant]
        alarm.add_metric(labels, float(any(d.open_since_s is not None for d in found)))
        evidence.add_metric(labels, max(d.evidence for d in found))
        compared.add_metric(labels, float(all(d.baseline is None for d in found)))
        known = [d.threshold for d in found if d.threshold is not None]
        if known:
            threshold.add_metric(labels, max(known))
    yield from (alarm, evidence, threshold, compared)


def _feedback(view: LiveView) -> Iterator[Metric]:
    """The newest day of answers with enough feedback, as each node judges it; the worst of them."""
    events = CounterMetricFamily(
        "treeline_feedback_live_events", "Feedback by what became of it.", labels=["model", "fate"]
    )
    for model, fates in sorted(view.fates.items()):
        for fate, count in sorted(fates.items()):
            if fate != "waiting":
                events.add_metric([model, fate], count)
    yield events
    yield from _standings(view)


def _standings(view: LiveView) -> Iterator[Metric]:
    labels = [*VARIANT, "metric"]
    ratio = GaugeMetricFamily(
        "treeline_outcome_ratio", "Share of answers clicked or right.", labels=labels
    )
    error = GaugeMetricFamily(
        "treeline_outcome_error", "Errors of a regression, in the label's units.", labels=labels
    )
    reference = GaugeMetricFamily(
        "treeline_outcome_reference", "What a figure is held against.", labels=[*labels, "against"]
    )
    compared = GaugeMetricFamily(
        "treeline_outcome_compared", "1 where a figure is held against something.", labels=labels
    )
    flags = GaugeMetricFamily(
        "treeline_needs_retraining", "1 while feedback says so.", labels=labels
    )
    found: dict[tuple[str, ...], list[Standing]] = {}
    for part in view.feedback:
        for judged in part.standings:
            of: tuple[str, ...] = (part.model, part.version, part.variant, judged.metric)
            found.setdefault(of, []).append(judged)
    for of, nodes in sorted(found.items()):
        values = [judged.rate.value for judged in nodes]
        if nodes[0].metric in ERRORS:
            error.add_metric(of, max(values, key=abs))
        else:
            ratio.add_metric(of, min(values))
        if nodes[0].metric in DECIDING:
            compared.add_metric(of, float(all(judged.against for judged in nodes)))
            flags.add_metric(of, float(any(judged.degraded for judged in nodes)))
        for judged in nodes:
            if judged.against is not None and judged.reference is not None:
                reference.add_metric([*of, judged.against], judged.reference)
                break
    yield from (ratio, error, reference, compared, flags)


def _by_stream(view: LiveView) -> dict[tuple[str, str, str], list[DriftView]]:
    """Agents on several nodes each judge what they received; their states stand side by side."""
    found: dict[tuple[str, str, str], list[DriftView]] = {}
    for drift in view.drift:
        found.setdefault((drift.model, drift.version, drift.variant), []).append(drift)
    return found


def _alerts(view: LiveView) -> dict[str, tuple[str, float]]:
    found: dict[str, tuple[str, float]] = {}
    for alert in view.alerts:
        _, before = found.get(alert.cause, ("", 0.0))
        found[alert.cause] = (alert.kind, max(before, float(alert.state == "open")))
    return found
