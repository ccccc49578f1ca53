"""What a person sees while the run lasts: a progress bar and a table, drawn once a second."""

import time
from typing import Final

import numpy as np
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from autoscaling.loadtest.recording import Recording

RECENT_S: Final = 5.0


class LiveView:
    """A context manager; ``show`` redraws. It draws nothing unless the console is a terminal.

    Drawing takes 3 to 5 ms on the generator's own thread, hence once a second.
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
            # rich imports what it needs at the first drawing: some 60 ms, before the run starts.
            self._live.update(Group(self._progress, _empty_table()), refresh=True)
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
    """Counts and percentiles of the last five seconds, and the counts of the run up to ``now_s``.

    The run's own percentiles would sort every latency once a second, on the generator's thread.
    """
    first, following = np.searchsorted(recording.plan.at_s, [now_s - RECENT_S, now_s]).tolist()
    recent = slice(first, following)
    latency_ms = recording.latency_ms_of(recent)[recording.ok_of(recent)]
    shown = ["–"] * 3
    if len(latency_ms):
        shown = [f"{value:,.1f}" for value in np.quantile(latency_ms, [0.5, 0.95, 0.99])]
    table = _empty_table()
    table.add_row("last 5 s", *_counts(recording, recent), *shown)
    table.add_row("all", *_counts(recording, slice(0, following)))
    return table


def _empty_table() -> Table:
    table = Table("")
    for name in ("planned", "ended", "ok", "errors", "open", "p50 ms", "p95 ms", "p99 ms"):
        table.add_column(name, justify="right", min_width=7)
    return table


def _counts(recording: Recording, span: slice) -> list[str]:
    planned = len(recording.plan.at_s[span])
    ended = int(np.count_nonzero(recording.outcome[span]))
    ok = int(np.count_nonzero(recording.ok_of(span)))
    return [f"{number:,}" for number in (planned, ended, ok, ended - ok, planned - ended)]
