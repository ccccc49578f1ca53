"""What a person sees while the run lasts: a progress bar and a table, drawn once a second."""

import time
from typing import Final

import numpy as np
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from autoscaling.loadtest.recording import Outcome, Recording

RECENT_S: Final = 5.0


class LiveView:
    """A context manager; ``show`` redraws. It draws nothing unless the console is a terminal.

    Drawing happens on the generator's own thread and takes some milliseconds, hence once a second.
    """

    def __init__(self, console: Console) -> None:
        self._on = console.is_terminal
        self._progress = Progress(
            TextColumn("load test"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeRemainingColumn(),
            console=console,
        )
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._task = self._progress.add_task("")

    def __enter__(self) -> "LiveView":
        if self._on:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._on:
            self._live.stop()

    def show(self, recording: Recording) -> None:
        if not self._on or not recording.started_at_s:
            return
        now_s = time.time() - recording.started_at_s
        duration_s = recording.plan.duration_s
        self._progress.update(self._task, total=duration_s, completed=min(now_s, duration_s))
        self._live.update(Group(self._progress, live_table(recording, now_s)), refresh=True)


def live_table(recording: Recording, now_s: float) -> Table:
    """Counts and percentiles of the last five seconds and of the whole run up to ``now_s``."""
    table = Table("", "planned", "ended", "ok", "errors", "open", "p50 ms", "p95 ms", "p99 ms")
    for name, since_s in (("last 5 s", now_s - RECENT_S), ("all", 0.0)):
        table.add_row(name, *_cells(recording, since_s, now_s))
    return table


def _cells(recording: Recording, since_s: float, now_s: float) -> list[str]:
    edges = np.searchsorted(recording.plan.at_s, [since_s, now_s])
    span = slice(int(edges[0]), int(edges[1]))
    ended = recording.outcome[span] != Outcome.NOT_SENT
    ok = recording.ok[span]
    planned, done, good = len(ended), int(ended.sum()), int(ok.sum())
    latency_ms = recording.latency_ms[span][ok]
    percentiles = ["–"] * 3
    if good:
        percentiles = [f"{value:,.1f}" for value in np.quantile(latency_ms, [0.5, 0.95, 0.99])]
    numbers = (planned, done, good, done - good, planned - done)
    return [*(f"{number:,}" for number in numbers), *percentiles]
