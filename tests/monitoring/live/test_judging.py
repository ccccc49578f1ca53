"""Closed windows are judged once, and the alarm opens, stays and is resolved."""

import msgspec
import numpy as np
import pytest

from monitoring.agent.settings import LiveSettings
from monitoring.analysis.drift.budget import AlarmBudget
from monitoring.live.drifting import DriftState, after_window
from monitoring.live.errors import CountedElsewhere
from monitoring.live.judging import Judging, try_to_be_judge
from monitoring.live.showing import drift_view
from monitoring.live.verdicts import Verdicts
from monitoring.live.wire import Question
from tests.monitoring.agent.conftest import T0_US, delivery, rows_of
from tests.monitoring.live.worlds import DRIFT_WINDOW_S, EXPECTED, KEY, World

SETTINGS = LiveSettings(drift_window_s=DRIFT_WINDOW_S, late_s=10.0)
START_S = T0_US // 1_000_000 // DRIFT_WINDOW_S * DRIFT_WINDOW_S
BUDGET = AlarmBudget(window_s=3600.0)


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    yield made
    made.die()


def judging_of(world: World) -> Judging:
    return Judging(world.store, world.counting._expectations, SETTINGS, world.agent.clock)


def send(world: World, window: int, *, shift: float, rows: int = 300) -> None:
    """Fill one window with traffic like training, moved by a number of sigmas."""
    rng = np.random.default_rng(window)
    ages = rng.normal(40.0 + 10.0 * shift, 10.0, rows).tolist()
    jobs = rng.choice(["clerk", "cook"], rows).tolist()
    first = window * 1_000 + 1
    ts_us = (START_S + window * DRIFT_WINDOW_S) * 1_000_000

    def events(seq):
        row = rows_of(seq, ts_us=ts_us + (seq - first) * 50_000)[0]
        return [row | {"x_age": ages[seq - first], "x_job": jobs[seq - first]}]

    world.agent.take(delivery(first, first + rows - 1, producer=f"w{window}", events=events))


def close(world: World, window: int) -> None:
    """Move the clock on until a window is closed, and count."""
    world.agent.now_s = START_S + (window + 1) * DRIFT_WINDOW_S + SETTINGS.late_s
    world.count()


def test_an_alarm_opens_with_drift_and_is_resolved_after_two_calm_windows(world):
    judging = judging_of(world)
    open_since = []
    for window, shift in enumerate([0.0, 0.0, 2.0, 2.0, 0.0, 0.0, 0.0]):
        send(world, window, shift=shift)
        close(world, window)
        assert judging.judge_due() == 1
        open_since.append(Verdicts(world.store).state(KEY)[0].open_since_s)
    opened = float(START_S + 3 * DRIFT_WINDOW_S)
    assert open_since[:5] == [None, None, opened, opened, opened]
    assert open_since[6] is None
    view = drift_view(world.store, KEY, EXPECTED, SETTINGS, Question(what="drift"))
    reports = [msgspec.json.decode(report) for report in view.reports]
    assert [report["budget_alarm"] for report in reports] == [False] * 2 + [True] * 2 + [False] * 3
    assert [f["name"] for f in reports[2]["features"] if f["alarm"]] == ["age"]
    assert reports[0]["rows"] == 300


def test_a_window_waits_for_late_events_and_is_judged_once(world):
    judging = judging_of(world)
    send(world, 0, shift=0.0)
    world.agent.now_s = START_S + DRIFT_WINDOW_S + SETTINGS.late_s - 1
    world.count()
    assert judging.judge_due() == 0
    world.agent.now_s += 1
    assert judging.judge_due() == 1
    assert judging.judge_due() == 0
    assert judging_of(world).judge_due() == 0  # nor by a successor


def test_evidence_goes_on_where_a_dead_judge_left_it(world):
    send(world, 0, shift=0.25)
    close(world, 0)
    judging_of(world).judge_due()
    before = Verdicts(world.store).state(KEY)[0].evidence
    world.store.close()
    world.start_counting()
    send(world, 1, shift=0.25)
    close(world, 1)
    judging_of(world).judge_due()
    after = Verdicts(world.store).state(KEY)[0].evidence
    assert (before.windows, after.windows) == (1, 2)


def test_two_judges_do_not_move_one_state_twice(world):
    verdicts = Verdicts(world.store)
    before = DriftState()
    after = after_window(before, 0.5, START_S + 60.0, BUDGET)
    verdicts.add(KEY, START_S, b"{}", before=before, after=after, threshold=1.0)
    with pytest.raises(CountedElsewhere):
        verdicts.add(KEY, START_S, b"{}", before=before, after=after, threshold=1.0)


def test_without_a_baseline_windows_wait_to_be_judged(tmp_path):
    from tests.monitoring.live.worlds import UNKNOWN

    world = World(tmp_path, expected=UNKNOWN)
    send(world, 0, shift=0.0)
    close(world, 0)
    assert judging_of(world).judge_due() == 0
    world.die()


def test_a_folder_has_one_judge(tmp_path):
    assert try_to_be_judge(tmp_path) is not None
    assert try_to_be_judge(tmp_path) is None


def test_a_window_without_a_verdict_changes_nothing_but_the_time():
    opened = after_window(DriftState(), 1e-12, 1.0, BUDGET)
    assert after_window(opened, None, 2.0, BUDGET).open_since_s == 1.0
    calm = after_window(after_window(opened, 0.5, 2.0, BUDGET), None, 3.0, BUDGET)
    assert calm.calm == 1
    assert after_window(calm, 0.05, 4.0, BUDGET).calm == 0
