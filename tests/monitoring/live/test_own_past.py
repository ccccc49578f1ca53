"""A click rate with nothing to be held against but its past: flagged for a cause, seldom else."""

import numpy as np
import pytest

from monitoring.agent.settings import LiveSettings
from monitoring.analysis.compare.moments import Moments, unit_moments
from monitoring.live import outcome_tables as tables
from monitoring.live.degrading import Day, standing
from monitoring.live.expectations import Expectation
from monitoring.live.grading import in_words, standings
from monitoring.live.metrics import live_exposition
from monitoring.live.outcomes import Word
from monitoring.live.own_past import DAYS, compare, own_past
from monitoring.live.settling import SETTLES_S, settle_day
from monitoring.live.showing import feedback_view
from monitoring.live.store import DAY_S, Delta, Store
from monitoring.live.views import LiveView
from monitoring.live.window import StreamKey

KEY = StreamKey("shop", "1.0.0", "champion")
NOTHING = Expectation(profile=None, reason="none")
WEEK = np.array([0.02, 0.02, 0.02, 0.02, 0.022, 0.028, 0.027])


def clicks(hits: int, requests: int) -> Moments:
    """A day of requests of one row."""
    return Moments(
        **{"units": requests, "rows": requests, "n": requests, "nn": requests, "nnn": requests},
        **dict.fromkeys(("x", "xx", "xn", "xxx", "xxn", "xnn"), hits),
    )


def errors(off: np.ndarray) -> Moments:
    """A day of requests of one row that a regressor was so far off with."""
    return unit_moments(off**2, np.ones(len(off)), np.arange(len(off)))


def worse(days: list[Moments], alpha: float, metric="click") -> bool:
    return compare(*own_past(dated(days)), alpha, metric).worse


def dated(days: list[Moments]) -> list[tuple[int, Moments]]:
    return [(day * DAY_S, sums) for day, sums in enumerate(days)]


def flagged(rates: np.ndarray, requests: int, alpha: float, rng: np.random.Generator) -> bool:
    return worse([clicks(int(hits), requests) for hits in rng.binomial(requests, rates)], alpha)


@pytest.mark.parametrize("requests", [200, 20_000])
@pytest.mark.parametrize("days", [8, 14])
def test_days_like_the_first_week_are_flagged_no_more_often_than_stated(requests, days):
    rng = np.random.default_rng(3)
    runs, alpha = 3_000, 0.02
    plain = sum(flagged(np.full(days, 0.03), requests, alpha, rng) for _ in range(runs))
    wandering = sum(
        flagged(rng.normal(0.03, 0.004, days).clip(0.0, 1.0), requests, alpha, rng)
        for _ in range(runs)
    )
    weekly = sum(flagged(np.resize(WEEK, days), requests, alpha, rng) for _ in range(runs))
    assert max(plain, wandering, weekly) <= runs * alpha * 1.2


@pytest.mark.parametrize("lost", [0.8, 0.2])
def test_a_collapse_is_found_at_once_and_a_lasting_loss_within_a_week(lost):
    rng = np.random.default_rng(4)
    days = 8 if lost > 0.5 else 14
    rates = np.resize(WEEK, days) * np.repeat([1.0, 1.0 - lost], [7, days - 7])
    assert sum(flagged(rates, 20_000, 0.02, rng) for _ in range(200)) >= 190


@pytest.mark.parametrize("days", [8, 14])
@pytest.mark.parametrize(
    ("accuracy", "requests"), [(0.99, 100), (0.999, 100), (0.999, 1_000), (0.9999, 1_000)]
)
def test_a_week_without_an_error_does_not_make_the_first_one_a_loss(accuracy, requests, days):
    rng = np.random.default_rng(5)
    runs, alpha = 1_000, 0.016
    found = sum(flagged(np.full(days, accuracy), requests, alpha, rng) for _ in range(runs))
    assert found <= runs * alpha


@pytest.mark.parametrize("days", [8, 14])
@pytest.mark.parametrize(("scatter", "requests"), [(0.0, 100), (1.0, 100), (0.5, 1_000)])
@pytest.mark.parametrize("of_days", [0.0, 0.2])
def test_errors_like_the_first_weeks_are_flagged_no_more_often_than_stated(
    scatter, requests, of_days, days
):
    rng = np.random.default_rng(6)
    runs, alpha = 500, 0.016

    def day() -> Moments:
        scale = np.exp(rng.normal(0.0, scatter, requests) + rng.normal(0.0, of_days))
        return errors(rng.normal(0.0, scale))

    assert sum(worse([day() for _ in range(days)], alpha, "rmse") for _ in range(runs)) <= 12


