"""Results are kept, read back, compared and drawn; the pages load nothing from elsewhere."""

import base64
import csv
import re
import xml.etree.ElementTree as ET

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest

from autoscaling.loadtest.compare import compare
from autoscaling.loadtest.errors import ResultInvalid, ResultUnwritable
from autoscaling.loadtest.generator import Target
from autoscaling.loadtest.recording import Outcome
from autoscaling.loadtest.report import render_comparison, render_report
from autoscaling.loadtest.results import Objective, Schedule
from autoscaling.loadtest.scaling import Decision, ScalingHistory
from autoscaling.loadtest.store import load, make_folder, requests_table, save
from autoscaling.loadtest.summary import summarise

DECISIONS = ScalingHistory(
    decisions=(
        Decision(ts=1_700_000_000.5, target=1, running=1, reason="steady"),
        Decision(ts=1_700_000_001.0, target=1, running=1, reason="steady, again"),
        Decision(ts=1_700_000_001.5, target=3, running=1, reason="burst <b>bold</b>"),
    )
)


@pytest.fixture
def result_of():
    def make(recording, *, scaling=DECISIONS, seed=0, slo_ms=200.0):
        plan = recording.plan
        return summarise(
            recording,
            target=Target(url="http://127.0.0.1:8000/predict"),
            schedule=Schedule(
                rate_rps=10.0,
                duration_s=plan.duration_s,
                warmup_s=plan.warmup_s,
                seed=seed,
                kinds=plan.kinds,
            ),
            objective=Objective(slo_ms=slo_ms),
            scaling=scaling,
        )

    return make


def pictures(page):
    found = re.findall(r'<img alt="[^"]+" src="data:image/svg\+xml;base64,([^"]+)"', page)
    return [ET.fromstring(base64.b64decode(picture)) for picture in found]


def test_result_reads_back_from_folder_or_file(recorded, result_of, tmp_path):
    recording = recorded(np.linspace(5, 50, 30))
    result = result_of(recording)
    make_folder(tmp_path / "a/b")
    save(result, recording, tmp_path / "a/b")
    assert load(tmp_path / "a/b") == result
    assert load(tmp_path / "a/b/result.json") == result


def test_seconds_are_a_csv(recorded, result_of, tmp_path):
    recording = recorded([10.0] * 15)
    recording.status[12] = 500
    save(result_of(recording), recording, tmp_path)
    with (tmp_path / "seconds.csv").open() as file:
        lines = list(csv.DictReader(file))
    columns = ["t_s", "planned", "sent", "ok", "errors", "p50_ms", "p95_ms", "p99_ms"]
    assert list(lines[0]) == columns
    assert [(line["planned"], line["ok"], line["errors"]) for line in lines] == [
        ("10", "10", "0"),
        ("5", "4", "1"),
    ]


def test_requests_join_with_the_log(recorded, result_of, cut, tmp_path):
    recording = recorded([10.0] * 4)
    recording.outcome[2], recording.status[2] = Outcome.TIMED_OUT, 0
    cut(recording, 3)
    save(result_of(recording), recording, tmp_path)
    table = pq.read_table(tmp_path / "requests.parquet").to_pylist()
    assert [line["request_id"] for line in table] == [f"lt-test-{n:07d}" for n in range(3)]
    assert [line["outcome"] for line in table] == ["answered", "answered", "timed_out"]
    assert [line["status"] for line in table] == [200, 200, None]
    assert {line["kind"] for line in table} == {"light"}
    assert table[1]["planned_at"].timestamp() == pytest.approx(1_700_000_000.1)
    assert table[0]["latency_ms"] == pytest.approx(10)
    assert requests_table(recording).num_rows == 3


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("{", "result.json"), ("{}", "its format is ''"), ('{"format": "x/9"}', "'x/9'")],
)
def test_other_files_are_no_results(tmp_path, text, complaint):
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(ResultInvalid, match=complaint):
        load(tmp_path)


def test_damaged_missing_and_unwritable(tmp_path, recorded, result_of):
    with pytest.raises(ResultInvalid, match="No such file"):
        load(tmp_path / "none")
    damaged = msgspec.to_builtins(result_of(recorded([1.0])), str_keys=True)
    del damaged["verdict"]
    (tmp_path / "result.json").write_bytes(msgspec.json.encode(damaged))
    with pytest.raises(ResultInvalid, match="verdict"):
        load(tmp_path)
    with pytest.raises(ResultUnwritable, match="--out"):
        make_folder(tmp_path / "result.json")


def test_report_holds_its_pictures_and_loads_nothing(recorded, result_of):
    recording = recorded(np.linspace(5, 400, 60), warmup_s=1.0)
    recording.status[40] = 500
    page = render_report(result_of(recording))
    timeline, distribution = pictures(page)
    assert timeline.tag.endswith("svg")
    assert distribution.tag.endswith("svg")
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "The objective was missed." in page
    assert "burst &lt;b&gt;bold&lt;/b&gt;" in page
    assert "steady, again" not in page  # it changed nothing


def test_report_says_what_is_missing_or_wrong(recorded, result_of, cut):
    recording = recorded([10.0] * 50)
    recording.begun_s += 0.05
    cut(recording, 40)
    page = render_report(result_of(recording, scaling=ScalingHistory(note="it answered 404")))
    assert "Replicas and decisions are not shown: it answered 404." in page
    assert "The load generator was the bottleneck" in page
    assert "stopped by hand after 4 s" in page
    assert "Scaling decisions" not in page


def test_report_of_a_run_without_answers(recorded, result_of):
    recording = recorded([10.0] * 5)
    recording.outcome[:], recording.status[:] = Outcome.FAILED, 0
    page = render_report(result_of(recording))
    assert len(pictures(page)) == 2


def test_comparison_gives_ratios_and_what_was_asked_differently(recorded, result_of):
    a = result_of(recorded([10.0] * 20))
    slower = recorded([30.0] * 20)
    slower.queued[:] = True
    b = result_of(slower, seed=5, slo_ms=20.0)
    comparison = compare(a, b, names=("before", "after"))
    rows = {row.measure: row for row in comparison.rows}
    assert rows["p95 ms"].ratio == pytest.approx(3.0)
    assert rows["light: p95 ms"].ratio == pytest.approx(3.0)
    assert rows["answered per second"].ratio == 1.0
    assert rows["lost"].ratio is None
    assert not comparison.held
    assert comparison.differences == ("schedule.seed: 0 and 5", "objective.slo_ms: 200.0 and 20.0")
    (warning,) = comparison.warnings
    assert warning.startswith("after: 100.0% of the requests waited")
    page = render_comparison(comparison, a, b)
    assert len(pictures(page)) == 1
    assert "before" in page
    assert "schedule.seed: 0 and 5" in page


def test_comparison_with_itself_finds_nothing(recorded, result_of):
    result = result_of(recorded(np.linspace(5, 50, 30)))
    comparison = compare(result, result, names=("a", "b"))
    assert {row.ratio for row in comparison.rows} <= {1.0, None}
    assert comparison.differences == ()
    assert comparison.held
