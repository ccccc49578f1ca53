"""Feedback moves the figures of its answers once: late, repeated, corrected, unknown, crashed."""

import random
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitoring.events import Stream
from monitoring.live import joining as joining_module
from monitoring.live import outcome_tables as tables
from monitoring.live.joining import Joining
from monitoring.live.store import HOUR_S, MINUTE_S
from monitoring.live.window import StreamKey
from tests.monitoring.agent.conftest import STREAM, T0_US, delivery, memory_folder, rows_of
from tests.monitoring.live.feedbacks import (
    REGRESSION,
    SETTINGS,
    Said,
    fates,
    feedback,
    join,
    predictions,
    sums,
)
from tests.monitoring.live.worlds import DRIFT_WINDOW_S, KEY, UNKNOWN, World


@pytest.fixture
def world(tmp_path: Path):
    made = World(tmp_path, expected=UNKNOWN)
    yield made
    made.die()


def test_labels_and_clicks_count_in_the_windows_of_their_answers(world):
    world.agent.take(
        delivery(1, 4, events=lambda s: rows_of(s, ts_us=T0_US - 60_000_000 * (s % 2), rows=2))
    )
    words = [
        Said(1, "good", row=0),
        Said(1, "bad", row=1),
        Said(2, "good", row=1),
        Said(2, "1", kind="click", row=0),
        Said(3, "0", kind="click", row=0),
        Said(4, "7", kind="stars", row=0),
    ]
    world.agent.take(feedback(words))
    join(world)
    assert sums(world, "accuracy") == (2, 2, 3)
    assert sums(world, "click") == (4, 1, 8)
    minutes = tables.sums_of(world.store.connection, KEY, MINUTE_S, 0.0, 1e18)
    assert [(m, int(s.x), int(s.n)) for _, m, s in minutes] == [
        ("accuracy", 1, 2),
        ("click", 0, 4),
        ("accuracy", 1, 1),
        ("click", 1, 4),
    ]
    assert fates(world) == {"used": 6, "late": 3}  # requests 1 and 3 are a minute old


def test_every_feedback_has_one_fate(world):
    world.agent.take(delivery(1, 3, events=lambda s: rows_of(s, rows=2 if s == 3 else 1)))
    late_s = DRIFT_WINDOW_S + SETTINGS.late_s + 30
    words = [
        Said(1, "good", row=None),
        Said(1, "good", after_s=2),  # duplicate
        Said(1, "bad", after_s=3),  # corrected
        Said(1, "good", after_s=2.5),  # corrected already, and out of order
        Said(2, "bad", after_s=late_s),
        Said(3, "good", row=None),  # of which row?
        Said(3, "good", row=9),  # there is none
        Said(99, "good"),  # nobody asked
    ]
    world.agent.take(feedback(words))
    joining = join(world)
    assert fates(world) == {
        **{"used": 2, "duplicate": 1, "corrected": 2, "late": 1},
        **{"ambiguous": 1, "unknown": 1, "waiting": 1},
    }
    assert sums(world, "accuracy") == (2, 0, 2)  # both were said to be bad in the end
    world.agent.now_s += joining_module.UNKNOWN_AFTER_S
    joining.join_due()
    assert fates(world)["unknown"] == 2
    assert "waiting" not in fates(world)


def test_feedback_that_is_counted_before_its_answer_waits_for_it(world):
    world.agent.take(feedback([Said(1)]))
    joining = join(world)
    assert fates(world) == {"waiting": 1}
    world.agent.take(delivery(1, 1))
    world.count()
    world.agent.now_s += joining_module.RETRY_S
    joining.join_due()
    assert fates(world) == {"used": 1}
    assert sums(world, "accuracy") == (1, 1, 1)


def test_a_shadow_shares_labels_and_has_no_clicks(world):
    shadow = Stream(
        **{f: getattr(STREAM, f) for f in STREAM.__struct_fields__}
        | {"variant": "shadow", "version": "2.0.0"}
    )
    world.agent.take(delivery(1, 2))
    world.agent.take(delivery(1, 2, producer="s", stream=shadow))
    world.agent.take(feedback([Said(1), Said(2, "bad"), Said(1, "1", kind="click")]))
    join(world)
    key = StreamKey("credit", "2.0.0", "shadow")
    assert sums(world, "accuracy", key) == sums(world, "accuracy") == (2, 1, 2)
    assert (sums(world, "click"), sums(world, "click", key)) == ((2, 1, 2), (0, 0, 0))


def test_of_two_answers_under_one_id_the_shorter_one_is_left_alone_by_what_it_lacks(world):
    world.agent.take(delivery(1, 1))
    world.agent.take(delivery(1, 1, producer="other", events=lambda s: rows_of(s, rows=2)))
    words = [Said(1, row=1), Said(1, "1", kind="click", row=1), Said(1, row=0)]
    world.agent.take(feedback(words))
    join(world)
    assert fates(world) == {"used": 3}
    assert (sums(world, "accuracy"), sums(world, "click")) == ((2, 3, 3), (2, 1, 3))


