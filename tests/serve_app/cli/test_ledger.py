import json

import pytest

from tests.monitoring.agent.conftest import Agent, delivery


@pytest.fixture
def sink(tmp_path):
    agent = Agent(tmp_path)
    for first in (1, 11):
        agent.take(delivery(first, first + 9))
        agent.drain()
    agent.die()
    return tmp_path / "sink"


def test_a_whole_log_is_good(treeline, sink):
    code, out, _ = treeline("ledger", "verify", sink, "--json")
    assert code == 0
    assert json.loads(out)["problems"] == []


def test_a_gap_is_a_finding(treeline, sink):
    min(sink.rglob("*.parquet")).unlink()
    code, out, _ = treeline("ledger", "verify", sink, "--json", "--quick")
    assert code == 1
    assert json.loads(out)["problems"][0].keys() == {"kind", "producer", "first", "last", "file"}
    _, out, _ = treeline("ledger", "verify", sink)
    assert "gap: producer p1, 1 to 10" in out


def test_a_sink_that_is_not_there_is_misuse(treeline, tmp_path):
    code, _, err = treeline("ledger", "verify", tmp_path / "nowhere")
    assert code == 2
    assert "cannot list" in err
