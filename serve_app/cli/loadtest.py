"""``treeline loadtest``: send a planned load, and say whether the objective held."""

import asyncio
import secrets
import signal
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urljoin

import typer

from serve_app.cli.exit_codes import FINDING, GOOD
from serve_app.cli.output import AsJson, print_json, print_table

if TYPE_CHECKING:
    from autoscaling.loadtest.recording import Recording
    from autoscaling.loadtest.results import Result
    from autoscaling.loadtest.run import LoadTest, Show

app = typer.Typer()

# Enough different applicants that bodies differ; more rows than these begin again at the first.
SAMPLE_ROWS = 1_000


@app.command()
def loadtest(
    *,
    url: Annotated[
        str, typer.Option(help="Where to POST the requests.")
    ] = "http://127.0.0.1:8000/predict",
    rate: Annotated[
        float | None, typer.Option(help="Requests per second; 50 when no trace is given.")
    ] = None,
    duration: Annotated[
        float | None, typer.Option(help="Seconds; 60, or as long as the trace.")
    ] = None,
    trace: Annotated[Path | None, typer.Option(help="A CSV with the columns t_s,rps.")] = None,
    speed: Annotated[float, typer.Option(help="Play the trace this many times as fast.")] = 1.0,
    scale: Annotated[float, typer.Option(help="Multiply every rate by this.")] = 1.0,
    arrivals: Annotated[
        Literal["poisson", "even"], typer.Option(help="Random like many callers, or like a clock.")
    ] = "poisson",
    mix: Annotated[str, typer.Option(help="Weights of the sizes in --rows.")] = "0.70,0.25,0.05",
    rows: Annotated[str, typer.Option(help="Rows a request: light, medium, heavy.")] = "1,100,2000",
    body: Annotated[
        Path | None,
        typer.Option(help="A JSON body whose instances are sent; else the demo's applicants."),
    ] = None,
    connections: Annotated[int, typer.Option(min=1, help="Open at once, at most.")] = 512,
    timeout: Annotated[float, typer.Option(help="Seconds until a request is given up.")] = 10.0,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same requests and times.")] = 0,
    warmup: Annotated[float, typer.Option(help="The first seconds, sent but not judged.")] = 0.0,
    slo_ms: Annotated[float, typer.Option(help="Answer within this time ...")] = 200.0,
    quantile: Annotated[float, typer.Option(help="... this share of all requests.")] = 0.95,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the results; else .treeline/loadtest/<time>."),
    ] = None,
    scaling_url: Annotated[
        str,
        typer.Option(help="Asked once a second for scaling decisions; '' asks nobody."),
    ] = "/monitor/api/scaling",
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="A B", help="Send nothing; compare two saved results."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Send requests on a plan made beforehand and count latency from their planned time.

    Exits 0 when the objective held (of B, when comparing), 1 when it was missed, 2 on misuse
    and when nothing answers at the address.
    """
    from autoscaling.loadtest.generator import Target
    from autoscaling.loadtest.plan import parse_mix
    from autoscaling.loadtest.results import Objective, Schedule
    from autoscaling.loadtest.run import LoadTest

    folder = out or Path(".treeline/loadtest") / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    if compare is not None:
        held = compare_saved(*compare, folder, as_json=as_json)
    else:
        default_rate, default_duration = (50.0, 60.0) if trace is None else (None, None)
        schedule = Schedule(
            rate_rps=default_rate if rate is None else rate,
            trace=None if trace is None else str(trace),
            speed=speed,
            scale=scale,
            arrivals=arrivals,
            duration_s=default_duration if duration is None else duration,
            warmup_s=warmup,
            seed=seed,
            kinds=parse_mix(mix, rows),
        )
        test = LoadTest(
            target=Target(url=url, connections=connections, timeout_s=timeout),
            schedule=schedule,
            objective=Objective(slo_ms=slo_ms, quantile=quantile),
            sample=read_rows(body, seed=seed),
            prefix=f"lt-{secrets.token_hex(4)}",
            scaling_url=urljoin(url, scaling_url) if scaling_url else None,
        )
        held = send(test, folder, as_json=as_json)
    raise typer.Exit(GOOD if held else FINDING)


def read_rows(body: Path | None, *, seed: int) -> dict[str, Any]:
    """The body whose rows are sent: the file's, or the demo's applicants in the seed's order."""
    from autoscaling.loadtest.bodies import INSTANCES, read_sample

    if body is not None:
        return read_sample(body)
    from serve_app import demo

    return {INSTANCES: demo.request_rows(demo.read_credit(), SAMPLE_ROWS, seed=seed)}


