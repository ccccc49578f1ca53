"""A model's windows judged one after the other, under one alarm budget."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any

from monitoring.analysis.drift.baseline import BaselineProfile
from monitoring.analysis.drift.budget import AlarmBudget, Evidence, add_window
from monitoring.analysis.drift.dependence import Cycles
from monitoring.analysis.drift.judge import DEFAULT_ALPHA, judge
from monitoring.analysis.drift.logged import LoggedWindow, Stream
from monitoring.analysis.drift.report import DriftReport, report_json


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedWindow:
    """A window's own verdict, and the evidence of its stream up to its end."""

    stream: Stream
    start: datetime
    end: datetime
    report: DriftReport
    evidence: Evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """All windows of a model, by stream and time.

    ``alarm`` keeps the budget: a stream's evidence over time, not any single look. A stream of one
    window is one look, and its report speaks for it.
    """

    model: str
    budget: AlarmBudget
    windows: tuple[JudgedWindow, ...]

    @property
    def alarm(self) -> bool:
        return any(self._alarms(list(windows)) for _, windows in self.streams())

    def streams(self) -> Iterable[tuple[Stream, Iterable[JudgedWindow]]]:
        return groupby(self.windows, key=lambda window: window.stream)

    @staticmethod
    def _alarms(windows: list[JudgedWindow]) -> bool:
        if len(windows) == 1:
            return windows[0].report.alarm
        return any(window.evidence.alarm for window in windows)


def judge_windows(
    model: str,
    windows: Iterable[LoggedWindow],
    *,
    budget: AlarmBudget,
    profile_of: Callable[[str], BaselineProfile],
    alpha: float = DEFAULT_ALPHA,
    cycles: Cycles = "drift",
) -> Timeline:
    """Judge windows that come ordered by stream and time."""
    judged: list[JudgedWindow] = []
    for stream, series in groupby(windows, key=lambda window: window.stream):
        evidence = Evidence()
        for window in series:
            profile = profile_of(stream.version)
            report = judge(profile, window.summary, alpha=alpha, cycles=cycles)
            evidence = add_window(evidence, report.p_value, budget)
            judged.append(
                JudgedWindow(
                    stream=stream,
                    start=window.start,
                    end=window.end,
                    report=report,
                    evidence=evidence,
                )
            )
    return Timeline(model=model, budget=budget, windows=tuple(judged))


def timeline_json(timeline: Timeline) -> dict[str, Any]:
    """Give the timeline the shape that ``treeline drift --sink --json`` prints."""
    budget = timeline.budget
    return {
        "alarm": timeline.alarm,
        "model": timeline.model,
        "budget": {
            "false_alarms": budget.false_alarms,
            "period_s": budget.period_s,
            "window_s": budget.window_s,
            "streams": budget.streams,
            "threshold": budget.threshold,
        },
        "windows": [
            {
                "version": window.stream.version,
                "segment": dict(window.stream.segment),
                "start": window.start.isoformat(),
                "end": window.end.isoformat(),
                "evidence": window.evidence.value,
                "budget_alarm": window.evidence.alarm,
            }
            | report_json(window.report)
            for window in timeline.windows
        ],
    }
