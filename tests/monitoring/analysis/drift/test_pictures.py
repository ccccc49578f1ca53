from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from monitoring.analysis.drift import WindowSummary, fit_baseline, judge
from monitoring.analysis.drift.budget import AlarmBudget
from monitoring.analysis.drift.logged import LoggedWindow, Stream
from monitoring.analysis.drift.timeline import judge_windows
from tests.monitoring.analysis.drift.samples import changed, table

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


def test_a_window_too_small_to_be_judged_has_no_pictures():
    from monitoring.analysis.drift.pictures import report_page

    window = summary(table(np.random.default_rng(2), 10))
    page = report_page(PROFILE, window, judge(PROFILE, window))
    assert "<title>Not enough data: 10 rows</title>" in page
    assert "<img" not in page


def test_bars_name_ranges_values_and_what_was_never_seen():
    from monitoring.analysis.drift.charts import column_bars

    rng = np.random.default_rng(4)
    rows = 4_000

    def made(codes: list[str], numbers: np.ndarray) -> pa.Table:
        few = pa.array(np.arange(rows) % 3)
        return pa.table({"x_shop": codes, "x_size": numbers, "x_few": few})

    shops = [f"shop {i}" for i in rng.integers(0, 500, rows - 1_000)]
    numbers = rng.uniform(0.0, 10.0, rows)
    profile = fit_baseline(made(["<main>"] * 1_000 + shops, numbers))
    window = WindowSummary(profile.layout)
    changed = pa.array(np.where(np.arange(rows) < 400, np.nan, numbers), from_pandas=True)
    window.update(made(["<main>"] * 500 + ["new"] * 500 + shops, changed))
    found = {
        column.name: [(bar.label, round(bar.before, 2), round(bar.after, 2)) for bar in bars]
        for index, column in enumerate(profile.layout.columns)
        for bars in [column_bars(profile, window, index)]
    }
    assert found["shop"] == [
        ("<main>", 0.25, 0.12),
        (f"{len(set(shops))} other categories", 0.75, 0.75),
        ("never seen", 0.0, 0.12),
    ]
    assert found["few"] == [("0", 0.33, 0.33), ("1", 0.33, 0.33), ("2", 0.33, 0.33)]
    assert [before for _, before, _ in found["size"]] == [0.1] * 10 + [0.0]
    assert found["size"][-1] == ("missing", 0.0, 0.1)
    low, high = map(float, found["size"][4][0].split(" to "))
    assert (low, high) == pytest.approx((4.0, 5.0), abs=0.2)


def labels_of(numbers: np.ndarray) -> list[str]:
    from monitoring.analysis.drift.charts import column_bars

    rows = pa.table({"x_size": numbers})
    profile = fit_baseline(rows)
    window = WindowSummary(profile.layout)
    window.update(rows)
    return [bar.label for bar in column_bars(profile, window, 0)]


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("infinite", [10, 400])
def test_infinite_training_values_are_in_the_outermost_range(sign, infinite):
    from monitoring.analysis.drift.pictures import report_page

    rng = np.random.default_rng(5)
    numbers = rng.uniform(1.0, 10.0, 4_000)
    numbers[:infinite] = sign * np.inf
    labels = labels_of(numbers)
    outer, others = (labels[-1], labels[:-1]) if sign > 0 else (labels[0], labels[1:])
    alone = "-inf" if infinite == 400 else "below "  # as many as a decile
    assert outer.startswith("above " if sign > 0 else alone)
    assert all(" to " in label and "inf" not in label for label in others)
    rows = pa.table({"x_size": numbers})
    profile = fit_baseline(rows)
    window = WindowSummary(profile.layout)
    window.update(rows)
    assert "<img" in report_page(profile, window, judge(profile, window))


def test_few_values_and_infinities_are_named_each_for_itself():
    few = np.tile([-np.inf, 0.0, 2.5, np.inf], 500)
    assert labels_of(few) == ["-inf", "0", "2.5", "above 2.5"]
    assert labels_of(np.full(500, np.inf)) == ["all values"]


@pytest.mark.parametrize("atom", [0.0, 0.1])
def test_a_range_beside_a_value_of_its_own_begins_above_it(atom):
    rng = np.random.default_rng(6)
    first, second, *_ = labels_of(np.append(np.full(910, atom), atom + rng.uniform(0, 1, 3_090)))
    assert first == f"{atom:g}"
    assert second.startswith(f"above {atom:g} to 0.")
    assert len(second) < 25


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
