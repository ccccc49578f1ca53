"""Threads and callers: nobody waits for storage, and cancelled callers harm nobody."""

import asyncio
import logging
import random

import msgspec
import pytest

from monitoring.agent.fleet import merge
from monitoring.agent.service import MonitoringService, new_epoch
from monitoring.agent.settings import (
    AgentSettings,
    RetrySettings,
    SamplingSettings,
    SinkSettings,
    SpoolSettings,
    agent_settings,
)
from monitoring.agent.verify import verify
from monitoring.errors import DeliveryRejected, SinkUnavailable
from monitoring.events import ReplicaReport
from tests.monitoring.agent.conftest import T0_US, delivery, stored_events
from tests.monitoring.agent.test_metrics import report


class SwitchableSink:
    """Away until told otherwise; then it stores what the real one stores."""

    def __init__(self, real):
        self.real = real
        self.away = True

    def put(self, key, data):
        if self.away:
            raise SinkUnavailable("cannot write to s3://bucket/log at http://127.0.0.1:1: refused")
        self.real.put(key, data)


@pytest.fixture
def made(tmp_path):
    """Builds services on one folder; retries at once, so that no test waits."""
    services = []

    def make(**options):
        settings = AgentSettings(
            policy_ids=("policy",),
            state_dir=str(tmp_path / "state"),
            sink=SinkSettings(url=str(tmp_path / "sink")),
            retry=RetrySettings(first_s=0.001, last_s=0.002),
            **{"spool": SpoolSettings(fsync_interval_s=0.01), **options.pop("settings", {})},
        )
        service = MonitoringService(settings, clock=lambda: T0_US / 1e6, **options)
        services.append(service)
        return service

    yield make
    for service in services:
        if not service._stop.is_set():
            asyncio.run(service.stop())


async def test_concurrent_deliveries_end_on_storage(made, tmp_path):
    service = made()
    payloads = [delivery(first, first + 4) for first in range(1, 200, 5)]
    acks = await asyncio.gather(*(service.ingest(p) for p in payloads))
    assert max(ack.through for ack in acks) == 200
    pending = await service.flush()
    assert (pending.events, pending.segments, pending.error) == (0, 0, None)
    assert len(stored_events(tmp_path)) == 200
    assert verify(SinkSettings(url=str(tmp_path / "sink"))).ok


async def test_storage_away_keeps_everything_and_says_so_once(made, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="monitoring")
    from monitoring.agent.sink import FsspecSink

    sink = SwitchableSink(FsspecSink(SinkSettings(url=str(tmp_path / "sink"))))
    service = made(sink=sink)
    assert (await service.ingest(delivery(1, 5))).through == 5
    pending = await service.flush(timeout_s=0.05)
    assert (pending.events, pending.segments) == (5, 1)
    assert "refused" in pending.error
    health = service.health()
    assert health.ok
    assert "refused" in health.sink.last_error
    assert (health.sink.failing_since_s, health.sink.last_success_s) == (T0_US / 1e6, None)
    assert any("storage fails for 0 s" in warning for warning in health.warnings)
    assert (await service.ledger()).producers["p1"].pending == 5
    sink.away = False
    assert (await service.flush()).events == 0
    health = service.health()
    assert (health.ok, health.warnings) == (True, ())
    assert (health.sink.failing_since_s, health.sink.last_error) == (None, None)
    assert health.sink.last_success_s == T0_US / 1e6
    assert (health.spool.segments, health.spool.foreign_epochs) == (0, 0)
    ledger = (await service.ledger()).producers["p1"]
    assert (ledger.received, ledger.written, ledger.pending) == (5, 5, 0)
    errors = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert len(errors) == 1
    assert "s3://bucket/log at http://127.0.0.1:1" in errors[0].getMessage()


async def test_a_refused_delivery_does_not_stop_the_others(made):
    service = made()
    answers = await asyncio.gather(
        service.ingest(b"noise"), service.ingest(delivery(1, 2)), return_exceptions=True
    )
    assert isinstance(answers[0], DeliveryRejected)
    assert answers[1].through == 2


async def test_a_cancelled_caller_harms_nobody(made):
    service = made()
    gone = asyncio.create_task(service.ingest(delivery(1, 2)))
    await asyncio.sleep(0)
    gone.cancel()
    assert (await service.ingest(delivery(1, 4))).through == 4
    assert await asyncio.gather(gone, return_exceptions=True)
    assert service._waiting_bytes == 0


