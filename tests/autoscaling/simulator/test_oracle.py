"""The optimal plan against trying every plan."""

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaling.simulator.oracle import cheapest_schedule, replicas_needed, schedule_cost_s

needs = st.lists(st.integers(0, 3), min_size=1, max_size=6)


def brute_force_cost_s(needed: np.ndarray, cold_start_s: float) -> float:
    return min(
        schedule_cost_s(np.array(plan), cold_start_s)
        for plan in itertools.product(range(4), repeat=len(needed))
        if all(have >= want for have, want in zip(plan, needed, strict=True))
    )


@given(needed=needs, cold_start_s=st.sampled_from([0.0, 0.5, 1.0, 2.0, 2.5, 10.0]))
@settings(max_examples=40, deadline=None)
def test_no_plan_is_cheaper(needed, cold_start_s):
    wanted = np.array(needed)
    plan = cheapest_schedule(wanted, cold_start_s)
    assert (plan >= wanted).all()
    assert schedule_cost_s(plan, cold_start_s) == brute_force_cost_s(wanted, cold_start_s)


def test_short_gaps_are_bridged_and_long_ones_are_not():
    needed = np.array([1, 0, 1, 0, 0, 0, 1])
    assert cheapest_schedule(needed, 2.0).tolist() == [1, 1, 1, 0, 0, 0, 1]


def test_replicas_needed_at_the_edges():
    capacity = np.array([10.0, 25.0])
    rates = np.array([0.0, 10.0, 10.1, 25.0, 99.0])
    assert replicas_needed(rates, capacity, 0).tolist() == [0, 1, 2, 2, 2]
    assert replicas_needed(rates, capacity, 1).tolist() == [1, 1, 2, 2, 2]
