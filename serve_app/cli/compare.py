"""``treeline compare``: versions side by side, looked at as often as one likes."""

import math
from datetime import UTC, datetime
from typing import Annotated, Final

import typer

from monitoring.agent.settings import SinkSettings
from monitoring.analysis.compare.arms import Unit
from monitoring.analysis.compare.judge import Comparison, is_finding
from monitoring.analysis.compare.metrics import metric_named
from monitoring.analysis.compare.report import READ_COLUMNS, Plan, Report, report
from monitoring.analysis.stored import read_answers, read_feedback
from serve_app.cli.exit_codes import FINDING, GOOD
from serve_app.cli.log_options import (
    EndpointUrl,
    From,
    Model,
    SinkUrl,
    To,
    Window,
    model_in,
    span_of,
)
from serve_app.cli.output import AsJson, print_json, print_table

METRICS: Final = ("accuracy", "click", "error_rate", "latency_ms")

app = typer.Typer()


@app.command()
def compare(
    *,
    sink: SinkUrl = ".treeline/sink",
    model: Model = None,
    start: From = None,
    end: To = None,
    window: Window = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(help="What to compare; once for each. The risk is split over all of them."),
    ] = None,
    control: Annotated[
        str | None, typer.Option(help="Version to compare with; else the champion.")
    ] = None,
    alpha: Annotated[float, typer.Option(help="Chance that any interval ever misses.")] = 0.05,
    plan_units: Annotated[
        int, typer.Option(min=1, help="Units per version the experiment is planned for.")
    ] = 10_000,
    unit: Annotated[Unit, typer.Option(help="What traffic is split by.")] = "session",
    split: Annotated[
        str | None, typer.Option(help="Intended shares, as 1.0.0=0.9,2.0.0=0.1: checks the split.")
    ] = None,
    endpoint_url: EndpointUrl = None,
    as_json: AsJson = False,
) -> None:
    """Say which version is better, with intervals that hold at every look.

    Keep --from, --plan-units, --alpha and the metrics fixed while an experiment runs. Exit code 1
    when a version is worse than the control or traffic did not arrive as it was split.
    """
    settings = SinkSettings(url=sink, endpoint_url=endpoint_url)
    span = span_of(start, end, window, now=datetime.now(UTC))
    name = model_in(settings, model)
    try:
        plan = Plan(
            metrics=tuple(metric_named(m) for m in dict.fromkeys(metric or METRICS)),
            alpha=_share("--alpha", alpha),
            plan_units=plan_units,
            unit=unit,
            control=control,
            split=None if split is None else _shares(split),
        )
        answers = read_answers(settings, name, span, READ_COLUMNS)
        found = report(answers, read_feedback(settings, name, span.start), plan)
    except ValueError as exc:
        raise typer.BadParameter(str(exc)) from exc
    if as_json:
        print_json(found)
    else:
        _print(found)
    raise typer.Exit(FINDING if _is_bad(found) else GOOD)


def _is_bad(found: Report) -> bool:
    worse = any(is_finding(judged.comparison) for judged in found.comparisons)
    return worse or (found.split is not None and not found.split.ok)


def _share(option: str, value: float) -> float:
    if not 0.0 < value < 1.0:
        raise ValueError(f"{option} is {value}; allowed: above 0, below 1")
    return value


def _shares(text: str) -> dict[str, float]:
    try:
        pairs = [part.rsplit("=", 1) for part in text.split(",")]
        return {version.strip(): float(share) for version, share in pairs}
    except ValueError as exc:
        raise ValueError(f"--split is {text!r}; allowed: as 1.0.0=0.9,2.0.0=0.1") from exc


def _print(found: Report) -> None:
    print_table(
        f"Versions against {found.control}",
        ("metric", "version", "control", "version's", "verdict", "why"),
        [_line(judged.comparison) for judged in found.comparisons],
    )
    if found.split is None:
        typer.echo(f"split: not checked, {found.split_reason}")
    else:
        verdict = "as intended" if found.split.ok else "NOT as intended; compare nothing"
        typer.echo(f"split: {verdict} (p = {found.split.p_value:.3g}, {found.split.counts})")


def _line(c: Comparison) -> tuple[object, ...]:
    means = [None if math.isnan(m) else f"{m:.4g}" for m in (c.control_mean, c.treatment_mean)]
    return (c.metric, c.treatment, *means, c.verdict.replace("_", " "), c.reason)
