"""Tables and pictures of simulated runs."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from autoscaling.errors import MissingExtra
from autoscaling.simulator.recorded import Course, Recorded, in_time, p95_ms
from autoscaling.simulator.run import Run
from autoscaling.simulator.study import OURS, Job, replay_job

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Pictures show at most this many points along time; more would only be ink.
POINTS = 1500
#: Windows of p95 where a picture has room for them: shorter ones are mostly noise.
P95_WINDOW_S = 30
#: Windows of the comparison with a recorded run: long enough for a percentile of a few hundred.
AGREEMENT_WINDOW_S = 5


def render_table(summaries: Sequence[Mapping[str, Any]], title: str) -> Table:
    """Lay out summaries of ``study.summarise`` as a table."""
    table = Table(title=title)
    for name in ("policy", "settings", "in time", "worst trace", "bad minutes", "cost", "events"):
        table.add_column(name, justify="left" if name in ("policy", "settings") else "right")
    for line in summaries:
        settings = ", ".join(f"{k} {v:g}" for k, v in line["settings"].items()) or "default"
        table.add_row(
            line["policy"],
            settings,
            f"{line['attainment']:.2%}",
            f"{line['worst_trace']:.2%}",
            f"{line['violated_windows']:.1%}",
            f"{line['cost_ratio']:.3f}",
            f"{line['scale_events']:.0f}",
        )
    return table


def plot_traces(jobs: Sequence[Job], folder: Path) -> Iterator[Path]:
    """Replay the jobs and draw one picture per trace: demand, replicas, p95 and reasons.

    Needs the extra ``report``; raises ``MissingExtra`` without it.
    """
    plt = _pyplot()
    folder.mkdir(parents=True, exist_ok=True)
    for name in dict.fromkeys(job.trace.name for job in jobs):
        of_trace = [job for job in jobs if job.trace.name == name]
        figure, axes = plt.subplots(
            4, 1, figsize=(10, 9), sharex=True, height_ratios=(1.5, 3, 2, 1.3), layout="constrained"
        )
        trace = of_trace[0].trace
        step = max(trace.duration_s // POINTS, 1)
        minutes = np.arange(0, trace.duration_s, step) / 60.0
        axes[0].set_title(f"{name}, seed {of_trace[0].seed}", loc="left")
        axes[0].fill_between(minutes, trace.rps[::step], color="0.75", linewidth=0)
        axes[0].set(ylabel="requests per second", ylim=(0, None), xlim=(0, trace.duration_s / 60.0))
        for number, job in enumerate(of_trace):
            _draw_run(axes, job, replay_job(job), step, f"C{number}")
        axes[1].set(ylabel="replicas serving", ylim=(0, None))
        axes[1].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
        slo_ms = of_trace[0].scenario.slo_ms
        axes[2].axhline(slo_ms, color="black", linestyle=":", linewidth=1)
        axes[2].annotate(
            "objective",
            (1, slo_ms),
            xycoords=("axes fraction", "data"),
            va="center",
            xytext=(1.01, slo_ms),
        )
        axes[2].set(ylabel="p95, ms", yscale="log")
        axes[3].set(ylabel="why (latency)", xlabel="minutes")
        for axis in axes:
            axis.spines[["top", "right"]].set_visible(False)
        path = folder / f"{Path(name).stem}.png"
        figure.savefig(path, dpi=80)
        plt.close(figure)
        yield path


def _pyplot() -> Any:
    try:
        import matplotlib as mpl

        mpl.use("Agg")
        from matplotlib import pyplot as plt
    except ImportError as error:
        raise MissingExtra("pictures need matplotlib: install treeline-serve[report]") from error
    return plt


def _draw_run(axes: "Sequence[Axes]", job: Job, run: Run, step: int, colour: str) -> None:
    """Draw one policy's replicas and p95, ours on top and with the terms that decided."""
    ours = job.policy == OURS
    style: dict[str, Any] = {
        "color": colour,
        "linewidth": 1.6 if ours else 0.9,
        "zorder": 3 if ours else 2,
    }
    minutes = np.arange(0, len(run.running), step) / 60.0
    axes[1].step(minutes, run.running[::step], where="post", label=job.policy, **style)
    window_s = max(step, P95_WINDOW_S)
    p95_ms = _p95_ms(run, window_s)
    axes[2].plot((np.arange(len(p95_ms)) + 0.5) * window_s / 60.0, p95_ms, **style)
    if ours:
        kinds = sorted(set(run.reasons), key=run.reasons.count)
        for line, kind in enumerate(kinds):
            seconds = np.flatnonzero(np.array(run.reasons) == kind)
            axes[3].eventplot(
                seconds / 60.0, lineoffsets=line, linelengths=0.8, linewidths=0.6, color=colour
            )
        axes[3].set_yticks(range(len(kinds)), kinds)


def _p95_ms(run: Run, window_s: int) -> NDArray[np.float64]:
    """95th percentile of latency per window of arrival, in ms; NaN without requests."""
    windows = len(run.running) // window_s
    edges = np.searchsorted(run.requests.arrival_s, np.arange(windows + 1) * window_s)
    values = np.full(windows, np.nan)
    for i in range(windows):
        latencies = run.requests.latency_s[edges[i] : edges[i + 1]]
        if len(latencies):
            values[i] = np.quantile(np.minimum(latencies, 60.0), 0.95) * 1000.0
    return values


def plot_agreement(recorded: Recorded, simulated: Course, path: Path) -> None:
    """Draw a recorded run and its simulation on one page; raises ``MissingExtra`` as above."""
    plt = _pyplot()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure, axes = plt.subplots(
        4, 1, figsize=(11, 10), sharex=True, height_ratios=(2, 2, 2, 3), layout="constrained"
    )
    shares = [in_time(course, recorded) for course in (recorded.live, simulated)]
    figure.suptitle("in time: {:.1%} live, {:.1%} simulated".format(*shares))
    seconds = np.arange(recorded.trace.duration_s)
    axes[0].step(seconds, recorded.trace.rps, where="post", color="black", linewidth=0.8)
    axes[0].set_ylabel("requests per second")
    courses = (("live", recorded.live, "tab:blue"), ("simulated", simulated, "tab:orange"))
    for name, course, colour in courses:
        style = {"where": "post", "label": name, "color": colour}
        axes[1].step(seconds, course.target, **style)
        axes[2].step(seconds, course.running, **style)
        p95 = p95_ms(course, recorded, AGREEMENT_WINDOW_S)
        middles = (np.arange(len(p95)) + 0.5) * AGREEMENT_WINDOW_S
        axes[3].plot(middles, p95, label=name, color=colour, marker="o", markersize=3)
    axes[1].set_ylabel("replicas wanted")
    axes[2].set_ylabel("replicas serving")
    for axis in axes[1:3]:
        axis.set_ylim(bottom=0)
        axis.yaxis.get_major_locator().set_params(integer=True)
    axes[3].axhline(recorded.scenario.slo_ms, color="black", linestyle=":", label="objective")
    axes[3].set_yscale("log")
    axes[3].set_ylabel(f"p95 by arrival, ms ({AGREEMENT_WINDOW_S} s)")
    axes[3].set_xlabel("seconds")
    axes[3].legend()
    figure.savefig(path, dpi=100)
    plt.close(figure)
