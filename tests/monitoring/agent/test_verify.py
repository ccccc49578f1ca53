"""What people and disks do to a log, and what the ledger says about it."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from monitoring.agent.settings import SamplingSettings, SinkSettings
from monitoring.agent.verify import Problem, verify
from monitoring.errors import SinkUnavailable
from tests.monitoring.agent.conftest import Agent, delivery, rows_of


@pytest.fixture
def sink(tmp_path):
    """Three files of producer p1 (1-10, 11-20, 21-30) and one of p2, some events dropped."""
    agent = Agent(tmp_path)
    for first in (1, 11, 21):
        agent.take(delivery(first, first + 9, dropped={13: "too_large"}))
        if first == 1:
            agent.take(delivery(1, 4, producer="p2"))
        agent.drain()
    agent.die()
    return tmp_path / "sink"


def judged(sink):
    return verify(SinkSettings(url=str(sink)))


def files(sink):
    return sorted(sink.rglob("*.parquet"))


def relative(sink, path):
    return str(path.relative_to(sink))


def test_a_whole_log_is_good(sink):
    verdict = judged(sink)
    assert verdict.problems == ()
    assert (verdict.ok, verdict.producers) == (True, 2)
    assert (verdict.received, verdict.written, verdict.sampled_out) == (34, 33, 0)
    assert verdict.dropped == {"too_large": 1}


@pytest.mark.parametrize(("index", "numbers"), [(0, (1, 10)), (1, (11, 20)), (2, (21, 30))])
def test_a_removed_file_is_a_gap_with_its_name_and_range(sink, index, numbers):
    path = files(sink)[index]
    path.unlink()
    verdict = judged(sink)
    assert not verdict.ok
    gap = next(p for p in verdict.problems if p.producer == "p1")
    assert gap == Problem(
        kind="gap", producer="p1", first=numbers[0], last=numbers[1], file=relative(sink, path)
    )
    assert len(verdict.problems) == (2 if index == 0 else 1)


def test_a_hole_without_ledger_is_still_a_gap(sink):
    files(sink)[1].unlink()
    shutil.rmtree(sink / "ledger")
    assert judged(sink).problems == (Problem(kind="gap", producer="p1", first=11, last=20),)


def test_a_copied_file_is_an_overlap(sink):
    path = files(sink)[1]
    shutil.copy(path, path.with_name("copy.parquet"))
    (problem,) = judged(sink).problems
    assert (problem.kind, problem.producer, problem.first, problem.last) == (
        "overlap",
        "p1",
        11,
        20,
    )
    assert "hour=14" in problem.file


def test_a_flipped_bit_in_a_feature_is_found(sink):
    path = files(sink)[2]
    data = bytearray(path.read_bytes())
    group = pq.read_metadata(path).row_group(0)
    columns = [group.column(i) for i in range(group.num_columns)]
    (age,) = [c for c in columns if c.path_in_schema == "x_age"]
    data[age.data_page_offset + age.total_compressed_size - 3] ^= 4
    path.write_bytes(data)
    (problem,) = judged(sink).problems
    assert problem == Problem(
        kind="unreadable", producer="p1", first=21, last=30, file=relative(sink, path)
    )


def test_a_cut_file_is_unreadable(sink):
    path = files(sink)[0]
    path.write_bytes(path.read_bytes()[:-20])
    verdict = judged(sink)
    assert {p.kind for p in verdict.problems} == {"unreadable"}
    assert {p.producer for p in verdict.problems} == {"p1", "p2"}


def rewritten(path, change):
    """Change a file's rows and keep its metadata."""
    metadata = pq.read_metadata(path).metadata
    table = change(pq.read_table(path)).replace_schema_metadata(metadata)
    pq.write_table(table, path)