def test_errors_are_worse_when_they_grow():
    rng = np.random.default_rng(7)
    low, high = [[errors(rng.normal(0.0, scale, 1_000)) for _ in range(7)] for scale in (1.0, 1.6)]
    assert worse([*low, high[0]], 0.02, "rmse")
    assert not worse([*high, low[0]], 0.02, "rmse")
    assert worse([clicks(60, 1_000)] * 7 + [clicks(10, 1_000)], 0.02)


def test_errors_too_skewed_for_their_number_are_not_judged_and_it_says_so():
    rng = np.random.default_rng(8)
    days = [errors(rng.normal(0.0, 1.0, 1_000)) for _ in range(7)]
    one_far_off = np.append(rng.normal(0.0, 1.0, 999), 200.0)
    for last, reason in ((one_far_off, "too skewed"), (np.zeros(1_000), "no errors at all")):
        found = compare(*own_past(dated([*days, errors(last)])), 0.02, "rmse")
        assert not found.worse
        assert found.note is not None
        assert reason in found.note


@pytest.mark.parametrize("open_days", [(0, 1, 2, 3, 4), (0, 1, 2, 4, 5, 6)])
def test_a_lasting_loss_is_found_without_some_weekdays(open_days):
    """A business that rests at weekends, and one whose agent missed an hour of the first week."""
    rng = np.random.default_rng(9)
    found, monday_s = [], 4 * DAY_S
    for _ in range(100):
        rates = np.resize(WEEK, 14) * np.repeat([1.0, 0.75], 7)
        days = [
            (monday_s + day * DAY_S, clicks(int(rng.binomial(20_000, rates[day])), 20_000))
            for day in (*open_days, *(7 + day for day in open_days))
        ]
        found.append(compare(*own_past(days), 0.02, "click"))
    assert sum(each.worse for each in found) >= 90
    assert all(each.week is not None for each in found)
    assert found[0].note == (
        "the week is compared without Saturday, Sunday"
        if 3 in open_days
        else "the week is compared without Thursday"
    )


