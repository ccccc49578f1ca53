import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitoring.analysis.drift.budget import AlarmBudget, Evidence, add_window, e_value

HOURLY = AlarmBudget(window_s=3600.0)


def alarms(p_values, budget):
    evidence, found = Evidence(), []
    for number, p in enumerate(p_values):
        evidence = add_window(evidence, p, budget)
        if evidence.alarm:
            found.append(number)
    return found


def test_e_values_have_a_mean_of_at_most_one():
    p = (np.arange(200_000) + 0.5) / 200_000
    assert np.mean([e_value(value) for value in p]) <= 1.0


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_smaller_p_is_never_less_evidence(first, second):
    low, high = sorted((first, second))
    assert e_value(low) >= e_value(high) - 1e-3


def test_a_month_of_hourly_reports_keeps_its_budget():
    rng = np.random.default_rng(3)
    months = [len(alarms(rng.random(720), HOURLY)) for _ in range(200)]
    assert np.mean(months) <= 1.0


def test_drift_too_small_for_one_window_is_found_over_some():
    assert alarms([0.02] * 48, HOURLY)[0] == 5
    assert alarms([0.5] * 720, HOURLY) == []


def test_strong_drift_alarms_at_once_and_again_after_starting_anew():
    assert alarms([0.5, 1e-9, 1e-9], HOURLY) == [1, 2]


def test_a_window_without_data_changes_nothing():
    evidence = add_window(Evidence(), 0.01, HOURLY)
    after = add_window(evidence, None, HOURLY)
    assert (after.value, after.windows, after.alarm) == (evidence.value, 1, False)


@given(value=st.floats(0, 1e6), p=st.floats(0, 1), alarm=st.booleans(), streams=st.integers(1, 50))
def test_an_alarm_is_evidence_at_the_threshold(value, p, alarm, streams):
    budget = AlarmBudget(window_s=86_400.0, streams=streams)
    after = add_window(Evidence(value=value, windows=1, alarm=alarm), p, budget)
    assert after.alarm == (after.value >= budget.threshold)


@pytest.mark.parametrize("name", ["window_s", "false_alarms", "period_s", "streams"])
def test_a_budget_of_nothing_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} is 0; allowed: above 0"):
        AlarmBudget(**{"window_s": 60.0, name: 0})