def test_doubled_and_removed_rows_are_found(sink):
    first, second, third = files(sink)
    rewritten(second, lambda t: pa.concat_tables([t, t.slice(0, 1)]))
    rewritten(third, lambda t: t.slice(1))
    assert [(p.kind, p.first, p.last) for p in judged(sink).problems] == [
        ("duplicate", 11, 11),
        ("gap", 21, 30),
    ]
    rewritten(first, lambda t: pa.concat_tables([t, pq.read_table(third).slice(0, 1)]))
    kinds = [(p.kind, p.first) for p in judged(sink).problems if p.file == relative(sink, first)]
    assert kinds == [("duplicate", 22)]


@pytest.mark.parametrize(
    ("row", "with_ledger", "numbers"),
    [(0, True, (2, 2)), (1, True, (2, 2)), (2, True, (1, 4)), (2, False, (1, 4))],
)
def test_one_row_of_an_event_removed_is_a_gap(tmp_path, row, with_ledger, numbers):
    agent = Agent(tmp_path)
    agent.take(delivery(1, 4, events=lambda seq: rows_of(seq, rows=3)))
    agent.drain()
    agent.die()
    sink = tmp_path / "sink"
    (path,) = files(sink)
    rewritten(path, lambda t: t.filter(pa.array([i != 3 + row for i in range(12)])))
    if not with_ledger:
        shutil.rmtree(sink / "ledger")
    (problem,) = judged(sink).problems
    assert problem == Problem(
        kind="gap", producer="p1", first=numbers[0], last=numbers[1], file=relative(sink, path)
    )


def relabelled(path, coverage, rows):
    """Cut a file to its first rows and let its own metadata agree."""
    metadata = {
        **pq.read_metadata(path).metadata,
        b"treeline.coverage": json.dumps(coverage).encode(),
        b"treeline.rows": str(rows).encode(),
    }
    pq.write_table(pq.read_table(path).slice(0, rows).replace_schema_metadata(metadata), path)


def test_a_file_rewritten_to_cover_less_than_its_head_says_is_a_gap(sink):
    path = files(sink)[2]
    part = {"first": 21, "last": 25, "received": 5, "written": 5, "sampled_out": 0}
    relabelled(path, {"p1": [part]}, 5)
    (problem,) = judged(sink).problems
    assert problem == Problem(
        kind="gap", producer="p1", first=26, last=30, file=relative(sink, path)
    )


def test_written_events_relabelled_as_sampled_out_contradict_the_head(sink):
    path = files(sink)[2]
    part = {"first": 21, "last": 30, "received": 10, "written": 5, "sampled_out": 5}
    relabelled(path, {"p1": [part]}, 5)
    (problem,) = judged(sink).problems
    assert (problem.kind, problem.first, problem.last) == ("gap", 21, 30)


def test_a_file_that_covers_more_than_its_head_says_is_a_duplicate(sink):
    (head,) = (sink / "ledger").glob("*.json")
    content = json.loads(head.read_text())
    content["files"][2]["coverage"]["p1"][0].update(last=28, received=8, written=8)
    head.write_text(json.dumps(content))
    (problem,) = judged(sink).problems
    assert (problem.kind, problem.first, problem.last) == ("duplicate", 29, 30)


def test_a_file_that_no_head_lists_yet_is_fine(sink):
    (head,) = (sink / "ledger").glob("*.json")
    content = json.loads(head.read_text())
    content["files"] = content["files"][:1]
    head.write_text(json.dumps(content))
    assert judged(sink).ok


def test_a_broken_head_is_named(sink):
    (head,) = (sink / "ledger").glob("*.json")
    head.write_text("{")
    (problem,) = judged(sink).problems
    assert (problem.kind, problem.file) == ("unreadable", relative(sink, head))


def test_sampling_leaves_no_hole(tmp_path):
    agent = Agent(tmp_path, sampling=SamplingSettings(rates={"champion": 0.3}))
    agent.take(delivery(1, 100))
    agent.drain()
    agent.die()
    verdict = judged(tmp_path / "sink")
    assert verdict.ok
    assert verdict.written + verdict.sampled_out == verdict.received == 100


def test_a_sink_that_is_not_there_is_no_good_log(tmp_path):
    with pytest.raises(SinkUnavailable, match="cannot list"):
        judged(tmp_path / "nowhere")
