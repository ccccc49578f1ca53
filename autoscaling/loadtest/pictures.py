"""The report's pictures, as SVG text. No global state: pyplot is not used."""

import io
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator, PercentFormatter

from autoscaling.loadtest.profile import FloatArray
from autoscaling.loadtest.results import Result, Second

INK: Final = "#1f2933"
MUTED: Final = "#7b8794"
BLUE: Final = "#2f6fb2"
GREEN: Final = "#2a9d6f"
AMBER: Final = "#d98e04"
RED: Final = "#c8372d"
LIGHT_BLUE: Final = "#9fc3e6"
# Keyed by Any: matplotlib types the keys as a literal of some 300 names.
STYLE: Final[dict[Any, object]] = {
    "font.size": 9.0,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlesize": 10.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "text.color": INK,
    "axes.grid": True,
    "grid.color": "#e4e7eb",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "svg.hashsalt": "treeline",
}
WIDTH_IN: Final = 10.0


def draw_timeline(result: Result) -> str:
    """Rate, latency, errors and, when there are any, replicas, over one common time axis."""
    panels = [_draw_rate, _draw_latency, _draw_errors]
    heights = [1.3, 1.6, 0.8]
    if result.scaling.decisions:
        panels.append(_draw_replicas)
        heights.append(1.1)
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_IN, 1.7 * sum(heights)), layout="constrained")
        axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=heights)
        for draw, axis in zip(panels, axes[:, 0], strict=True):
            draw(axis, result)
            if result.schedule.warmup_s:
                axis.axvspan(0, result.schedule.warmup_s, color=MUTED, alpha=0.12, lw=0)
        last = axes[-1, 0]
        last.set_xlabel("seconds after the start" + _warmup_words(result))
        last.set_xlim(0, max(1, len(result.seconds)))
        return _svg(figure)


def draw_distribution(result: Result) -> str:
    """Two views of the judged latencies: how many of each, and latency by percentile."""
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_IN, 3.4), layout="constrained")
        left, right = figure.subplots(1, 2)
        _draw_shares(left, result)
        _draw_curve(right, result, "this run", BLUE)
        right.axhline(result.objective.slo_ms, color=RED, lw=1, ls="--")
        right.set_title("latency by percentile")
        return _svg(figure)


def draw_comparison(a: Result, b: Result, names: tuple[str, str]) -> str:
    """Latency by percentile, and p95 over time, of two runs."""
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_IN, 3.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        for result, name, colour in ((a, names[0], BLUE), (b, names[1], AMBER)):
            _draw_curve(left, result, name, colour)
            middles, p95 = _series(result.seconds, "p95_ms")
            right.plot(middles, p95, color=colour, lw=1.4, marker=_marker(p95), ms=3)
        left.axhline(b.objective.slo_ms, color=RED, lw=1, ls="--", label="objective")
        left.set_title("latency by percentile")
        _legend_above(left)
        right.axhline(b.objective.slo_ms, color=RED, lw=1, ls="--")
        right.set_title("p95 over time, ms")
        right.set_xlabel("seconds after the start")
        _log_ms(right)
        return _svg(figure)


def _draw_rate(axis: Axes, result: Result) -> None:
    seconds = result.seconds
    edges = np.arange(len(seconds) + 1)
    planned = [second.planned for second in seconds]
    axis.stairs(planned, edges, color=LIGHT_BLUE, fill=True, label="planned")
    axis.stairs([s.sent for s in seconds], edges, color=BLUE, lw=1, ls=":", label="sent")
    axis.stairs([s.ok for s in seconds], edges, color=GREEN, lw=1.5, label="answered ok")
    if any(s.errors for s in seconds):
        axis.stairs([s.errors for s in seconds], edges, color=RED, lw=1.2, label="errors")
    axis.set_title("requests per second")
    axis.set_ylim(bottom=0)
    _legend_above(axis)


def _draw_latency(axis: Axes, result: Result) -> None:
    for name, colour in (("p50_ms", GREEN), ("p95_ms", BLUE), ("p99_ms", AMBER)):
        middles, values = _series(result.seconds, name)
        axis.plot(
            middles,
            values,
            color=colour,
            lw=1.4,
            marker=_marker(values),
            ms=3,
            label=name.removesuffix("_ms"),
        )
    axis.axhline(result.objective.slo_ms, color=RED, lw=1, ls="--", label="objective")
    axis.set_title("latency from the planned time, ms")
    _log_ms(axis)
    _legend_above(axis)


