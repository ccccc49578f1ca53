"""Closed windows judged, in order of time, by one process of a state folder."""

import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec

from monitoring.agent.epochs import try_lock
from monitoring.agent.settings import LiveSettings
from monitoring.analysis.drift.budget import AlarmBudget
from monitoring.analysis.drift.judge import judge
from monitoring.analysis.drift.report import report_json
from monitoring.live.alerts import Alert, Cause
from monitoring.live.capture_health import unhealthy
from monitoring.live.checking import broken_rules, check_window
from monitoring.live.drifting import after_window
from monitoring.live.errors import CountedElsewhere
from monitoring.live.expectations import Expectations
from monitoring.live.grading import degraded, standings
from monitoring.live.joining import Joining
from monitoring.live.settling import settle_day
from monitoring.live.store import Store
from monitoring.live.verdicts import Verdicts
from monitoring.live.window import LiveWindow, StreamKey

log = logging.getLogger(__name__)


class Judging:
    """Belongs to one thread, as does its store."""

    def __init__(
        self,
        store: Store,
        expectations: Expectations,
        settings: LiveSettings,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._verdicts = Verdicts(store)
        self._joining = Joining(store, settings, clock)
        self._expectations = expectations
        self._settings = settings
        self._clock = clock

    def causes(self, known: Mapping[str, Alert]) -> dict[str, Cause]:
        """Name all that is wrong now: drift, broken rules, lost quality, capture."""
        found = self._drifts() | unhealthy(self._store, self._clock())
        for key in self._store.streams():
            expected = self._expectations.of(key.model, key.version)
            view = check_window(
                self._store, key, expected, self._settings, known=known, now_s=self._clock()
            )
            found |= broken_rules(view)
            found |= degraded(
                key, standings(self._store, key, expected, self._settings, known=known)
            )
        return found

    def _drifts(self) -> dict[str, Cause]:
        """Name every stream whose drift alarm is open, and what moved."""
        found = {}
        for key in self._store.streams():
            state, _ = self._verdicts.state(key)
            if state.open_since_s is not None:
                found[f"drift:{'/'.join(_names(key))}"] = Cause(
                    kind="drift",
                    text=f"{key.model} {key.version} ({key.variant}) drifts: {self._moved(key)}",
                    since_s=state.open_since_s,
                    link="/monitor/api/drift?"
                    + urlencode({"model": key.model, "version": key.version}),
                )
        return found

    def _moved(self, key: StreamKey) -> str:
        reports = self._verdicts.reports(key, 0.0, float("inf"))
        for report in reversed(reports):
            verdict = msgspec.json.decode(report)
            if verdict["budget_alarm"]:
                moved = [c["name"] for c in verdict["features"] if c["alarm"]]
                return ", ".join(moved) or "no column by itself, all windows together"
        return "the window that alarmed is no longer kept"

    def join_feedback(self) -> int:
        """Join the feedback that is due to its answers; return how many were looked at."""
        joined = self._joining.join_due()
        settle_day(self._store, self._clock())
        return joined

    def judge_due(self) -> int:
        """Judge every closed window that has no verdict yet; return how many.

        A window is closed ``late_s`` after its end. Streams of a model share its budget: those
        that had traffic of late count.
        """
        judged = 0
        streams = self._store.streams()
        for key in streams:
            beside = sum(1 for other in streams if other.model == key.model and self._busy(other))
            budget = AlarmBudget(
                window_s=float(self._settings.drift_window_s),
                false_alarms=self._settings.false_alarms_per_month,
                streams=max(beside, 1),
            )
            for start_s, window in self._closed(key):
                try:
                    self._judge(key, start_s, window, budget)
                except CountedElsewhere as error:
                    log.warning("judged by another process: %s", error)
                    break
                judged += 1
        return judged

    def _busy(self, key: StreamKey) -> bool:
        length_s = 2 * self._settings.drift_window_s + self._settings.late_s
        return self._store.totals(key).newest_s >= self._clock() - length_s

    def _closed(self, key: StreamKey) -> list[tuple[int, LiveWindow]]:
        length_s = self._settings.drift_window_s
        state, _ = self._verdicts.state(key)
        end_s = self._clock() - self._settings.late_s - length_s + 1e-6
        profile = self._expectations.of(key.model, key.version).profile
        if profile is None:
            return []  # what comes to be known later can still be judged, as far as it is kept
        return self._store.windows(
            key, length_s, start_s=state.judged_to_s, end_s=end_s, layout=profile.layout
        )

    def _judge(self, key: StreamKey, start_s: int, window: LiveWindow, budget: AlarmBudget) -> None:
        profile = self._expectations.of(key.model, key.version).profile
        before, _ = self._verdicts.state(key)
        end_s = start_s + self._settings.drift_window_s
        plain: dict[str, Any] = {"outcome": "not enough data", "rows": 0, "p_value": None}
        if profile is not None and window.summary is not None:
            plain = report_json(judge(profile, window.summary))
        after = after_window(before, plain["p_value"], end_s, budget)
        head = {
            "start": datetime.fromtimestamp(start_s, UTC),
            "end": datetime.fromtimestamp(end_s, UTC),
            "evidence": after.evidence.value,
            "budget_alarm": after.evidence.alarm,
        }
        self._verdicts.add(
            key,
            start_s,
            msgspec.json.encode(head | plain),
            before=before,
            after=after,
            threshold=budget.threshold,
        )


def _names(key: StreamKey) -> tuple[str, ...]:
    return (key.model, key.version, key.variant)


def try_to_be_judge(folder: Path) -> int | None:
    """Become the one judge of a folder for this process's life; None if there is one."""
    return try_lock(folder, "judge.lock")
