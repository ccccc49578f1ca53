"""The agent and the real process that counts for it."""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import pyarrow.parquet as pq
import pytest

from monitoring.agent.health import Kind
from monitoring.agent.settings import AgentSettings, LiveSettings, SinkSettings
from monitoring.live.client import LiveClient, start_process
from monitoring.live.errors import LiveUnavailable, TimedOut
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


def client_of(agent: Agent, start=start_process, **timeouts: float) -> LiveClient:
    live = LiveSettings(
        models=SinkSettings(url=str(agent.folder / "models")), interval_s=0.1, drift_window_s=60
    )
    settings = msgspec.structs.replace(agent.settings, live=live)
    return LiveClient(settings, agent.spool, start, **timeouts)


def view_when(client: LiveClient, good, what: str = "windows") -> LiveView:
    """Ask until the answer is good; what is shown is what was committed."""
    end_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            answer = asyncio.run(client.show(Question(what=what, level_s=86_400)))
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
    os.kill(client._link.pid, signal.SIGKILL)
    agent.take(delivery(41, 60, events=fresh))
    view_when(client, lambda view: sum(s.events for s in view.streams) == 60)
    link = client._link
    client.stop()
    assert not link.alive
    with pytest.raises(LiveUnavailable):
        asyncio.run(client.show(Question(what="windows")))


def test_rows_are_counted_though_the_agents_health_cannot_be_told(agent: Agent) -> None:
    """A folder of dead letters that the disk will not list, say; it is alerted about."""
    bundle(agent.folder / "models")
    agent.take(delivery(1, 40))
    client = client_of(agent)

    def unwell() -> dict[Kind, str]:
        raise OSError("dead letters cannot be listed")

    client.watch(unwell)
    agent.take(delivery(41, 60))
    view_when(client, lambda view: sum(s.events for s in view.streams) == 60)
    view = view_when(client, lambda view: bool(view.alerts), what="alerts")
    client.stop()
    assert ["cannot be listed" in alert.text for alert in view.alerts] == [True]


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


class Silent:
    """Starts processes that read nothing and answer nothing, then real ones."""

    def __init__(self, hanging: int) -> None:
        self.hanging = hanging
        self.started: list[subprocess.Popen[bytes]] = []

    def __call__(self) -> "subprocess.Popen[bytes]":
        if len(self.started) >= self.hanging:
            self.started.append(start_process())
        else:
            self.started.append(
                subprocess.Popen(
                    ["/bin/sleep", "1000"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
                )
            )
        return self.started[-1]


def test_a_process_that_hangs_is_killed_and_the_next_one_counts(agent: Agent) -> None:
    bundle(agent.folder / "models")
    agent.take(delivery(1, 40))
    silent = Silent(hanging=1)
    client = client_of(agent, silent, count_timeout_s=0.3)
    end_s = time.monotonic() + PATIENCE_S
    while len(silent.started) < 2:
        assert time.monotonic() < end_s
        time.sleep(0.02)
    assert silent.started[0].wait(5.0) == -signal.SIGKILL
    client.stop()


def test_nobody_waits_for_a_process_that_reads_no_more(agent: Agent) -> None:
    """Calls far beyond what a pipe holds come back in time, and uploads wait once for all."""
    silent = Silent(hanging=1_000)
    client = client_of(agent, silent, count_timeout_s=100.0, finish_timeout_s=0.2)
    client._up.wait(PATIENCE_S)
    large = Question(what="windows", model="x" * 200_000)
    agent.take(delivery(1, 5))
    agent.spool.seal_everything(agent.now_s)
    segment = agent.spool.next_sealed()
    started_s = time.monotonic()
    link = client._link
    for _ in range(2):
        with pytest.raises(TimedOut):
            link.call("show", msgspec.msgpack.encode(large), 0.1)
    for _ in range(20):
        with pytest.raises(LiveUnavailable):
            client.finish(segment)
    assert time.monotonic() - started_s < 3.0
    client.stop()
    assert silent.started[-1].poll() is not None


def test_a_start_is_cheap() -> None:
    """What takes a second of CPU to import is left until it is needed, or out."""
    script = (
        "import sys, monitoring.live.process as process\n"
        "from pathlib import Path\n"
        "process.serve = lambda live, *_: live._expectations.of('credit', '1.0.0')\n"
        "process.os._exit = lambda _: print([m for m in ('scipy.stats', 'pandas.core') "
        "if m in sys.modules])\n"
        "process.main()\n"
    )
    with tempfile.TemporaryDirectory() as name:
        bundle(Path(name))
        settings = AgentSettings(
            policy_ids=("p",), state_dir=name, live=LiveSettings(models=SinkSettings(url=name))
        )
        body = msgspec.msgpack.encode(msgspec.msgpack.encode(settings))
        done = subprocess.run(
            [sys.executable, "-c", script],
            input=len(body).to_bytes(4, "little") + body,
            stdout=subprocess.PIPE,
            check=True,
        )
    assert done.stdout.decode().strip().endswith("[]")
