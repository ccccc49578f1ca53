"""Drift reports as one HTML page each, pictures included; needs the ``report`` extra."""

from base64 import b64encode
from collections.abc import Iterable
from html import escape
from io import BytesIO
from typing import Any, Final

import numpy as np
from matplotlib.figure import Figure

from monitoring.analysis.drift.baseline import BaselineProfile
from monitoring.analysis.drift.bins import CategoryBins
from monitoring.analysis.drift.effects import decile_groups
from monitoring.analysis.drift.marginals import new_slots
from monitoring.analysis.drift.report import DriftReport
from monitoring.analysis.drift.summary import WEIGHT_UNIT, WindowSummary
from monitoring.analysis.drift.timeline import JudgedWindow, Timeline

MAX_PICTURES: Final = 12
MAX_BARS: Final = 12
BEFORE, AFTER = "#9aa5b1", "#c2410c"
STYLE: Final = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:64rem;padding:0 1rem}
table{border-collapse:collapse;width:100%;margin:1rem 0}
td,th{padding:.3rem .6rem;text-align:left;border-bottom:1px solid #e4e7eb}
.drift{color:#c2410c;font-weight:600} img{max-width:100%}
"""


def report_page(profile: BaselineProfile, window: WindowSummary, report: DriftReport) -> str:
    """Show one window's report: a table of all columns, and pictures of those that stand out."""
    ranked = sorted(
        range(len(report.columns)),
        key=lambda i: 1.0 if report.columns[i].p_value is None else report.columns[i].p_value or 0,
    )
    alarmed = [index for index in ranked if report.columns[index].alarm]
    shown = (alarmed or ranked)[:MAX_PICTURES]
    pictures = [_column_picture(profile, window, index) for index in shown]
    title = f"{report.outcome.capitalize()}: {report.rows:,} rows"
    promise = (
        f"At most {report.alpha:.1%} of the reports on traffic without drift raise an alarm. "
        f"The window counts as {report.effective_rows:,.0f} rows."
    )
    together = report.multivariate
    pair = together.pair
    correlation = (
        f"Correlations: <span class='{'drift' if together.alarm else ''}'>{together.outcome}</span>"
        + (
            f", most of all {escape(pair.first)} and {escape(pair.second)}: "
            f"{pair.baseline_correlation:.2f} to {pair.window_correlation:.2f}"
            if pair
            else ""
        )
    )
    body = [f"<p>{promise}</p>", f"<p>{correlation}</p>", _report_table(report, ranked), *pictures]
    return _page(title, body)


def timeline_page(timeline: Timeline) -> str:
    """Show a model's windows over time: evidence, single p-values, and the times of alarm."""
    budget = timeline.budget
    body = [
        f"<p>Budget: {budget.false_alarms:g} false alarms in {budget.period_s / 86400:g} days, "
        f"over {budget.streams} streams; alarm at evidence {budget.threshold:,.0f}.</p>"
    ]
    for stream, windows in timeline.streams():
        segment = ", ".join(f"{name} {value}" for name, value in stream.segment)
        body.append(f"<h2>{escape(f'version {stream.version} {segment}')}</h2>")
        series = list(windows)
        body.append(_picture(timeline_figure(series, budget.threshold)))
        body.append(_timeline_table(series))
    verdict = "drift" if timeline.alarm else "no drift"
    return _page(f"{timeline.model}: {verdict}", body)


def timeline_figure(windows: list[JudgedWindow], threshold: float) -> Figure:
    """Draw evidence and p-values over time; alarms of the budget are marked."""
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    times: Any = [window.start for window in windows]
    evidence = [max(window.evidence.value, 1e-3) for window in windows]
    upper.semilogy(times, evidence, color=BEFORE, marker=".")
    upper.axhline(threshold, color=AFTER, linestyle="--", label="alarm")
    alarms: Any = [window.start for window in windows if window.evidence.alarm]
    for moment in alarms:
        upper.axvline(moment, color=AFTER, alpha=0.4)
    upper.set_ylabel("evidence")
    upper.legend(loc="upper left")
    p_values = [
        np.nan if window.report.p_value is None else max(window.report.p_value, 1e-12)
        for window in windows
    ]
    lower.semilogy(times, p_values, "o", markersize=4, color=BEFORE)
    single: Any = [window.start for window in windows if window.report.alarm]
    for moment in single:
        lower.axvline(moment, color=AFTER, alpha=0.25)
    lower.axhline(windows[0].report.alpha, color=AFTER, linestyle="--")
    lower.set_ylabel("p of the report")
    return figure


def _column_picture(profile: BaselineProfile, window: WindowSummary, index: int) -> str:
    layout, baseline = profile.layout, profile.columns[index]
    counts = layout.part(window.counts, index) / WEIGHT_UNIT
    bins = layout.bins[index]
    if isinstance(bins, CategoryBins):
        names = [*bins.categories.to_pylist()[: MAX_BARS - 2]]
        before, after = _first(baseline.counts, len(names)), _first(counts, len(names))
        labels = [*names, "others", "missing"]
    else:
        new = new_slots(bins, baseline)
        before = decile_groups(baseline, baseline.counts, new)
        after = decile_groups(baseline, counts, new)
        used = len(before) - 2
        labels = [*(f"{group + 1}" for group in range(used)), "new", "missing"]
    figure = Figure(figsize=(10, 2.6), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(labels))
    axes.bar(places - 0.2, before / before.sum(), 0.4, color=BEFORE, label="training")
    axes.bar(places + 0.2, after / max(after.sum(), 1e-9), 0.4, color=AFTER, label="window")
    axes.set_xticks(places, labels)
    axes.set_title(layout.columns[index].name, loc="left")
    axes.legend()
    return _picture(figure)


def _first(counts: np.ndarray[Any, np.dtype[np.float64]], kept: int) -> Any:
    return np.concatenate([counts[:kept], [counts[kept:-1].sum(), counts[-1]]])


def _report_table(report: DriftReport, ranked: Iterable[int]) -> str:
    header = ("column", "outcome", "p", "cause", "PSI", "JS", "Wasserstein", "missing", "new")
    rows = []
    for index in ranked:
        column = report.columns[index]
        effect = column.effect
        cells = ["", "", "", "", ""]
        if effect is not None:
            distance = effect.wasserstein
            cells = [
                f"{effect.psi:.3f}",
                f"{effect.js:.3f}",
                "" if distance is None else f"{distance:.3f}",
                f"{effect.missing:+.2%}",
                f"{effect.new:.2%}",
            ]
        p = "" if column.p_value is None else f"{column.p_value:.2g}"
        cause = column.cause if column.alarm and column.cause else ""
        rows.append(([column.name, column.outcome, p, cause, *cells], column.alarm))
    return _table(header, rows)


def _timeline_table(windows: list[JudgedWindow]) -> str:
    header = ("from", "rows", "outcome", "p", "evidence", "columns")
    rows = []
    for window in windows:
        report = window.report
        cells = [
            f"{window.start:%Y-%m-%d %H:%M}",
            f"{report.rows:,}",
            report.outcome,
            "" if report.p_value is None else f"{report.p_value:.2g}",
            f"{window.evidence.value:.3g}",
            ", ".join(column.name for column in report.columns if column.alarm),
        ]
        rows.append((cells, window.evidence.alarm or report.alarm))
    return _table(header, rows)


def _table(header: Iterable[str], rows: Iterable[tuple[list[str], bool]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    lines = [
        f"<tr class='{'drift' if alarm else ''}'>"
        + "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        + "</tr>"
        for cells, alarm in rows
    ]
    return f"<table><tr>{head}</tr>{''.join(lines)}</table>"


def _picture(figure: Figure) -> str:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return f"<img alt='' src='data:image/png;base64,{b64encode(buffer.getvalue()).decode()}'>"


def _page(title: str, body: Iterable[str]) -> str:
    return (
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{escape(title)}</title>"
        f"<style>{STYLE}</style><h1>{escape(title)}</h1>{''.join(body)}</html>"
    )
