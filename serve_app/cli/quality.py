"""``treeline quality``: how good the answers are, from labels and before them."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import typer

from monitoring.agent.settings import SinkSettings
from monitoring.analysis.degradation import Judged
from monitoring.analysis.quality_report import (
    READ_COLUMNS,
    Trained,
    VersionQuality,
    version_quality,
)
from monitoring.analysis.stored import Span, read_answers, read_feedback
from serve_app.cli.exit_codes import FINDING, GOOD
from serve_app.cli.log_options import (
    EndpointUrl,
    From,
    Model,
    SinkUrl,
    To,
    Window,
    model_in,
    moment,
    span_of,
)
from serve_app.cli.output import AsJson, print_json, print_table
from serve_app.errors import BundleError
from serve_app.model.storage import BundleFolder
from serve_app.model.verify import read_manifest

NONE: Final = Trained(metrics={})

app = typer.Typer()


@app.command()
def quality(
    *,
    sink: SinkUrl = ".treeline/sink",
    model: Model = None,
    version: Annotated[str | None, typer.Option(help="Only this version.")] = None,
    start: From = None,
    end: To = None,
    window: Window = None,
    history: Annotated[
        int, typer.Option(min=0, help="Days before the window whose labels calibrate.")
    ] = 30,
    models: Annotated[
        str, typer.Option(help="Root of the bundles that carry the training figures.")
    ] = ".treeline/models",
    as_of: Annotated[
        str | None, typer.Option(help="Look as if it were then: later feedback is ignored.")
    ] = None,
    endpoint_url: EndpointUrl = None,
    as_json: AsJson = False,
) -> None:
    """Measure each version in a window, and estimate its accuracy where labels are still missing.

    Exit code 1 when a version is worse than at training or its labels changed their meaning.
    """
    settings = SinkSettings(url=sink, endpoint_url=endpoint_url)
    now = datetime.now(UTC) if as_of is None else moment("--as-of", as_of)
    span = span_of(start, end, window, now=now)
    name = model_in(settings, model)
    since = None if span.start is None else span.start - timedelta(days=history)
    answers = read_answers(settings, name, Span(start=since, end=span.end or now), READ_COLUMNS)
    feedback = read_feedback(settings, name, since)
    feedback = feedback.filter(pc.less_equal(feedback["ts"], pa.scalar(now, feedback["ts"].type)))
    found = [
        version_quality(
            answers.filter(pc.equal(answers["version"], v)),
            feedback,
            _trained(models, name, v),
            start=span.start,
            now=now,
        )
        for v in sorted(pc.unique(answers["version"]).to_pylist())
        if version in (None, v)
    ]
    if not found:
        asked = name if version is None else f"{name} {version}"
        raise typer.BadParameter(f"{sink} holds no answers of {asked} at this time")
    if as_json:
        print_json({"model": name, "as_of": now, "versions": found})
    else:
        for one in found:
            _print(one)
    raise typer.Exit(FINDING if any(one.needs_retraining for one in found) else GOOD)


def _trained(models: str, name: str, version: str) -> Trained:
    """Read what the bundle says; without a bundle figures stand alone."""
    try:
        manifest = read_manifest(BundleFolder(models, name, version))
    except BundleError as exc:
        typer.echo(f"no training figures for {name} {version}: {exc}", err=True)
        return NONE
    return Trained(classes=manifest.classes, metrics=manifest.training_metrics)


def _print(found: VersionQuality) -> None:
    coverage = found.maturity.coverage
    title = f"Version {found.version}: {found.rows} rows, {coverage:.1%} of them labelled so far"
    if found.measures:
        print_table(
            title,
            ("figure", "value", "95% interval", "at training", "standing"),
            [_line(judged) for judged in found.measures],
        )
    else:
        typer.echo(f"{title}; no figure can be measured yet")
    clicks = found.click_rate
    if clicks is not None:
        typer.echo(f"click-through: {clicks.value:.4f} ({clicks.low:.4f} to {clicks.high:.4f})")
    estimated = found.estimate.estimated
    if estimated is not None:
        typer.echo(
            f"accuracy estimated for all rows: {estimated.accuracy:.4f} ({estimated.low:.4f} to "
            f"{estimated.high:.4f}); applies: {found.estimate.applies}"
        )
        past = found.past_estimates
        held = sum(one.held for one in past)
        typer.echo(f"past estimates whose interval held what came true: {held} of {len(past)}")
    typer.echo(f"estimate: {found.estimate.reason}")
    for reason in found.reasons:
        typer.echo(f"retrain: {reason}")


def _line(judged: Judged) -> tuple[Any, ...]:
    measure = judged.measure
    return (
        measure.name,
        f"{measure.value:.4f}",
        f"{measure.low:.4f} to {measure.high:.4f}",
        None if judged.trained is None else f"{judged.trained:.4f}",
        judged.standing.replace("_", " "),
    )
