from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from monitoring.analysis.drift import WindowSummary, fit_baseline, judge
from monitoring.analysis.drift.budget import AlarmBudget
from monitoring.analysis.drift.logged import LoggedWindow, Stream
from monitoring.analysis.drift.timeline import judge_windows
from tests.monitoring.analysis.drift.samples import changed, table

pytest.importorskip("matplotlib")
PROFILE = fit_baseline(table(np.random.default_rng(1), 2_000))


def summary(rows):
    window = WindowSummary(PROFILE.layout)
    window.update(rows)
    return window


def test_a_report_is_one_page_with_pictures_and_escaped_names():
    from monitoring.analysis.drift.pictures import report_page

    rows = table(np.random.default_rng(2), 500)
    window = summary(changed(rows, "colour", ["<b>new</b>"] * 500))
    page = report_page(PROFILE, window, judge(PROFILE, window))
    assert "<title>Drift: 500 rows</title>" in page
    assert "data:image/png;base64," in page
    assert "<b>new</b>" not in page


def test_a_timeline_shows_every_stream():
    from monitoring.analysis.drift.pictures import timeline_page

    start = datetime(2026, 1, 1, tzinfo=UTC)
    rng = np.random.default_rng(3)
    windows = [
        LoggedWindow(
            stream=Stream(version=version),
            start=start + timedelta(days=day),
            end=start + timedelta(days=day + 1),
            summary=summary(table(rng, 200)),
        )
        for version in ("1", "2")
        for day in range(3)
    ]
    timeline = judge_windows(
        "credit",
        windows,
        budget=AlarmBudget(window_s=86_400.0),
        profile_of=lambda _version: PROFILE,
    )
    page = timeline_page(timeline)
    assert page.count("<h2>") == 2
    assert page.count("2026-01-0") == 6
