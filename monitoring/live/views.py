"""What is shown of live figures: what one state folder knows, and several of them merged."""

from collections.abc import Iterable
from typing import Any

import msgspec

from monitoring.analysis.compare.moments import Moments
from monitoring.live.alerts import Alert
from monitoring.live.degrading import Standing
from monitoring.live.figures import LATENCY_BOUNDS_MS, WindowFigures, bucket_value
from monitoring.live.outcomes import Metric
from monitoring.live.rates import rate_of
from monitoring.live.rules import Finding


class WindowView(msgspec.Struct):
    """``compared_rows`` of the window's answered rows can be compared with training."""

    model: str
    version: str
    variant: str
    level_s: int
    start_s: int
    figures: WindowFigures
    compared_rows: int


class StreamView(msgspec.Struct):
    """Totals since counting began; ``baseline`` says why nothing is compared, None if it is."""

    model: str
    version: str
    variant: str
    events: int
    rows: int
    missed_events: int
    too_old_events: int
    baseline: str | None


class DriftView(msgspec.Struct):
    """A stream's drift as one state folder sees it; ``reports`` are verdicts as JSON.

    ``threshold`` is None before the first verdict, ``open_since_s`` while nothing alarms.
    """

    model: str
    version: str
    variant: str
    evidence: float
    threshold: float | None
    open_since_s: float | None
    judged_to_s: float
    window_s: int
    baseline: str | None
    reports: list[bytes] = []


class QualityView(msgspec.Struct):
    """A stream's last closed window against its rules; ``start_s`` None before there is one."""

    model: str
    version: str
    variant: str
    start_s: int | None
    events: int
    rows: int
    findings: list[Finding]


class OutcomeWindow(msgspec.Struct):
    """Sums of one window's feedback."""

    start_s: int
    metric: Metric
    sums: Moments


class FeedbackView(msgspec.Struct):
    """A stream by its feedback: as one state folder judges it, and the windows asked for."""

    model: str
    version: str
    variant: str
    standings: list[Standing]
    windows: list[OutcomeWindow] = []


class LiveView(msgspec.Struct):
    """``counted_at_s`` is when the spool was last counted to its end."""

    store: str
    counted_at_s: float
    streams: list[StreamView] = []
    windows: list[WindowView] = []
    drift: list[DriftView] = []
    alerts: list[Alert] = []
    quality: list[QualityView] = []
    feedback: list[FeedbackView] = []
    fates: dict[str, dict[str, int]] = {}  # by model: what has become of its feedback


def merged(views: Iterable[LiveView]) -> LiveView:
    """Add up what different folders know; agents that share a folder know the same."""
    by_store: dict[str, LiveView] = {}
    for view in views:
        known = by_store.get(view.store)
        if known is None or view.counted_at_s > known.counted_at_s:
            by_store[view.store] = view
    parts = by_store.values()
    total = LiveView(
        store=" ".join(sorted(by_store)),
        counted_at_s=min((part.counted_at_s for part in parts), default=0.0),
        streams=_sum_streams(stream for part in parts for stream in part.streams),
        windows=_sum_windows(window for part in parts for window in part.windows),
    )
    for part in parts:  # each folder judges what it received
        total.alerts += part.alerts
        total.drift += part.drift
        total.quality += part.quality
        total.feedback += part.feedback
        for model, fates in part.fates.items():
            sums = total.fates.setdefault(model, {})
            for fate, events in fates.items():
                sums[fate] = sums.get(fate, 0) + events
    return total


def _sum_streams(streams: Iterable[StreamView]) -> list[StreamView]:
    sums: dict[tuple[str, ...], StreamView] = {}
    for stream in streams:
        total = sums.setdefault((stream.model, stream.version, stream.variant), stream)
        if total is not stream:
            for name in ("events", "rows", "missed_events", "too_old_events"):
                setattr(total, name, getattr(total, name) + getattr(stream, name))
            total.baseline = total.baseline and stream.baseline
    return [sums[key] for key in sorted(sums)]


def _sum_windows(windows: Iterable[WindowView]) -> list[WindowView]:
    sums: dict[tuple[object, ...], WindowView] = {}
    for window in windows:
        key = (window.model, window.version, window.variant, window.level_s, window.start_s)
        total = sums.setdefault(key, window)
        if total is not window:
            total.figures.merge(window.figures)
            total.compared_rows += window.compared_rows
    return [sums[key] for key in sorted(sums, key=str)]