def _draw_errors(axis: Axes, result: Result) -> None:
    ended = np.array([s.ok + s.errors for s in result.seconds], dtype=np.float64)
    errors = np.array([s.errors for s in result.seconds], dtype=np.float64)
    share = np.divide(errors, ended, out=np.zeros_like(ended), where=ended > 0)
    axis.stairs(share, np.arange(len(share) + 1), color=RED, fill=True, alpha=0.8)
    axis.set_title("error rate")
    axis.set_ylim(0, max(0.01, min(1.0, 1.15 * share.max(initial=0.0))))
    axis.yaxis.set_major_formatter(PercentFormatter(1.0))
    axis.yaxis.set_major_locator(MaxNLocator(3))


def _draw_replicas(axis: Axes, result: Result) -> None:
    start_s = datetime.fromisoformat(result.started_at).timestamp()
    decisions = result.scaling.decisions
    end_s = float(len(result.seconds))
    at_s = np.clip([decision.ts - start_s for decision in decisions], 0.0, end_s)
    until = np.append(at_s, end_s)
    for name, colour, style in (("target", AMBER, "--"), ("running", BLUE, "-")):
        values = [getattr(decision, name) for decision in decisions]
        values.append(values[-1])
        axis.step(until, values, where="post", color=colour, ls=style, lw=1.5, label=name)
    axis.set_title("replicas")
    axis.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    highest = max(max(decision.target, decision.running) for decision in decisions)
    axis.set_ylim(0, highest * 1.15 + 0.2)
    _legend_above(axis)


def _draw_shares(axis: Axes, result: Result) -> None:
    axis.set_title("share of the requests")
    axis.set_xlabel("latency, ms")
    if not result.histogram.counts:
        _say_empty(axis)
        return
    edges = np.array(result.histogram.edges_ms)
    counts = np.array(result.histogram.counts, dtype=np.float64)
    axis.stairs(counts / counts.sum(), edges, fill=True, color=BLUE, alpha=0.85)
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter(FuncFormatter(_plain))
    axis.yaxis.set_major_formatter(PercentFormatter(1.0))
    slo_ms = result.objective.slo_ms
    axis.axvline(slo_ms, color=RED, lw=1, ls="--", label=f"objective {slo_ms:g} ms")
    _legend_above(axis)


def _draw_curve(axis: Axes, result: Result, name: str, colour: str) -> None:
    """Latency over 1 / (1 - quantile): each decade is one more nine, so the tail has its place."""
    axis.set_xlabel("percentile")
    if not result.latency_curve:
        _say_empty(axis)
        return
    quantiles, values = (np.array(column) for column in zip(*result.latency_curve, strict=True))
    axis.plot(1.0 / (1.0 - quantiles), values, color=colour, lw=1.6, label=name)
    axis.set_xscale("log")
    marks = (0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999)
    rightmost = max(axis.get_xlim()[1] if axis.lines[1:] else 1.0, 1.2 / (1.0 - quantiles[-1]))
    axis.set_xticks([1 / (1 - q) for q in marks], [f"{100 * q:g}%" for q in marks], minor=False)
    axis.minorticks_off()
    axis.set_xlim(1.0, rightmost)
    _log_ms(axis)


def _series(seconds: Sequence[Second], name: str) -> tuple[FloatArray, FloatArray]:
    """A line through the middle of each second, broken where a second has no value."""
    values = [getattr(second, name) for second in seconds]
    return (
        np.arange(0.5, len(seconds), 1.0, dtype=np.float64),
        np.array([np.nan if value is None else value for value in values], dtype=np.float64),
    )


def _marker(values: FloatArray) -> str:
    """Points as well as lines when there are few of them: a lone point has no line."""
    return "o" if len(values) <= 30 else ""


def _log_ms(axis: Axes) -> None:
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.yaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_major_formatter(FuncFormatter(_plain))


def _plain(value: float, _position: int) -> str:
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"


def _legend_above(axis: Axes) -> None:
    axis.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=5, borderaxespad=0.2)


def _say_empty(axis: Axes) -> None:
    axis.text(0.5, 0.5, "no request was answered", ha="center", transform=axis.transAxes)


def _warmup_words(result: Result) -> str:
    return " (grey: warm-up, not judged)" if result.schedule.warmup_s else ""


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
