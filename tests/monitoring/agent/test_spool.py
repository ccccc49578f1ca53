"""When a segment is sealed, and in which order segments leave."""

import msgspec

from monitoring.agent.settings import SpoolSettings
from tests.monitoring.agent.conftest import STREAM, T0_US, Agent, delivery, rows_of

HOUR_S = 3600


def at(ts_us):
    return lambda seq: rows_of(seq, ts_us=ts_us)


def test_age_seals(tmp_path):
    agent = Agent(tmp_path, spool_settings=SpoolSettings(max_age_s=30))
    agent.take(delivery(1, 2))
    assert agent.spool.seal_due(agent.now_s + 29) == 0
    assert agent.spool.seal_due(agent.now_s + 30) == 1
    agent.die()


def test_a_clock_that_steps_back_does_not_keep_a_segment_for_hours(tmp_path):
    agent = Agent(tmp_path, spool_settings=SpoolSettings(max_age_s=30))
    agent.now_s += 3 * HOUR_S
    agent.take(delivery(1, 2))
    agent.now_s -= 3 * HOUR_S
    assert agent.spool.seal_due(agent.now_s) == 1
    agent.take(delivery(3, 4))
    assert agent.spool.seal_due(agent.now_s) == 0
    agent.die()


def test_an_hour_that_ended_and_went_quiet_seals(tmp_path):
    settings = SpoolSettings(max_age_s=7200, hour_grace_s=20)
    agent = Agent(tmp_path, spool_settings=settings)
    agent.take(delivery(1, 2))
    ends_s = (agent.now_s // HOUR_S + 1) * HOUR_S
    assert agent.spool.seal_due(ends_s + 19) == 0
    assert agent.spool.seal_due(ends_s + 20) == 1
    agent.die()


def test_a_late_hour_is_not_cut_into_a_file_per_delivery(tmp_path):
    settings = SpoolSettings(max_age_s=7200, hour_grace_s=20)
    agent = Agent(tmp_path, spool_settings=settings)
    yesterday = at(T0_US - 86_400_000_000)
    for number in range(1, 6):
        agent.take(delivery(number, number, events=yesterday))
        agent.now_s += 10
        assert agent.spool.seal_due(agent.now_s) == 0
    assert agent.spool.seal_due(agent.now_s + 10) == 1
    agent.die()


def test_size_seals_and_the_next_aims_by_the_ratio_found(tmp_path):
    agent = Agent(tmp_path, spool_settings=SpoolSettings(file_bytes=5000))
    numbers = iter(range(1, 500))
    while agent.spool.state().sealed_segments == 0:
        agent.take(delivery(n := next(numbers), n))
    assert agent.spool.state().bytes >= 10_000
    agent.spool.learn_ratio(1000, 1000)
    agent.take(delivery(n := next(numbers), n))
    while agent.spool.state().open_segments:
        agent.take(delivery(n := next(numbers), n))
    assert agent.spool.state().bytes < 20_000
    agent.die()


def test_an_older_hour_of_the_same_stream_leaves_first(tmp_path):
    agent = Agent(tmp_path, spool_settings=SpoolSettings(max_age_s=30))
    agent.take(delivery(1, 2))
    agent.take(delivery(3, 4, events=at(T0_US + HOUR_S * 1_000_000)))
    other = msgspec.structs.replace(STREAM, variant="shadow")
    agent.now_s += 20
    agent.take(delivery(1, 1, producer="p2", stream=other))
    assert agent.spool.seal_due(agent.now_s + 10) == 2
    assert agent.spool.next_sealed().account["p1"].written == 2
    assert agent.spool.next_sealed().name.endswith("000000")
    agent.die()


def test_open_segments_are_bounded(tmp_path):
    agent = Agent(tmp_path, spool_settings=SpoolSettings(max_open_segments=3))
    for number in range(1, 8):
        agent.take(delivery(number, number, events=at(T0_US - number * 3_600_000_000)))
    state = agent.spool.state()
    assert (state.open_segments, state.sealed_segments) == (3, 4)
    agent.die()


def test_producers_long_gone_are_forgotten_but_stay_in_the_sum(tmp_path):
    agent = Agent(tmp_path, spool_settings=SpoolSettings(producer_retention_s=60))
    agent.take(delivery(1, 5))
    agent.drain()
    agent.now_s += 61
    agent.take(delivery(1, 3, producer="p2"))
    agent.drain()
    settled, _, retired = agent.spool.accounts()
    assert (set(settled), retired.written) == ({"p2"}, 5)
    agent.die()
