"""``treeline simulate``: replay traces through autoscaling policies and compare them."""

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from autoscaling.errors import AutoscalingError
from autoscaling.report import plot_agreement, plot_traces, render_table
from autoscaling.simulator.arrivals import Trace, read_trace
from autoscaling.simulator.recorded import Recorded, in_time, read_recorded, simulate_again
from autoscaling.simulator.scenario import Routing, Scenario
from autoscaling.simulator.study import (
    ORACLE,
    POLICIES,
    Job,
    Record,
    best_settings,
    plan,
    run_all,
    summarise,
)
from serve_app.cli.output import AsJson, print_json, print_table, show_table

#: Options that go with --run; the rest of the scenario is read from the recording.
WITH_RUN = ("--run", "--seed", "--min-replicas", "--max-replicas", "--plot", "--json")

app = typer.Typer()


@app.command()
def simulate(
    context: typer.Context,
    policy: Annotated[
        list[str] | None,
        typer.Option(help=f"Policy, several times or 'all': {', '.join(POLICIES)}."),
    ] = None,
    trace: Annotated[
        list[Path] | None,
        typer.Option(help="CSV with t_s,rps (rates) or t_s (request times); several times."),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a `treeline loadtest`: simulate the load it sent, and compare. Work, "
            "cold start and objective are those of the recording."
        ),
    ] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Seed; several times.")] = None,
    slo_ms: Annotated[float, typer.Option(help="Requests are in time within this.")] = 200.0,
    quantile: Annotated[float, typer.Option(help="Share of requests wanted in time.")] = 0.95,
    cold_start_s: Annotated[float, typer.Option(help="Mean time a replica takes to start.")] = 8.0,
    staleness_s: Annotated[int, typer.Option(help="Age of the telemetry.")] = 1,
    interval_s: Annotated[int, typer.Option(help="Time between decisions.")] = 1,
    max_ongoing: Annotated[int, typer.Option(help="Requests one replica accepts.")] = 5,
    routing: Annotated[Routing, typer.Option(help="How requests find replicas.")] = (
        Routing.TWO_CHOICES
    ),
    max_queued: Annotated[int, typer.Option(help="Limit of the router's queue; 0: none.")] = 0,
    min_replicas: Annotated[int, typer.Option(help="Fewest replicas.")] = 1,
    max_replicas: Annotated[int, typer.Option(help="Most replicas.")] = 64,
    failures: Annotated[float, typer.Option(help="Crashes per replica and hour.")] = 0.0,
    slowdown: Annotated[
        float, typer.Option(help="Work per request grows linearly by this factor over the trace.")
    ] = 1.0,
    grid: Annotated[
        bool, typer.Option("--grid", help="Also try each policy's settings and name the best.")
    ] = False,
    plot: Annotated[Path | None, typer.Option(help="Write a picture per trace here.")] = None,
    workers: Annotated[int, typer.Option(help="Processes; 0: one per CPU.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Replay traces through policies in a simulated Ray Serve; compare lateness and cost.

    Without further options this is the reference scenario: light, medium and heavy requests of 5,
    20 and 100 ms, at most 5 ongoing per replica, 8 s of cold start, telemetry 1 s old, 95 % within
    200 ms, the first 300 s not scored. ``cost_ratio`` is replica-hours over an offline optimum's.
    ``violated_windows`` is the share of minutes in which too many requests were late.
    """
    if run is not None:
        _check_run_stands_alone(context)
        recorded = read_recorded(run, min_replicas=min_replicas, max_replicas=max_replicas)
        _compare(recorded, (seed or [1])[0], plot, as_json=as_json)
        return
    if not trace:
        raise AutoscalingError("--trace is missing: give at least one CSV with t_s,rps or t_s")
    traces = [read_trace(path) for path in trace]
    longest_s = max(each.duration_s for each in traces)
    scenario = Scenario(
        slo_ms=slo_ms,
        quantile=quantile,
        cold_start_s=cold_start_s,
        staleness_s=staleness_s,
        interval_s=interval_s,
        max_ongoing=max_ongoing,
        routing=routing,
        max_queued=max_queued,
        min_replicas=min_replicas,
        max_replicas=max_replicas,
        failures_per_replica_hour=failures,
        drift=((0.0, 1.0), (float(longest_s), slowdown)) if slowdown != 1.0 else (),
    )
    _check_lengths(traces, scenario)
    names = list(POLICIES) if policy and "all" in policy else policy or ["latency"]
    jobs = plan(names, traces, seed or [1], scenario, grid=grid)
    records = _run(jobs, workers or os.cpu_count() or 1)
    _show(records, as_json=as_json, grid=grid)
    if plot is not None:
        _plot_best(jobs, records, plot)


def _check_run_stands_alone(context: typer.Context) -> None:
    """Raise for options that a recording answers by itself."""
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        given = source is not None and source.name != "DEFAULT"
        if given and parameter.opts[0] not in WITH_RUN:
            raise AutoscalingError(
                f"{parameter.opts[0]} has no meaning with --run, allowed there: "
                f"{', '.join(WITH_RUN)}"
            )


def _compare(recorded: Recorded, seed: int, plot: Path | None, *, as_json: bool) -> None:
    """Simulate a recorded run and print both side by side."""
    simulated = simulate_again(recorded, seed)
    figures = {
        name: {
            "attainment": in_time(course, recorded),
            "replica_seconds": course.replica_seconds,
            "scale_events": int(np.count_nonzero(np.diff(course.target))),
            "most_replicas": int(course.running.max()),
        }
        for name, course in (("live", recorded.live), ("simulated", simulated))
    }
    if as_json:
        work = recorded.scenario.work[0]
        measured = {"starts_s": recorded.starts_s, "work_ms": work.mean_s * 1e3, "work_cv": work.cv}
        print_json({"run": recorded.trace.name, **figures, "measured": measured})
    else:
        print_table(
            recorded.trace.name,
            ("", *figures),
            [
                (key.replace("_", " "), *(f"{each[key]:.4g}" for each in figures.values()))
                for key in figures["live"]
            ],
        )
    if plot is not None:
        path = plot / f"{recorded.trace.name}.png"
        plot_agreement(recorded, simulated, path)
        typer.echo(f"wrote {path}", err=True)


def _check_lengths(traces: Sequence[Trace], scenario: Scenario) -> None:
    for trace in traces:
        if trace.duration_s <= scenario.unscored_s:
            raise AutoscalingError(
                f"{trace.name} lasts {trace.duration_s} s, allowed: more than the "
                f"{scenario.unscored_s} s that are not scored"
            )


def _run(jobs: list[Job], workers: int) -> list[Record]:
    records = []
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
    )
    with progress:
        task = progress.add_task("simulating", total=len(jobs))
        for record in run_all(jobs, workers):
            records.append(record)
            progress.update(task, advance=1, description=f"{record.policy} {record.trace}")
    return records


def _show(records: list[Record], *, as_json: bool, grid: bool) -> None:
    summaries = summarise(records)
    if as_json:
        plain = [asdict(record) for record in records]
        for line in plain:
            if not grid:
                del line["settings"]
        print_json(plain, finite=True)
        return
    show_table(render_table(summaries, title="mean over traces and seeds"))
    if grid:
        best = [line for line in best_settings(summaries).values() if line["policy"] != ORACLE]
        show_table(render_table(best, title="cheapest setting with as many in time, else the best"))


def _plot_best(jobs: list[Job], records: list[Record], folder: Path) -> None:
    """Draw each policy at its best setting, on the first seed."""
    best = {name: line["settings"] for name, line in best_settings(summarise(records)).items()}
    chosen = [
        job for job in jobs if dict(job.settings) == best[job.policy] and job.seed == jobs[0].seed
    ]
    for path in plot_traces(chosen, folder):
        typer.echo(f"wrote {path}", err=True)
