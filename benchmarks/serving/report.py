"""The serving figures as Markdown and as a plot."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.serving.contenders import CONTENDERS
from benchmarks.serving.measure import CONNECTIONS, Results, median_of, ratio

PLOT: Final = "benchmarks-serving.svg"
PROMISES: Final = (
    # what, contender, base, figure, connections, bound, whether more is better
    ("throughput beside Ray Serve's no-op", "treeline", "ray-noop", "requests_per_s", 0.85, True),
    ("throughput beside FastAPI", "treeline", "fastapi", "requests_per_s", 25.0, True),
    ("p99 beside FastAPI", "treeline", "fastapi", "p99_ms", 0.1, False),
)


def serving_section(results: Results) -> list[str]:
    """Markdown of the whole comparison; contenders stand in order of throughput."""
    names = ranked(results)
    lines = [
        "## Serving: one row of JSON over HTTP",
        "",
        "200 trees, depth 14, 20 numeric features; 500 distinct rows in turn; `wrk`, one thread,",
        "closed loop. Each contender runs alone, in interleaved rounds; medians over",
        f"{1 + max(turn.round for turn in results.turns)} round(s). Memory is the proportional set",
        "size of all of its processes under load; start-up is from the command to the first answer",
        "(for Ray that includes its cluster). All Ray contenders have the quickstart's ingress:",
        "HAProxy and throughput settings, and `RAY_worker_niceness=0`.",
        "",
        *throughput_table(results, names),
        "",
        f"![Throughput and p99 by connections]({PLOT})",
        "",
        *promises_table(results),
        "",
        *cpu_table(results, names),
        "",
        *slower(results, names),
    ]
    if results.skipped:
        lines += ["", "Not measured:", ""]
        lines += [f"- {title_of(name)}: {why}" for name, why in results.skipped.items()]
    lines += ["", "Versions:", ""]
    lines += [f"- {title_of(name)}: {held}" for name, held in results.versions.items()]
    return lines


def ranked(results: Results) -> list[str]:
    present = {turn.contender for turn in results.turns}
    return sorted(present, key=lambda name: -median_of(results.turns, name, 8, "requests_per_s"))


def throughput_table(results: Results, names: Sequence[str]) -> list[str]:
    head = " | ".join(f"{count} conn., /s (p50 / p99 ms)" for count in CONNECTIONS)
    lines = [f"| | {head} | memory, MB | start-up, s |", "|---" * (len(CONNECTIONS) + 3) + "|"]
    for name in names:
        cells = []
        for count in CONNECTIONS:
            rate, p50, p99 = (
                median_of(results.turns, name, count, what)
                for what in ("requests_per_s", "p50_ms", "p99_ms")
            )
            cells.append(f"{rate:,.0f} ({p50:.2f} / {p99:.1f})")
        turns = [turn for turn in results.turns if turn.contender == name]
        memory = statistics.median(turn.memory_mb for turn in turns)
        start = statistics.median(turn.start_s for turn in turns)
        cells += [f"{memory:,.0f}", f"{start:.1f}"]
        lines.append(f"| {title_of(name)} | {' | '.join(cells)} |")
    return lines


def promises_table(results: Results) -> list[str]:
    """What Treeline sets out to do, at 8 connections and for the no-op at every number."""
    lines = ["| ratio, median over rounds | connections | wanted | measured |", "|---|---|---|---|"]
    for what, name, base, figure, bound, more in PROMISES:
        for count in CONNECTIONS if base == "ray-noop" else (8,):
            found = ratio(results.turns, name, base, count, figure)
            if found is None:
                continue
            kept = found >= bound if more else found <= bound
            sign = "≥" if more else "≤"
            verdict = "" if kept else " **missed**"
            lines.append(f"| {what} | {count} | {sign} {bound:g} | {found:.3g}{verdict} |")
    return lines


def cpu_table(results: Results, names: Sequence[str]) -> list[str]:
    """Processor time of a request, which a busy machine disturbs less than throughput."""
    kinds = ("replica", "proxy", "agent", "live", "rest")
    lines = [
        "Processor microseconds of a request at 8 connections, by process; `live` counts windows",
        "beside the agent, `rest` is Ray's own standing cost (controller, node, dashboard) spread",
        "over the requests:",
        "",
        f"| | {' | '.join(kinds)} |",
        "|---" * (len(kinds) + 1) + "|",
    ]
    for name in names:
        turns = [turn for turn in results.turns if turn.contender == name]
        medians = [
            statistics.median(turn.cpu_us.get(kind, 0.0) for turn in turns) for kind in kinds
        ]
        cells = " | ".join(f"{median:,.0f}" if median else "" for median in medians)
        lines.append(f"| {title_of(name)} | {cells} |")
    return lines


def slower(results: Results, names: Sequence[str]) -> list[str]:
    """Say plainly who is faster than Treeline, and where Treeline costs more."""
    if "treeline" not in names:
        return []
    lines = ["What is slower or heavier than others:", ""]
    turns = results.turns
    for name in names:
        if name.startswith("treeline"):
            continue
        found = ratio(turns, "treeline", name, 8, "requests_per_s")
        if found is not None and found < 1:
            lines.append(
                f"- {title_of(name)} answers {1 / found:.2f} times as many requests per second as "
                "Treeline at 8 connections."
            )
    for what, unit, title in (
        ("start_s", "s", "is up after"),
        ("memory_mb", "MB", "takes"),
    ):
        ours = statistics.median(getattr(t, what) for t in turns if t.contender == "treeline")
        for name in names:
            theirs = statistics.median(getattr(t, what) for t in turns if t.contender == name)
            if theirs < ours and not name.startswith("treeline"):
                lines.append(
                    f"- {title_of(name)} {title} {theirs:,.1f} {unit}, Treeline {ours:,.1f} {unit}."
                )
    return lines


def title_of(name: str) -> str:
    return next(contender.title for contender in CONTENDERS if contender.name == name)


def draw(results: Results, folder: Path) -> None:
    """Throughput and p99 by number of connections, one line each, both on log scales."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "treeline"  # equal figures give an equal file
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    for axis, what, label in zip(
        axes, ("requests_per_s", "p99_ms"), ("requests per second", "p99, ms"), strict=True
    ):
        for name in ranked(results):
            figures = [median_of(results.turns, name, count, what) for count in CONNECTIONS]
            ours = name.startswith("treeline")
            axis.plot(
                CONNECTIONS,
                figures,
                marker="o",
                linewidth=2.5 if ours else 1.2,
                linestyle="-" if "noop" not in name else "--",
                label=title_of(name),
            )
        axis.set(xscale="log", yscale="log", xlabel="connections", ylabel=label)
        axis.set_xticks(CONNECTIONS, [str(count) for count in CONNECTIONS])
        axis.grid(visible=True, which="major", alpha=0.3)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize=8, frameon=False)
    figure.savefig(folder / PLOT, metadata={"Date": None})
    plt.close(figure)