def send(test: "LoadTest", folder: Path, *, as_json: bool) -> bool:
    """Run, save and print; tells whether the objective held. Ctrl-C stops the sending."""
    from rich.console import Console

    from autoscaling.loadtest.generator import require_listener
    from autoscaling.loadtest.live import LiveView
    from autoscaling.loadtest.report import render_report, require_report
    from autoscaling.loadtest.run import plan_for
    from autoscaling.loadtest.store import REPORT, make_folder, save

    require_report()
    plan_for(test.schedule)  # a bad plan is told before anything is made
    asyncio.run(require_listener(test.target))
    make_folder(folder)
    with LiveView(Console(stderr=True)) as view:
        result, recording = asyncio.run(_until_interrupted(test, view.show))
    save(result, recording, folder)
    (folder / REPORT).write_text(render_report(result))
    if as_json:
        print_json(result)
    else:
        _print(result, folder / REPORT)
    return result.verdict.held


async def _until_interrupted(test: "LoadTest", show: "Show") -> "tuple[Result, Recording]":
    from autoscaling.loadtest.run import run

    interrupted = threading.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, interrupted.set)
    return await run(test, show=show, stopped=interrupted.is_set)


def compare_saved(first: Path, second: Path, folder: Path, *, as_json: bool) -> bool:
    """Compare two results and draw them; tells whether the second held its objective."""
    from autoscaling.loadtest.compare import compare
    from autoscaling.loadtest.report import format_number, render_comparison, require_report
    from autoscaling.loadtest.store import COMPARISON, load, make_folder

    a, b = load(first), load(second)
    require_report()
    comparison = compare(a, b, names=name_apart(first, second))
    make_folder(folder)
    page = folder / COMPARISON
    page.write_text(render_comparison(comparison, a, b))
    if as_json:
        print_json(comparison)
        return comparison.held
    print_table(
        "",
        ["", comparison.a, comparison.b, "ratio"],
        [
            (row.measure, format_number(row.a), format_number(row.b), format_number(row.ratio, 3))
            for row in comparison.rows
        ],
    )
    for warning in comparison.warnings:
        typer.echo(f"the generator was the bottleneck in {warning}")
    for difference in comparison.differences:
        typer.echo(f"asked differently: {difference}")
    typer.echo(f"{comparison.b} {'held' if comparison.held else 'missed'} its objective; {page}")
    return comparison.held


def name_apart(first: Path, second: Path) -> tuple[str, str]:
    """Call two results by their folders; by their whole paths when those are named alike.

    >>> name_apart(Path("runs/a"), Path("runs/b/result.json"))
    ('a', 'b')
    >>> name_apart(Path("old/run"), Path("new/run"))
    ('old/run', 'new/run')
    """
    folders = [path.parent if path.suffix == ".json" else path for path in (first, second)]
    a, b = (folder.resolve().name for folder in folders)
    return (a, b) if a != b else (str(first), str(second))


def _print(result: "Result", page: Path) -> None:
    from autoscaling.loadtest.report import format_number

    rows = [(kind.kind.name, kind.planned, kind.attained, kind.latency) for kind in result.kinds]
    rows.append(("all", result.counts.planned, result.verdict.attained, result.latency))
    print_table(
        f"{result.target.url}, {format_number(result.judged_s)} s judged",
        ["", "requests", "ok", "in time", "p50 ms", "p95 ms", "p99 ms", "max ms"],
        [
            (
                name,
                f"{planned:,}",
                f"{latency.count:,}",
                None if attained is None else f"{attained:.2%}",
                *map(
                    format_number, (latency.p50_ms, latency.p95_ms, latency.p99_ms, latency.max_ms)
                ),
            )
            for name, planned, attained, latency in rows
        ],
    )
    for line in _findings(result):
        typer.echo(line)
    typer.echo(f"report: {page}")


def _findings(result: "Result") -> list[str]:
    counts, generator, objective = result.counts, result.generator, result.objective
    lines = []
    if counts.planned != counts.ok:
        statuses = ", ".join(f"{number:,} x {status}" for status, number in counts.statuses.items())
        lines.append(
            f"answered: {statuses or 'none'}; {counts.timed_out:,} timed out, "
            f"{counts.failed:,} connections failed, {counts.lost:,} sent and never answered, "
            f"{counts.mismatched:,} under another id"
        )
    lines.append(
        f"generator: {generator.lag_p50_ms:.2f} ms late at the median, "
        f"{generator.lag_p99_ms:.2f} ms at p99, {generator.late_share:.2%} of the requests more "
        f"than {generator.late_ms:g} ms; {generator.core_share:.0%} of a core"
    )
    lines += [f"THE GENERATOR WAS THE BOTTLENECK: {trouble}" for trouble in generator.bottleneck]
    lines.append(
        f"the objective {'held' if result.verdict.held else 'was missed'}: "
        f"{result.verdict.attained:.2%} within {objective.slo_ms:g} ms, "
        f"{objective.quantile:.2%} asked"
    )
    return lines
