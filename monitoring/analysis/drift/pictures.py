"""Drift reports as one HTML page each, pictures included; needs the ``report`` extra."""

from base64 import b64encode
from collections.abc import Iterable
from html import escape
from io import BytesIO
from typing import Final

from matplotlib.figure import Figure

from monitoring.analysis.drift.baseline import BaselineProfile
from monitoring.analysis.drift.bins import CategoryBins
from monitoring.analysis.drift.charts import column_bars, column_figure, timeline_figure
from monitoring.analysis.drift.report import DriftReport
from monitoring.analysis.drift.summary import WindowSummary
from monitoring.analysis.drift.timeline import JudgedWindow, Timeline

MAX_PICTURES: Final = 12
NOT_ENOUGH: Final = "not enough data"
STYLE: Final = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:64rem;padding:0 1rem}
table{border-collapse:collapse;width:100%;margin:1rem 0}
td,th{padding:.3rem .6rem;text-align:left;border-bottom:1px solid #e4e7eb;white-space:nowrap}
.name{white-space:normal;overflow-wrap:anywhere}
.number{text-align:right;font-variant-numeric:tabular-nums}
.drift{color:#c2410c;font-weight:600} .quiet{color:#7b8794} img{max-width:100%}
summary{cursor:pointer} .wide{overflow-x:auto}
"""
LEGEND: Final = (
    "PSI and JS (Jensen-Shannon) compare shares of deciles or values, 0 is equal; Wasserstein is "
    "how far values moved in the mean, in training sigmas; missing is the change of their share; "
    "new is the share of values never seen in training."
)


def report_page(profile: BaselineProfile, window: WindowSummary, report: DriftReport) -> str:
    """Show one window's report: pictures of the columns that stand out, and a table of all.

    Of a window that is too small to be judged there is no picture: chance would be all it shows.
    """
    ranked = sorted(
        range(len(report.columns)),
        key=lambda i: 1.0 if report.columns[i].p_value is None else report.columns[i].p_value or 0,
    )
    alarmed = [index for index in ranked if report.columns[index].alarm]
    shown = [] if report.outcome == NOT_ENOUGH else (alarmed or ranked)[:MAX_PICTURES]
    pictures = [_column_picture(profile, window, report, index) for index in shown]
    more = len(alarmed) - len(shown)
    body = [
        f"<p>At most {report.alpha:.1%} of the reports on traffic without drift raise an alarm. "
        f"The window counts as {report.effective_rows:,.0f} rows.</p>",
        f"<p>{_correlations(report)}</p>",
        _report_table(report, ranked),
        f"<p class='quiet'>{LEGEND}</p>",
        "" if alarmed or not shown else "<p>No column drifts; these are the least alike.</p>",
        *pictures,
        f"<p>{more} further columns drift.</p>" if alarmed and more > 0 else "",
    ]
    return _page(f"{report.outcome.capitalize()}: {report.rows:,} rows", body)


def _correlations(report: DriftReport) -> str:
    together = report.multivariate
    found = (
        f"Correlations: <span class='{'drift' if together.alarm else ''}'>{together.outcome}</span>"
    )
    pair = together.pair
    if pair is None:
        return found
    return (
        f"{found}, most of all {escape(pair.first)} and {escape(pair.second)}: "
        f"{pair.baseline_correlation:.2f} in training, {pair.window_correlation:.2f} in the window"
    )


def timeline_page(timeline: Timeline) -> str:
    """Show a model's windows over time: evidence, single p-values, and the times of alarm."""
    budget = timeline.budget
    body = [
        f"<p>False alarms allowed in {budget.period_s / 86400:g} days: {budget.false_alarms:g}. "
        f"Streams: {budget.streams}. Alarm at evidence {budget.threshold:,.0f}.</p>"
    ]
    for stream, windows in timeline.streams():
        segment = ", ".join(f"{name} {value}" for name, value in stream.segment)
        body.append(f"<h2>{escape(f'version {stream.version} {segment}')}</h2>")
        series = list(windows)
        alarms = sum(window.evidence.alarm for window in series)
        told = f"evidence and p-values; windows: {len(series)}, with an alarm: {alarms}"
        body.append(_picture(timeline_figure(series, budget.threshold), told))
        body.append(
            f"<details{' open' if alarms else ''}><summary>{told}</summary>"
            f"{_timeline_table(series)}</details>"
        )
    verdict = "drift" if timeline.alarm else "no drift"
    return _page(f"{timeline.model}: {verdict}", body)


def _column_picture(
    profile: BaselineProfile, window: WindowSummary, report: DriftReport, index: int
) -> str:
    column = report.columns[index]
    cause = f": {column.cause}" if column.alarm and column.cause else ""
    bars = column_bars(profile, window, index)
    lying = isinstance(profile.layout.bins[index], CategoryBins)
    figure = column_figure(f"{column.name}{cause}", bars, lying=lying)
    told = "; ".join(f"{bar.label} {bar.before:.1%}, {bar.after:.1%}" for bar in bars)
    return _picture(figure, f"{column.name}, shares in training and window: {told}")


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
        style = "drift" if column.alarm else "quiet" if column.outcome == NOT_ENOUGH else ""
        rows.append(([column.name, column.outcome, p, cause, *cells], style))
    return _table(header, rows, texts=("column", "outcome", "cause"))


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
        rows.append((cells, "drift" if window.evidence.alarm or report.alarm else ""))
    return _table(header, rows, texts=("from", "outcome", "columns"))


def _table(
    header: tuple[str, ...], rows: Iterable[tuple[list[str], str]], texts: tuple[str, ...]
) -> str:
    """Make a table; each row comes with its style. Columns that are no ``texts`` are numbers."""
    styles = [
        "name" if name in ("column", "columns") else "" if name in texts else "number"
        for name in header
    ]

    def line(tag: str, cells: Iterable[str]) -> str:
        parts = zip(cells, styles, strict=True)
        return "".join(f"<{tag} class='{style}'>{escape(cell)}</{tag}>" for cell, style in parts)

    lines = "".join(f"<tr class='{style}'>{line('td', cells)}</tr>" for cells, style in rows)
    return f"<div class='wide'><table><tr>{line('th', header)}</tr>{lines}</table></div>"


def _picture(figure: Figure, told: str) -> str:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    data = b64encode(buffer.getvalue()).decode()
    return f"<img alt='{escape(told)}' src='data:image/png;base64,{data}'>"


def _page(title: str, body: Iterable[str]) -> str:
    return (
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{escape(title)}</title>"
        f"<style>{STYLE}</style><h1>{escape(title)}</h1>{''.join(body)}</html>"
    )
