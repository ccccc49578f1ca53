"""``treeline drift``: tell whether traffic still looks like the training rows."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final

import fsspec
import pyarrow as pa
import typer

from monitoring.agent.settings import SinkSettings
from monitoring.analysis.drift import (
    BaselineProfile,
    DriftReport,
    WindowSummary,
    fit_baseline,
    judge,
    report_json,
)
from monitoring.analysis.drift.budget import AlarmBudget
from monitoring.analysis.drift.columns import answers_as_label, comparable_predictions
from monitoring.analysis.drift.dependence import Cycles
from monitoring.analysis.drift.errors import WindowUnusable
from monitoring.analysis.drift.logged import read_windows
from monitoring.analysis.drift.timeline import Timeline, judge_windows, timeline_json
from monitoring.analysis.stored import table_of_bytes
from monitoring.errors import in_words
from serve_app.cli.exit_codes import FINDING, GOOD
from serve_app.cli.log_options import EndpointUrl, length
from serve_app.cli.output import AsJson, print_json, print_table
from serve_app.model.manifest import BASELINE_FILE
from serve_app.model.storage import BundleFolder

app = typer.Typer()

SHOWN_NAMES: Final = 5


@app.command()
def drift(
    *,
    baseline: Annotated[
        str | None, typer.Option(help="Training rows as Parquet, in time order.")
    ] = None,
    window: Annotated[
        str | None, typer.Option(help="Rows to judge as Parquet; with --sink a length, as 1d.")
    ] = None,
    sink: Annotated[str | None, typer.Option(help="Judge the log under this URL.")] = None,
    model: Annotated[str | None, typer.Option(help="Model in the log.")] = None,
    version: Annotated[str | None, typer.Option(help="Only this version of it.")] = None,
    models: Annotated[
        str, typer.Option(help="Root of the bundles that carry the baselines.")
    ] = ".treeline/models",
    by: Annotated[
        str, typer.Option(help="Columns of the log that split it, comma-separated.")
    ] = "version",
    alpha: Annotated[float, typer.Option(help="False alarms per report, 0 to 0.5.")] = 0.01,
    per_month: Annotated[
        float, typer.Option(help="False alarms per model and month, with --sink.")
    ] = 1.0,
    cycles: Annotated[
        Cycles, typer.Option(help="What a part of the baseline's cycle is taken for.")
    ] = "drift",
    html: Annotated[Path | None, typer.Option(help="Write a report with pictures.")] = None,
    endpoint_url: EndpointUrl = None,
    as_json: AsJson = False,
) -> None:
    """Compare two tables, or the stored log with its bundles' baselines.

    Exit code 1 if there is drift, 2 on misuse. With --sink the alarm keeps a budget over time.
    """
    if not 0 < alpha <= 0.5:
        raise typer.BadParameter(f"--alpha is {alpha}; allowed: above 0, at most 0.5")
    if not per_month > 0:
        raise typer.BadParameter(f"--per-month is {per_month}; allowed: above 0")
    if sink is None:
        if baseline is None or window is None:
            raise typer.BadParameter("give --baseline and --window, or --sink and --model")
        alarm = _judge_tables(baseline, window, alpha, cycles, html, as_json=as_json)
    elif model is None:
        raise typer.BadParameter("--sink needs --model")
    else:
        profile_of = _profiles(model, models, baseline)
        window_s = length(window or "1d").total_seconds()
        found = read_windows(
            SinkSettings(url=sink, endpoint_url=endpoint_url),
            model,
            window_s=window_s,
            profile_of=profile_of,
            by=_columns(by),
            version=version,
        )
        if not found:
            raise WindowUnusable(f"{sink} holds no answered rows of model {model!r}")
        streams = len({item.stream for item in found})
        budget = AlarmBudget(window_s=window_s, false_alarms=per_month, streams=streams)
        timeline = judge_windows(
            model, found, budget=budget, profile_of=profile_of, alpha=alpha, cycles=cycles
        )
        alarm = _show_timeline(timeline, html, as_json=as_json)
    raise typer.Exit(FINDING if alarm else GOOD)


def _columns(by: str) -> list[str]:
    names = [name.strip() for name in by.split(",")]
    return [name for name in names if name not in ("", "version")]  # each version is judged alone


def _profiles(model: str, models: str, baseline: str | None) -> Callable[[str], BaselineProfile]:
    """Look baselines up: one given table for all versions, else each version's bundle."""

    @cache
    def given(path: str) -> BaselineProfile:
        return fit_baseline(_read_table(path))

    @cache
    def bundled(version: str) -> BaselineProfile:
        data = BundleFolder(models, model, version).read(BASELINE_FILE)
        return fit_baseline(comparable_predictions(table_of_bytes(data)))

    return bundled if baseline is None else lambda _version: given(baseline)