def test_a_missed_weekday_of_the_first_week_is_made_up_for():
    days = [(day * DAY_S, clicks(day, 1_000)) for day in (0, 1, 3, 4, 5, 6, 7, 8, 9)]
    first, later = own_past(days)
    assert [start // DAY_S for start, _ in first] == [0, 1, 3, 4, 5, 6, 9]
    assert [start // DAY_S for start, _ in later] == [7, 8]


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path / "live.sqlite", 3_600)
    made.add({KEY: Delta()}, [], {KEY: None}, 0.0)
    yield made
    made.close()


def pass_day(store: Store, day: int, hits: int, look_after_s: float = SETTLES_S + 1) -> None:
    sums = clicks(hits, 1_000)
    with store.transaction() as db:
        tables.add_sums(db, KEY, (DAY_S, day * DAY_S, "click"), sums)
    now_s = (day + 1) * DAY_S + look_after_s
    store.note_caught_up("0", now_s)
    settle_day(store, now_s)


def newest(store: Store):
    (found,) = standings(store, KEY, NOTHING, LiveSettings(), known={})
    return found


def test_without_a_reference_it_says_so_until_the_first_week_is_one(store):
    pass_day(store, 100, 900)  # the day on which it began: a part of one
    for day in range(101, 107):
        pass_day(store, day, 50)
    found = newest(store)
    assert (found.reference, found.degraded, found.against) == (None, False, None)
    assert found.note is not None
    assert found.note.startswith("no reference yet: 6 of the 7 weekdays")
    text = live_exposition(_view(store)).decode()
    labels = '{metric="click",model="shop",variant="champion",version="1.0.0"}'
    assert f"treeline_outcome_compared{labels} 0.0" in text
    assert "treeline_outcome_reference{" not in text

    pass_day(store, 107, 50)
    found = newest(store)
    assert (found.against, found.degraded) == ("own_past", False)
    assert found.reference == pytest.approx(0.05)
    pass_day(store, 108, 20)
    found = newest(store)
    assert found.settled is not None
    assert (found.degraded, found.settled.value, found.settled.requests) == (True, 0.02, 1_000)
    text = live_exposition(_view(store)).decode()
    assert f"treeline_outcome_compared{labels} 1.0" in text
    assert f"treeline_needs_retraining{labels} 1.0" in text
    assert 'treeline_outcome_reference{against="own_past",metric="click"' in text


def _view(store: Store) -> LiveView:
    return LiveView("s", 1.0, feedback=[feedback_view(store, KEY, NOTHING, LiveSettings(), None)])


def test_a_day_is_kept_as_it_stood_and_only_the_newest_ones_beside_the_first_week(store):
    pass_day(store, 100, 50)
    for day in range(101, 120):
        pass_day(store, day, day)
    with store.transaction() as db:  # clicks that came later still
        tables.add_sums(db, KEY, (DAY_S, 103 * DAY_S, "click"), Moments(x=500))
    settle_day(store, 120 * DAY_S + SETTLES_S + 600)
    kept = tables.settled_days(store.connection, KEY, "click")
    assert [(start // DAY_S, sums.x) for start, sums in kept] == [
        (day, day) for day in (*range(101, 101 + DAYS), *range(113, 120))
    ]


def settled(store: Store) -> list[int]:
    kept = tables.settled_days(store.connection, KEY, "click")
    return [start // DAY_S for start, _ in kept]


def test_a_day_behind_a_backlog_settles_once_counting_has_caught_up(store):
    pass_day(store, 100, 50)
    due_s = 102 * DAY_S + SETTLES_S
    store.note_caught_up("gone", 101 * DAY_S - 1)  # silent since before the day
    store.note_caught_up("1", due_s - 10)
    pass_day(store, 101, 20)
    assert settled(store) == []
    with store.transaction() as db:
        tables.add_sums(db, KEY, (DAY_S, 101 * DAY_S, "click"), Moments(x=30))
        word = Word(when_us=0, arrived_us=int(due_s * 1e6) - 1, value="1", number=1.0)
        waits = tables.Feedback(request=1, row=0, kind="click", word=word)
        tables.keep_waiting(db, KEY.model, [waits], due_s + 60.0, due_s + 64.0)
    store.note_caught_up("1", due_s + 60.0)
    settle_day(store, due_s + 62.0)
    assert settled(store) == []  # one feedback from before waits
    with store.transaction() as db:
        db.execute("UPDATE waiting SET arrived_us = ?", (int(due_s * 1e6),))
    settle_day(store, due_s + 64.0)
    ((_, sums),) = tables.settled_days(store.connection, KEY, "click")
    assert sums.x == 50
    pass_day(store, 102, 20)
    assert settled(store) == [101]  # shard 1 is not heard of again
    settle_day(store, 103 * DAY_S + 2 * SETTLES_S)
    store.note_caught_up("1", 104 * DAY_S)
    assert settled(store) == [101]  # that hour is over


def test_days_before_anybody_sent_clicks_are_no_past(store):
    with store.transaction() as db:  # labels are sent, and are no clicks
        for day in range(100, 112):
            accuracy = (DAY_S, day * DAY_S, "accuracy")
            tables.add_sums(db, KEY, accuracy, clicks(900, 1_000))
    for day in range(100, 112):
        pass_day(store, day, 0 if day < 106 else 50)
    kept = tables.settled_days(store.connection, KEY, "click")
    assert [start // DAY_S for start, _ in kept] == [*range(107, 112)]  # 106 may be half a day
    assert len(tables.settled_days(store.connection, KEY, "accuracy")) == 11


def test_the_first_day_of_each_weekday_is_kept_whenever_it_was(store):
    for day in range(100, 121):
        pass_day(store, day, day, look_after_s=SETTLES_S + (-1 if day == 103 else 1))
    kept = [start for start, _ in tables.settled_days(store.connection, KEY, "click")]
    missed = 103 + DAYS
    first = (101, 102, 104, 105, 106, 107, missed)
    assert [start // DAY_S for start in kept] == [*first, *range(114, 121)]


def test_a_day_at_whose_time_nobody_looked_is_left_out(store):
    pass_day(store, 100, 50)
    pass_day(store, 101, 50, look_after_s=SETTLES_S - 1)
    settle_day(store, 102 * DAY_S + 2 * SETTLES_S + 1)
    assert tables.settled_days(store.connection, KEY, "click") == []


def test_a_good_weekend_does_not_end_a_bad_week():
    first = [(day * DAY_S, clicks(hits, 1_000)) for day, hits in enumerate([20] * 5 + [40, 40])]
    last = [(start + 14 * DAY_S, clicks(int(sums.x * 0.7), 1_000)) for start, sums in first]
    day = Day(start_s=9, sums=clicks(1, 200), settled=[*first, *last])
    found = standing("click", day, {}, 0.02, still_open=True)
    assert found.settled is not None
    assert found.reference is not None
    assert found.settled.value > found.reference > (found.settled.week or 1.0)
    assert found.degraded
    assert in_words(found).startswith("click rate 0.018 over its last week, 0.02571 in its first")


def test_a_flag_of_the_own_past_stays_until_a_day_is_back():
    week = [(day * DAY_S, clicks(50, 1_000)) for day in range(DAYS)]

    def judge(hits: int, *, still_open: bool) -> bool:
        day = Day(start_s=9, sums=clicks(1, 200), settled=[*week, (8 * DAY_S, clicks(hits, 1_000))])
        return standing("click", day, {}, 0.02, still_open=still_open).degraded

    assert judge(20, still_open=False)
    assert judge(45, still_open=True)
    assert not judge(45, still_open=False)
    assert not judge(51, still_open=True)