def test_answers_beyond_the_bound_are_forgotten_with_what_was_said(world):
    bounded = type(SETTINGS)(drift_window_s=DRIFT_WINDOW_S, late_s=10.0, feedback_requests=5)
    for start in (1, 6, 11):
        world.agent.take(delivery(start, start + 4))
        world.count()
    world.agent.take(feedback([Said(1), Said(11)]))
    world.count()
    world.agent.now_s += 10.0
    joining = Joining(world.store, bounded, world.agent.clock)
    joining.join_due()
    assert fates(world) == {"used": 1, "waiting": 1}
    world.agent.take(delivery(16, 20))
    world.agent.take(feedback([Said(11)], first=3))
    world.count()
    world.agent.now_s += joining_module.FORGET_EVERY_S
    joining.join_due()
    assert fates(world)["used"] == 1  # an answer that is forgotten is not counted a second time
    assert world.store.connection.execute("SELECT count(*) FROM said").fetchone() == (0,)


def test_numbers_said_about_a_regression_move_its_errors(world):
    world.agent.take(delivery(1, 3, stream=REGRESSION, events=predictions))
    words = [Said(1, "7"), Said(2, "24"), Said(3, "1e300"), Said(3, "30.5", after_s=5)]
    world.agent.take(feedback(words))
    join(world)
    found = {m: s for _, m, s in tables.sums_of(world.store.connection, KEY, HOUR_S, 0.0, 1e18)}
    assert {m: (s.units, s.x) for m, s in found.items() if m != "click"} == {
        "rmse": (3, 9.0 + 16.0 + 0.25),
        "mae": (3, 3.0 + 4.0 + 0.5),
        "bias": (3, 3.0 - 4.0 - 0.5),
    }


WORDS = st.builds(
    Said,
    request=st.integers(1, 6),
    value=st.sampled_from(["good", "bad"]),
    row=st.integers(0, 1),
    after_s=st.integers(1, 9).map(float),
    dated_s=st.none() | st.integers(1, 9).map(float),
)


def any_order(words: list[Said], seed: int, data: st.DataObject, task: str) -> list:
    """Give words in order, and shuffled among deaths that fall at any write of the joining."""
    stream, rows = (REGRESSION, predictions) if task == "regression" else (STREAM, rows_of)
    answers = {s: rows(s, rows=2, ts_us=T0_US + s * 40_000_000) for s in range(1, 7)}
    found = []
    for turn in range(2):
        said = list(words)
        if turn:
            random.Random(seed).shuffle(said)
        with memory_folder() as name:
            world = World(Path(name), expected=UNKNOWN)
            world.agent.take(delivery(1, 6, stream=stream, events=answers.__getitem__))
            middle = len(said) // 2
            for first, part in ((1, said[:middle]), (middle + 1, said[middle:])):
                if not part:
                    continue
                world.agent.take(feedback(part, first))
                world.count()
                world.agent.now_s += 10.0
                if turn:
                    die_at(world, data.draw(st.integers(0, 20)))
                Joining(world.store, SETTINGS, world.agent.clock).join_due()
            db = world.store.connection
            levels = [tables.sums_of(db, KEY, level_s, 0.0, 1e18) for level_s in (MINUTE_S, HOUR_S)]
            fate = fates(world)
            assert sum(fate[f] for f in fate if f != "late") == len(words)
            found.append((levels, fate["used"]))
            world.die()
    assert found[0] == found[1]
    return found[0][0]


def last_words(words: list[Said]) -> dict[tuple[int, int | None], str]:
    ordered = sorted(words, key=lambda w: (w.dated_s or w.after_s, w.after_s, w.value))
    return {(word.request, word.row): word.value for word in ordered}


@settings(max_examples=25, deadline=None)
@given(words=st.lists(WORDS, min_size=1, max_size=12), seed=st.integers(0, 99), data=st.data())
def test_in_any_order_and_whoever_dies_when_the_last_word_counts_once(words, seed, data):
    minutes, _ = any_order(words, seed, data, "classification")
    last = last_words(words)
    counted = [sums for _, metric, sums in minutes if metric == "accuracy"]
    right = sum(value == "good" for value in last.values())
    assert (sum(s.x for s in counted), sum(s.n for s in counted)) == (right, len(last))


@settings(max_examples=25, deadline=None)
@given(words=st.lists(WORDS, min_size=1, max_size=12), seed=st.integers(0, 99), data=st.data())
def test_errors_of_a_regression_too_are_those_of_the_last_words(words, seed, data):
    numbers = {"good": "0.1", "bad": "-3e17"}
    words = [replace(word, value=numbers[word.value]) for word in words]
    _, hours = any_order(words, seed, data, "regression")
    errors = [10.0 * request - float(v) for (request, _), v in last_words(words).items()]
    (bias,) = [sums for _, metric, sums in hours if metric == "bias"]
    (squared,) = [sums for _, metric, sums in hours if metric == "rmse"]
    assert (bias.x, bias.n) == (pytest.approx(sum(errors)), len(errors))
    assert squared.x == pytest.approx(sum(error**2 for error in errors))


def die_at(world: World, write: int) -> None:
    """Let a judge die at its n-th write, in the middle of a transaction, as a process would."""
    writes = 0

    def trace(statement: str) -> None:
        nonlocal writes
        writes += statement.startswith(("INSERT", "UPDATE", "DELETE"))

    def progress() -> int:
        return int(writes > write)  # SQLite gives the statement up: a crash, for the file

    connection = world.store.connection
    connection.set_trace_callback(trace)
    connection.set_progress_handler(progress, 1)
    try:
        Joining(world.store, SETTINGS, world.agent.clock).join_due()
    except sqlite3.OperationalError as error:
        assert str(error) == "interrupted"
    finally:
        connection.set_trace_callback(None)
        connection.set_progress_handler(None, 0)
