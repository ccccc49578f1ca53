"""A click rate with nothing to be held against but its past: flagged for a cause, seldom else."""

import numpy as np
import pytest

from monitoring.agent.settings import LiveSettings
from monitoring.analysis.compare.moments import Moments
from monitoring.live import outcome_tables as tables
from monitoring.live.degrading import Day, standing
from monitoring.live.expectations import Expectation
from monitoring.live.grading import in_words, standings
from monitoring.live.metrics import live_exposition
from monitoring.live.own_past import DAYS, SETTLES_S, falls_short, settle_day
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


def flagged(rates: np.ndarray, requests: int, alpha: float, rng: np.random.Generator) -> bool:
    days = [
        (day * DAY_S, clicks(int(hits), requests))
        for day, hits in enumerate(rng.binomial(requests, rates))
    ]
    return falls_short(days[:DAYS], days[DAYS:], alpha, higher_is_better=True)


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


def test_errors_are_worse_when_they_grow():
    low, high = [[(day * DAY_S, clicks(hits, 1_000)) for day in range(7)] for hits in (10, 60)]
    assert falls_short(low, high[-1:], 0.02, higher_is_better=False)
    assert not falls_short(low, high[-1:], 0.02, higher_is_better=True)
    assert falls_short(high, low[-1:], 0.02, higher_is_better=True)


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
    settle_day(store, (day + 1) * DAY_S + look_after_s)


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
    assert found.note.startswith("no reference yet: 6 of the 7 whole days")
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
