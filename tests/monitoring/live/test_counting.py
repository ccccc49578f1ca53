"""Every received row counts once in the live windows, wherever a process dies."""

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from monitoring.agent.aside import PREFIX
from monitoring.agent.settings import SamplingSettings
from monitoring.live.errors import CountedElsewhere
from monitoring.live.store import DAY_S, HOUR_S, MINUTE_S
from monitoring.live.window import LiveWindow
from tests.monitoring.agent.conftest import STREAM, T0_US, delivery, memory_folder, rows_of
from tests.monitoring.agent.test_crashes import Crash, ScriptedSink
from tests.monitoring.live.worlds import DRIFT_WINDOW_S, KEY, UNKNOWN, World

HALF = SamplingSettings(rates={"champion": 0.5})
NONE = SamplingSettings(rates={"champion": 0.0})


@pytest.fixture
def world(tmp_path: Path):
    made = World(tmp_path, sampling=HALF)
    yield made
    made.die()


def test_sampled_out_rows_count_and_their_file_goes(world):
    world.agent.take(delivery(1, 200))
    assert 0 < world.agent.intake.counts.sampled_out < 200
    assert list(world.agent.spool._epochs.own.glob(f"{PREFIX}*"))
    assert world.count() == 200
    assert not list(world.agent.spool._epochs.own.glob(f"{PREFIX}*"))
    assert world.count() == 0
    assert world.store.totals(KEY).events == 200


def test_a_windows_figures_say_what_happened(tmp_path):
    world = World(tmp_path, sampling=NONE)
    rows = {
        1: rows_of(1, rows=2),
        2: rows_of(2, status=500),
        3: [{**row, "x_age": 99.0, "x_job": "baker"} for row in rows_of(3, score=0.31)],
        4: [{**row, "x_age": None} for row in rows_of(4)],
    }
    world.agent.take(delivery(1, 4, events=rows.__getitem__))
    world.count()
    ((start_s, window),) = world.store.windows(KEY, MINUTE_S)
    figures = window.figures
    assert start_s == T0_US // 60_000_000 * 60
    assert (figures.events, figures.rows) == (4, 4)
    assert figures.statuses == {200: 3, 500: 1}
    assert (sum(figures.latency), figures.latency[4], figures.latency_us) == (4, 4, 6_000)
    assert figures.labels == {"good": 4}
    assert figures.scores == {45: 3, 15: 1}
    age, job = figures.features["age"], figures.features["job"]
    assert (age.missing, age.outside, job.unseen) == (1, 1, 1)
    world.die()


def test_every_level_holds_every_row_until_it_is_too_old(world):
    def spread(seq):
        return rows_of(seq, ts_us=T0_US - seq * 20_000_000)

    world.agent.take(delivery(1, 90, events=spread))  # half an hour back
    old = T0_US - 4 * HOUR_S * 1_000_000
    world.agent.take(delivery(91, 92, events=lambda seq: rows_of(seq, ts_us=old)))
    ancient = T0_US - 70 * DAY_S * 1_000_000
    world.agent.take(delivery(93, 95, events=lambda seq: rows_of(seq, ts_us=ancient)))
    world.count()
    events = {
        level: sum(w.figures.events for _, w in world.store.windows(KEY, level))
        for level in (DRIFT_WINDOW_S, MINUTE_S, HOUR_S, DAY_S)
    }
    assert events == {DRIFT_WINDOW_S: 90, MINUTE_S: 90, HOUR_S: 92, DAY_S: 92}
    totals = world.store.totals(KEY)
    assert (totals.events, totals.too_old_events) == (95, 3)
    world.agent.now_s += 2.9 * HOUR_S
    world.counting.forget([])
    minutes = world.store.windows(KEY, MINUTE_S)
    assert 0 < len(minutes) < 30
    assert world.store.windows(KEY, DRIFT_WINDOW_S) == []