def windows_json(view: LiveView) -> dict[str, Any]:
    """Give the view the shape of ``GET /monitor/api/windows``."""
    return {
        "counted_at_s": view.counted_at_s,
        "latency_bounds_ms": LATENCY_BOUNDS_MS,
        "streams": [msgspec.to_builtins(stream) for stream in view.streams],
        "windows": [_window_json(window) for window in view.windows],
    }


def drift_json(view: LiveView) -> dict[str, Any]:
    """Give the view the shape of ``GET /monitor/api/drift``."""
    return {
        "alarm": any(stream.open_since_s is not None for stream in view.drift),
        "counted_at_s": view.counted_at_s,
        "streams": [
            {
                "alarm": stream.open_since_s is not None,
                **{k: v for k, v in msgspec.to_builtins(stream).items() if k != "reports"},
                "windows": [msgspec.Raw(report) for report in stream.reports],
            }
            for stream in view.drift
        ],
    }


def quality_json(view: LiveView) -> dict[str, Any]:
    """Give the view the shape of ``GET /monitor/api/quality``."""
    broken = any(finding.broken for stream in view.quality for finding in stream.findings)
    return {"ok": not broken, "streams": msgspec.to_builtins(view.quality)}


def feedback_json(view: LiveView) -> dict[str, Any]:
    """Give the view the shape of ``GET /monitor/api/feedback``; nodes' windows are added up."""
    streams: dict[tuple[str, str, str], dict[str, Any]] = {}
    sums: dict[tuple[str, str, str], dict[tuple[int, Metric], Moments]] = {}
    for part in view.feedback:
        key = (part.model, part.version, part.variant)
        stream = streams.setdefault(
            key,
            {"model": part.model, "version": part.version, "variant": part.variant}
            | {"needs_retraining": False, "standings": []},
        )
        stream["needs_retraining"] |= any(judged.degraded for judged in part.standings)
        stream["standings"] += msgspec.to_builtins(part.standings)
        windows = sums.setdefault(key, {})
        for window in part.windows:
            place = (window.start_s, window.metric)
            windows[place] = windows.get(place, Moments()) + window.sums
    for key, stream in streams.items():
        stream["windows"] = [
            {"start_s": start_s, **msgspec.to_builtins(rate_of(metric, found))}
            for (start_s, metric), found in sorted(sums[key].items())
            if found.units
        ]
    return {
        "counted_at_s": view.counted_at_s,
        "feedback": view.fates,
        "streams": [streams[key] for key in sorted(streams)],
    }


def alerts_json(view: LiveView) -> dict[str, Any]:
    """Give the view the shape of ``GET /monitor/api/alerts``: open ones first, then the latest."""
    order = sorted(view.alerts, key=lambda alert: (alert.state, -alert.changed_s, alert.cause))
    return {"open": sum(a.state == "open" for a in order), "alerts": msgspec.to_builtins(order)}


def _window_json(window: WindowView) -> dict[str, Any]:
    figures = window.figures
    plain: dict[str, Any] = msgspec.to_builtins(window, str_keys=True)
    plain["figures"]["latency_mean_ms"] = (
        figures.latency_us / figures.events / 1000.0 if figures.events else None
    )
    for q in (0.5, 0.95, 0.99):
        plain["figures"][f"latency_p{q * 100:.0f}_ms"] = latency_quantile(figures, q)
    if not figures.labels:  # a regressor's buckets mean nothing to a reader
        plain["figures"]["scores"] = {
            f"{bucket_value(bucket):.4g}": count for bucket, count in sorted(figures.scores.items())
        }
    return plain


def latency_quantile(figures: WindowFigures, q: float) -> float | None:
    """Return the upper bound of the bucket that holds the quantile; None without events or above.

    >>> latency_quantile(WindowFigures(events=2, latency=[0, 2] + [0] * 15), 0.5)
    0.25
    """
    seen = 0
    for bound, count in zip(LATENCY_BOUNDS_MS, figures.latency, strict=False):
        seen += count
        if count and seen >= q * figures.events:
            return bound
    return None
