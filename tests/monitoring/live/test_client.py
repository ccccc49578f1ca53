"""The agent and the real process that counts for it."""

import asyncio
import os
import signal
import time
from pathlib import Path

import msgspec
import pyarrow.parquet as pq
import pytest

from monitoring.agent.settings import LiveSettings, SinkSettings
from monitoring.live.client import LiveClient
from monitoring.live.errors import LiveUnavailable
from monitoring.live.figures import WindowFigures
from monitoring.live.views import LiveView, StreamView, WindowView, merged, windows_json
from monitoring.live.wire import Question
from tests.monitoring.agent.conftest import Agent, delivery
from tests.monitoring.live.worlds import training

PATIENCE_S = 60.0


def bundle(root: Path) -> None:
    folder = root / "credit" / "1.0.0"
    folder.mkdir(parents=True)
    features = [{"name": "age", "min": 0.0, "max": 80.0}, {"name": "job", "nullable": True}]
    (folder / "manifest.json").write_bytes(msgspec.json.encode({"features": features}))
    pq.write_table(training(), folder / "baseline.parquet")


@pytest.fixture
def agent(tmp_path: Path):
    made = Agent(tmp_path, now_s=time.time(), keep_aside=True)
    yield made
    made.die()


def client_of(agent: Agent) -> LiveClient:
    live = LiveSettings(
        models=SinkSettings(url=str(agent.folder / "models")), interval_s=0.1, drift_window_s=60
    )
    return LiveClient(msgspec.structs.replace(agent.settings, live=live), agent.spool)


def view_when(client: LiveClient, good) -> LiveView:
    """Ask until the answer is good; what is shown is what was committed."""
    end_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            answer = asyncio.run(client.show(Question(what="windows", level_s=86_400)))
            view = msgspec.msgpack.decode(answer, type=LiveView)
            if good(view):
                return view
        except LiveUnavailable:
            pass
        assert time.monotonic() < end_s
        time.sleep(0.05)


def test_the_process_counts_dies_comes_back_and_counts_on(agent: Agent) -> None:
    bundle(agent.folder / "models")
    now_us = int(agent.now_s * 1e6)

    def fresh(seq):
        from tests.monitoring.agent.conftest import rows_of

        return rows_of(seq, ts_us=now_us)

    agent.take(delivery(1, 40, events=fresh))
    client = client_of(agent)
    view = view_when(client, lambda view: sum(s.events for s in view.streams) == 40)
    assert [(w.figures.events, w.compared_rows) for w in view.windows] == [(40, 40)]
    assert view.streams[0].baseline is None
    os.kill(client._process.pid, signal.SIGKILL)
    agent.take(delivery(41, 60, events=fresh))
    view_when(client, lambda view: sum(s.events for s in view.streams) == 60)
    process = client._process
    client.stop()
    assert process.poll() is not None
    with pytest.raises(LiveUnavailable):
        asyncio.run(client.show(Question(what="windows")))


def test_agents_on_one_folder_are_not_added_up_and_on_two_are() -> None:
    def view(store: str) -> LiveView:
        window = WindowView("m", "1", "champion", 60, 0, WindowFigures(events=2, rows=3), 3)
        stream = StreamView("m", "1", "champion", 2, 3, 0, 0, None)
        return LiveView(store=store, counted_at_s=1.0, streams=[stream], windows=[window])

    same = merged([view("a"), view("a")])
    assert (same.streams[0].events, same.windows[0].figures.rows) == (2, 3)
    both = merged([view("a"), view("b")])
    assert (both.streams[0].events, both.windows[0].figures.rows) == (4, 6)
    shown = windows_json(both)["windows"][0]
    assert (shown["compared_rows"], shown["figures"]["events"]) == (6, 4)