def test_an_hour_is_the_sum_of_its_minutes_to_the_byte(world):
    world.agent.take(delivery(1, 60, events=lambda s: rows_of(s, ts_us=T0_US + s * 7_000_000)))
    world.count()
    layout = world.expected.profile.layout
    ((start_s, hour),) = world.store.windows(KEY, HOUR_S, layout=layout)
    for step in (1, -1):
        total = LiveWindow()
        minutes = world.store.windows(KEY, MINUTE_S, start_s=start_s, layout=layout)
        for _, minute in minutes[::step]:
            total.merge(minute)
        assert len(minutes) > 5
        assert total.to_bytes() == hour.to_bytes()


def test_without_a_baseline_figures_are_kept_and_nothing_is_compared(tmp_path):
    world = World(tmp_path, expected=UNKNOWN)
    world.agent.take(delivery(1, 5))
    world.count()
    ((_, window),) = world.store.windows(KEY, DAY_S)
    assert (window.figures.rows, window.summary) == (5, None)
    world.die()


def test_rows_that_do_not_fit_the_baseline_are_counted_and_complained_about(tmp_path):
    other = STREAM.features[:1]
    stream = type(STREAM)(
        **{f: getattr(STREAM, f) for f in STREAM.__struct_fields__} | {"features": other}
    )
    world = World(tmp_path)
    world.agent.take(delivery(1, 5, stream=stream))
    world.count()
    assert world.store.totals(KEY).events == 5
    assert "x_job" in world.counting.complaint(KEY)
    world.die()


def test_past_its_bound_sampled_out_rows_are_missed_and_said_so(tmp_path):
    world = World(tmp_path, sampling=NONE)
    world.agent.spool._aside._max_bytes = 20_000
    for start in range(1, 1_000, 100):
        world.agent.take(delivery(start, start + 99))
    world.count()
    totals = world.store.totals(KEY)
    assert totals.missed_events > 0
    assert totals.events > 0
    assert totals.events + totals.missed_events == 1_000
    world.die()


def test_a_broken_frame_is_missed_not_counted_as_something_else(world):
    world.agent.sampling = None
    world.agent.intake.sampling = SamplingSettings()
    world.agent.take(delivery(1, 3))
    world.agent.take(delivery(4, 5))
    ((path, size),) = world.agent.spool.contents().segments
    data = bytearray(path.read_bytes())
    data[-20] ^= 0xFF
    path.write_bytes(data)
    world.counting.count([(path, size)])
    totals = world.store.totals(KEY)
    assert (totals.events, totals.missed_events) == (3, 2)


def test_an_uploaded_segment_was_counted_first(world):
    world.agent.take(delivery(1, 50))
    world.agent.drain()
    assert world.store.totals(KEY).events == 50


def test_counting_that_fails_does_not_stop_the_log(world, monkeypatch):
    world.agent.take(delivery(1, 50))
    world.store.close()
    world.agent.drain()
    assert world.agent.spool.state().bytes == 0
    world.start_counting()


