"""When the disk is forced: before an acknowledgement, every interval, or not at all."""

import asyncio
import os
from pathlib import Path

import pytest

from monitoring.agent.service import MonitoringService
from monitoring.agent.settings import AgentSettings, SinkSettings, SpoolSettings
from monitoring.errors import SinkUnavailable
from tests.monitoring.agent.conftest import Agent, delivery


class Disk:
    """Notes what is forced, beside the real calls; fails as often as it is told to."""

    def __init__(self, monkeypatch):
        self.forced = []
        self.failures = 0
        for name in ("fdatasync", "fsync"):
            monkeypatch.setattr(os, name, self._noted(getattr(os, name)))

    def _noted(self, real):
        def force(descriptor):
            if self.failures:
                self.failures -= 1
                raise OSError(5, "Input/output error")
            real(descriptor)
            self.forced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)

        return force


@pytest.fixture
def disk(monkeypatch):
    return Disk(monkeypatch)


def with_fsync(tmp_path, mode):
    return Agent(tmp_path, spool_settings=SpoolSettings(fsync=mode))


def test_always_forces_rows_and_the_files_name_before_it_acknowledges(tmp_path, disk):
    agent = with_fsync(tmp_path, "always")
    assert "0" in disk.forced  # the shard's folder, which names the epoch
    disk.forced.clear()
    agent.take(delivery(1, 2))
    assert disk.forced == ["e1-000000.spool", "e1"]
    agent.take(delivery(3, 4))
    assert disk.forced[2:] == ["e1-000000.spool"]
    agent.take(delivery(3, 4))  # nothing new
    assert len(disk.forced) == 3
    agent.die()


def test_always_does_not_acknowledge_what_could_not_be_forced(tmp_path, disk):
    agent = with_fsync(tmp_path, "always")
    for _ in range(2):
        disk.failures = 1
        with pytest.raises(SinkUnavailable):
            agent.take(delivery(1, 2))
    assert agent.take(delivery(1, 2)).through == 2
    assert "e1-000000.spool" in disk.forced
    agent.drain()
    assert agent.uploader.counts.rows == 2
    agent.die()


@pytest.mark.parametrize("mode", ["interval", "never"])
def test_the_others_do_not_wait_for_the_disk(tmp_path, disk, mode):
    agent = with_fsync(tmp_path, mode)
    disk.forced.clear()
    agent.take(delivery(1, 2))
    assert disk.forced == []
    agent.die()


def test_a_segment_without_room_for_its_seal_is_forced_all_the_same(tmp_path, disk, monkeypatch):
    agent = with_fsync(tmp_path, "interval")
    agent.take(delivery(1, 2))
    disk.forced.clear()

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "writev", full)
        agent.spool.seal_everything(agent.now_s)
    assert "e1-000000.spool" in disk.forced
    agent.drain()
    assert agent.uploader.counts.rows == 2
    agent.die()


@pytest.mark.parametrize("mode", ["interval", "never"])
async def test_a_living_agent_forces_every_interval_or_never(tmp_path, mode):
    settings = AgentSettings(
        policy_ids=("policy",),
        state_dir=str(tmp_path / "state"),
        sink=SinkSettings(url=str(tmp_path / "sink")),
        spool=SpoolSettings(fsync=mode, fsync_interval_s=0.01),
    )
    service = MonitoringService(settings)
    loop, chores = asyncio.get_running_loop(), {"sync": asyncio.Event(), "adopt": asyncio.Event()}
    service.spool.sync = lambda: loop.call_soon_threadsafe(chores["sync"].set)
    service.spool.adopt = lambda _: loop.call_soon_threadsafe(chores["adopt"].set)
    await asyncio.wait_for(chores["adopt"].wait(), 10)  # the first round does both
    assert chores["sync"].is_set() is (mode == "interval")
    await service.stop()