def _read_table(url: str) -> pa.Table:
    try:
        with fsspec.open(url, "rb") as file:
            return table_of_bytes(file.read())
    except (OSError, ValueError, pa.ArrowException) as exc:
        raise WindowUnusable(f"cannot read {url} as Parquet: {in_words(exc)}") from exc


def _judge_tables(
    baseline: str,
    window: str,
    alpha: float,
    cycles: Cycles,
    html: Path | None,
    *,
    as_json: bool,
) -> bool:
    profile = fit_baseline(_read_table(baseline))
    summary = WindowSummary(profile.layout)
    summary.update(answers_as_label(_read_table(window)))
    report = judge(profile, summary, alpha=alpha, cycles=cycles)
    if html is not None:
        from monitoring.analysis.drift.pictures import report_page

        html.write_text(report_page(profile, summary, report), encoding="utf-8")
    if as_json:
        print_json(report_json(report))
    else:
        _print_report(report)
    return report.alarm


def _show_timeline(timeline: Timeline, html: Path | None, *, as_json: bool) -> bool:
    if html is not None:
        from monitoring.analysis.drift.pictures import timeline_page

        html.write_text(timeline_page(timeline), encoding="utf-8")
    if as_json:
        print_json(timeline_json(timeline))
    else:
        _print_timeline(timeline)
    return timeline.alarm


def _print_report(report: DriftReport) -> None:
    rows: list[list[Any]] = []
    for column in sorted(report.columns, key=lambda c: 1.0 if c.p_value is None else c.p_value):
        effect = column.effect
        rows.append(
            [
                column.name,
                column.outcome,
                None if column.p_value is None else f"{column.p_value:.2g}",
                column.cause if column.alarm else None,
                None if effect is None else f"{effect.psi:.3f}",
                None if effect is None else f"{effect.js:.3f}",
                None
                if effect is None or effect.wasserstein is None
                else f"{effect.wasserstein:.3f}",
            ]
        )
    together = report.multivariate
    p = None if together.p_value is None else f"{together.p_value:.2g}"
    pair = f"{together.pair.first} and {together.pair.second}" if together.pair else None
    rows.append(["correlations", together.outcome, p, pair if together.alarm else None])
    print_table(
        f"{report.outcome}: {report.rows} rows, false alarms {report.alpha:.2%} a report",
        ["column", "outcome", "p", "cause", "PSI", "JS", "Wasserstein (sigma)"],
        rows,
    )


def first_names(names: list[str]) -> str:
    """Join the names, of more than five the first and how many follow; JSON has them all.

    >>> first_names(list("abcde")), first_names(list("abcdefg"))
    ('a, b, c, d, e', 'a, b, c, d, e + 2 more')
    """
    more = len(names) - SHOWN_NAMES
    return ", ".join(names[:SHOWN_NAMES]) + (f" + {more} more" if more > 0 else "")


def _print_timeline(timeline: Timeline) -> None:
    print_table(
        f"{timeline.model}: {'drift' if timeline.alarm else 'no drift'}, "
        f"false alarms allowed a month: {timeline.budget.false_alarms:g}",
        ["version", "segment", "from", "rows", "outcome", "p", "evidence", "columns"],
        [
            [
                window.stream.version,
                ", ".join(value for _, value in window.stream.segment) or None,
                f"{window.start:%Y-%m-%d %H:%M}",
                window.report.rows,
                window.report.outcome,
                None if window.report.p_value is None else f"{window.report.p_value:.2g}",
                f"{window.evidence.value:.3g}" + (" ALARM" if window.evidence.alarm else ""),
                first_names([column.name for column in window.report.columns if column.alarm]),
            ]
            for window in timeline.windows
        ],
    )
