from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from monitoring.agent.settings import SinkSettings
from monitoring.analysis.drift import fit_baseline
from monitoring.analysis.drift.budget import AlarmBudget
from monitoring.analysis.drift.errors import WindowUnusable
from monitoring.analysis.drift.logged import Stream, read_windows
from monitoring.analysis.drift.timeline import judge_windows, timeline_json
from monitoring.errors import SinkUnavailable

DAY_US = 86_400_000_000
START = datetime(2026, 3, 1, tzinfo=UTC)
RNG = np.random.default_rng(1)
PROFILE = fit_baseline(pa.table({"x_age": RNG.normal(40, 10, 5_000), "score": RNG.random(5_000)}))


def rows(count, *, day=0, shift=0.0, status=200, weight=1.0, variant="champion"):
    """Part of the stored schema: what drift detection reads."""
    first = int(START.timestamp() * 1e6) + day * DAY_US
    return pa.table(
        {
            "ts": pa.array(first + np.arange(count) * 1_000_000, pa.timestamp("us", tz="UTC")),
            "status": pa.array([status] * count, pa.int16()),
            "weight": np.full(count, weight),
            "variant": [variant] * count,
            "score": RNG.random(count),
            "x_age": RNG.normal(40 + shift, 10, count),
        }
    )


def store(sink, table, *, version="1.0.0", name="0-1"):
    folder = sink / "events" / "model=credit" / f"version={version}" / "date=2026-03-01" / "hour=00"
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / f"{name}.parquet", compression="zstd")


def read(sink, **options):
    options = {"window_s": 86_400.0, "profile_of": lambda _version: PROFILE} | options
    return read_windows(SinkSettings(url=str(sink)), "credit", **options)


def test_rows_fall_into_windows_by_their_time_whatever_file_they_lie_in(tmp_path):
    store(tmp_path, pa.concat_tables([rows(30, day=1), rows(20, day=0)]), name="0-1")
    store(tmp_path, rows(5, day=0), name="1-1")
    windows = read(tmp_path)
    assert [(w.start.day, w.end.day, w.summary.rows) for w in windows] == [(1, 2, 25), (2, 3, 30)]


def test_versions_and_segments_are_streams_of_their_own(tmp_path):
    store(tmp_path, pa.concat_tables([rows(10), rows(4, variant="shadow")]))
    store(tmp_path, rows(7), version="2.0.0")
    found = {w.stream: w.summary.rows for w in read(tmp_path, by=["variant"])}
    assert found == {
        Stream(version="1.0.0", segment=(("variant", "champion"),)): 10,
        Stream(version="1.0.0", segment=(("variant", "shadow"),)): 4,
        Stream(version="2.0.0", segment=(("variant", "champion"),)): 7,
    }
    assert [w.stream.version for w in read(tmp_path, version="2.0.0")] == ["2.0.0"]


def test_failed_requests_do_not_count_and_weights_do(tmp_path):
    store(tmp_path, pa.concat_tables([rows(10, weight=5.0), rows(10, status=422)]))
    [window] = read(tmp_path)
    assert window.summary.rows == 10
    assert window.summary.counts.sum() == 2 * 50 * 1024


def test_files_that_do_not_fit_or_cannot_be_read_are_named(tmp_path):
    store(tmp_path, rows(10).drop_columns(["x_age"]))
    with pytest.raises(WindowUnusable, match=r"0-1\.parquet.*'x_age' is missing"):
        read(tmp_path)
    store(tmp_path, rows(10))
    with pytest.raises(WindowUnusable, match="no column 'region'"):
        read(tmp_path, by=["region"])
    next(tmp_path.rglob("*.parquet")).write_bytes(b"no parquet")
    with pytest.raises(SinkUnavailable, match=r"0-1\.parquet"):
        read(tmp_path)


def test_an_empty_log_has_no_windows(tmp_path):
    assert read(tmp_path) == []


def test_drift_that_begins_on_a_day_alarms_from_that_day_on(tmp_path):
    for day in range(6):
        store(tmp_path, rows(400, day=day, shift=4.0 if day >= 4 else 0.0), name=f"0-{day}")
    timeline = judge_windows(
        "credit",
        read(tmp_path),
        budget=AlarmBudget(window_s=86_400.0),
        profile_of=lambda _version: PROFILE,
    )
    assert timeline.alarm
    assert [w.evidence.alarm for w in timeline.windows] == [False] * 4 + [True] * 2
    document = timeline_json(timeline)
    assert document["budget"]["threshold"] == 30
    assert [c["name"] for c in document["windows"][4]["features"] if c["alarm"]] == ["age"]