async def test_waiting_bytes_are_bounded_and_an_oversize_delivery_still_fits(made):
    payload = delivery(1, 2)
    spool = SpoolSettings(max_waiting_bytes=len(payload) // 2)
    service = made(settings={"spool": spool})
    acks = await asyncio.gather(*(service.ingest(delivery(1, 2)) for _ in range(20)))
    assert {ack.through for ack in acks} == {2}


async def test_a_stopped_agent_leaves_its_spool_to_the_next(made, tmp_path):
    first = made()
    await first.ingest(delivery(1, 5))
    await first.stop()
    with pytest.raises(SinkUnavailable, match="stopping"):
        await first.ingest(delivery(6, 7))
    second = made()
    assert (await second.ingest(delivery(4, 8))).through == 8
    await second.flush()
    assert len(stored_events(tmp_path)) == 8


async def test_always_fsync_and_never_fsync_take_the_same(made, tmp_path):
    for mode, first in (("always", 1), ("never", 6)):
        service = made(settings={"spool": SpoolSettings(fsync=mode)})
        await service.ingest(delivery(first, first + 4))
        await service.flush()
        await service.stop()
    assert len(stored_events(tmp_path)) == 10


async def test_metrics_reports_and_counts_fit_together(made):
    service = made()
    await service.report(
        msgspec.msgpack.encode(ReplicaReport(replica="r", variants=(), captures=()))
    )
    service.configure(SamplingSettings(rates={"champion": 0.0}))
    await service.ingest(delivery(1, 5, dropped={2: "too_large"}))
    await service.ingest(delivery(1, 5, dropped={2: "too_large"}))
    text = (await service.metrics()).decode()
    assert "treeline_replicas 1.0" in text
    assert "treeline_sampled_out_events_total 4.0" in text
    assert "treeline_agent_received_events_total 5.0" in text
    both = merge([await service.counts(), await service.counts()])
    assert (both.received_events, both.sampled_out_events, both.repeated_events) == (10, 8, 8)


async def test_counters_do_not_fall_when_the_agent_dies(made, tmp_path):
    first = made()
    for replica in ("dead", "living"):
        await first.report(msgspec.msgpack.encode(report(replica, ok=3)))
    await first.ingest(delivery(1, 5))
    await first.ingest(delivery(1, 5))
    await first.flush()
    before = await first.counts()
    await first.stop()
    second = made()
    # When the last upload was is a matter of one life.
    assert await second.counts() == msgspec.structs.replace(before, sink_last_success_s=0.0)
    assert (before.deliveries, before.repeated_events, before.sink_files) == (2, 5, 1)
    await second.report(msgspec.msgpack.encode(report("living", ok=4)))
    await second.ingest(delivery(6, 7))
    await second.stop()
    after = await made().counts()
    (variant,) = after.fleet.variants.values()
    assert variant.requests == {200: 7, 500: 2}
    assert (after.deliveries, after.received_events) == (3, 7)
    path = tmp_path / "state" / "spool" / "0" / "counts.msgpack"
    assert path.stat().st_mode & 0o777 == 0o600


async def test_a_flush_keeps_last_words_though_the_agent_is_killed_after_it(made):
    killed = made()
    said = msgspec.structs.replace(report("r", ok=3), node="before", journals=("r-p",))
    await killed.report(msgspec.msgpack.encode(said))
    await killed.counts()  # stores the report
    await killed.report(msgspec.msgpack.encode(msgspec.structs.replace(said, closed=True)))
    await killed.flush()
    successor = made()
    assert [r.closed for _, r in successor._fleet.reports()] == [True]
    successor.nodes.poll(["after"])
    assert successor.nodes.health() == []


async def test_agents_side_by_side_add_their_counters_up(made):
    old, new = made(), made()
    await old.ingest(delivery(1, 2, producer="p1"))
    await new.ingest(delivery(1, 3, producer="p2"))
    await old.report(msgspec.msgpack.encode(report("r1", ok=3)))
    assert (await old.counts()).received_events == 2
    counts = await new.counts()
    assert (counts.received_events, counts.fleet.replicas) == (5, 1)
    assert (await old.counts()).received_events == 5


async def test_counters_that_cannot_be_read_start_again(made, tmp_path, caplog):
    folder = tmp_path / "state" / "spool" / "0"
    folder.mkdir(parents=True)
    (folder / "counts.msgpack").write_bytes(b"noise")
    assert (await made().counts()).deliveries == 0
    assert (folder / "counts.unreadable").exists()
    assert "start again" in caplog.text


def test_options_are_plain_and_checked(tmp_path):
    settings = agent_settings(
        {"policy_ids": ["p"], "sink": {"url": "s3://b/log", "key": "AKIA", "secret": "hush"}}
    )
    assert "hush" not in repr(settings)
    assert "AKIA" not in repr(settings)
    with pytest.raises(msgspec.ValidationError, match="unknown field `sinks`"):
        agent_settings({"policy_ids": [], "sinks": {}})
    with pytest.raises(msgspec.ValidationError, match="letters and digits"):
        agent_settings({"policy_ids": [], "shard": "../0"})


def test_epochs_sort_by_time_and_differ():
    chance = random.Random(1)
    names = [new_epoch(now, chance) for now in (1.0, 1.0, 1e9, 2e9)]
    assert names == sorted(names, key=lambda n: n[:11])
    assert len(set(names)) == 4


async def test_a_chore_that_fails_in_any_way_is_tried_again_and_told(made, caplog):
    service = made()
    failures = [ValueError("a defect"), OSError("a disk")]
    done = asyncio.Event()
    loop = asyncio.get_running_loop()

    def sync():
        if failures:
            raise failures[0]
        loop.call_soon_threadsafe(done.set)

    service.spool.sync = sync
    for _ in range(2):
        async with asyncio.timeout(10):
            while str(failures[0]) not in "".join(service.health().warnings):
                await asyncio.sleep(0.01)
        failures.pop(0)
    await asyncio.wait_for(done.wait(), 10)
    assert (await service.ingest(delivery(1, 5))).through == 5
    assert caplog.text.count("a defect") == 1  # not a line every tenth of a second