class CountingMachine(RuleBasedStateMachine):
    """Agents and what counts for them die and live side by side; deliveries come again."""

    def __init__(self) -> None:
        super().__init__()
        self._temporary = memory_folder()
        self.folder = Path(self._temporary.name)
        self.sink = ScriptedSink(self.folder)
        self.lives = 0
        self.last = {"0": 0, "1": 0}  # a producer belongs to one shard
        self.now_s = T0_US / 1e6
        self.worlds = [self.new_world()]

    def new_world(self, shard: str = "0") -> World:
        self.lives += 1
        made = World(
            self.folder,
            epoch=f"e{self.lives:03d}",
            shard=shard,
            sink=self.sink,
            sampling=HALF,
            expected=UNKNOWN,  # ten times faster
        )
        made.agent.now_s = self.now_s
        return made

    def some(self, index: int) -> World:
        return self.worlds[index % len(self.worlds)]

    @rule(index=st.integers(0, 5), events=st.integers(1, 30), again=st.integers(0, 30))
    def deliver(self, index: int, events: int, again: int) -> None:
        world = self.some(index)
        shard = world.shard
        first = max(1, self.last[shard] + 1 - again)
        last = self.last[shard] + events
        world.agent.take(
            delivery(
                first,
                last,
                producer=f"p{shard}",
                events=lambda s: rows_of(s, ts_us=T0_US + s * 1_500_000),
            )
        )
        self.last[shard] = last

    @rule(index=st.integers(0, 5))
    def count(self, index: int) -> None:
        self.some(index).count()

    @rule(index=st.integers(0, 5), committed=st.booleans())
    def die_while_counting(self, index: int, committed: bool) -> None:
        world = self.some(index)
        add = world.store.add

        def dying(*args, **kwargs):
            if committed:
                add(*args, **kwargs)
            raise Crash

        world.store.add = dying
        try:
            world.count()
        except Crash:
            self.replace(world)
        else:
            del world.store.add

    @rule(index=st.integers(0, 5))
    def counting_process_dies_alone(self, index: int) -> None:
        world = self.some(index)
        world.store.close()
        world.start_counting()

    @rule(
        index=st.integers(0, 5),
        script=st.lists(st.sampled_from(["store", "crash before", "crash after"]), max_size=4),
    )
    def upload(self, index: int, script: list[str]) -> None:
        world = self.some(index)
        self.sink.script = list(script)
        try:
            world.agent.drain()
        except Crash:
            self.replace(world)
        self.sink.script = []

    @rule(index=st.integers(0, 5))
    def a_stale_counter_comes_late(self, index: int) -> None:
        """An orphan has read a segment and commits after its successor has."""
        world = self.some(index)
        orphan = World.__new__(World)
        orphan.folder, orphan.agent, orphan.expected = world.folder, world.agent, world.expected
        orphan.start_counting()
        segments = list(world.agent.spool.contents().segments)
        add = orphan.store.add

        def late(*args, **kwargs):
            world.counting.count(segments)
            add(*args, **kwargs)

        orphan.store.add = late
        with suppress(CountedElsewhere):
            orphan.counting.count(segments)
        orphan.store.close()

    @precondition(lambda self: len(self.worlds) < 3)
    @rule(shard=st.sampled_from("01"))
    def start_another(self, shard: str) -> None:
        self.worlds.append(self.new_world(shard))

    @rule(index=st.integers(0, 5))
    def kill(self, index: int) -> None:
        self.replace(self.some(index))

    def replace(self, world: World) -> None:
        world.die()
        self.worlds.remove(world)
        self.worlds.append(self.new_world(world.shard))

    @invariant()
    def nothing_counts_twice(self) -> None:
        totals = self.worlds[0].store.totals(KEY)
        assert totals.events <= sum(self.last.values())
        assert totals.missed_events == 0

    def teardown(self) -> None:
        for world in self.worlds:
            world.die()
        try:
            self.settle()
        finally:
            self._temporary.cleanup()

    def settle(self) -> None:
        for shard in "01":
            final = self.new_world(shard)
            final.agent.spool.adopt(self.now_s)
            final.count()
            final.agent.drain()
            totals = final.store.totals(KEY)
            windows = final.store.windows(KEY, MINUTE_S)
            final.die()
        assert (totals.events, totals.missed_events) == (sum(self.last.values()), 0)
        assert sum(window.figures.events for _, window in windows) == sum(self.last.values())


TestCounting = CountingMachine.TestCase
TestCounting.settings = settings(max_examples=20, stateful_step_count=20, deadline=None)


def test_a_segment_whose_opening_is_lost_does_not_stop_the_others(world):
    world.agent.take(delivery(1, 50))
    hour_later = T0_US + HOUR_S * 1_000_000
    world.agent.take(delivery(51, 90, events=lambda seq: rows_of(seq, ts_us=hour_later)))
    (first, _), _ = world.agent.spool.contents().segments
    data = bytearray(first.read_bytes())
    data[30] ^= 0xFF
    first.write_bytes(data)
    assert world.count() == 40
    world.agent.take(delivery(91, 95, events=lambda seq: rows_of(seq, ts_us=hour_later)))
    assert world.count() == 5
