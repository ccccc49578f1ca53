"""A plan depends on profile, mix and seed alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaling.loadtest.errors import PlanInvalid
from autoscaling.loadtest.plan import make_plan, parse_mix
from autoscaling.loadtest.profile import RateProfile

PROFILE = RateProfile.constant(100.0, 20.0)


@given(st.integers(0, 2**63))
def test_same_seed_same_plan(seed):
    a, b = (make_plan(PROFILE, seed=seed) for _ in range(2))
    np.testing.assert_array_equal(a.at_s, b.at_s)
    np.testing.assert_array_equal(a.kind, b.kind)
    other = make_plan(PROFILE, seed=seed + 1)
    assert not np.array_equal(a.at_s, other.at_s)


def test_a_new_mix_keeps_the_times():
    a = make_plan(PROFILE, seed=3)
    b = make_plan(PROFILE, parse_mix("1,1", "1,5"), seed=3)
    np.testing.assert_array_equal(a.at_s, b.at_s)


def test_shares_of_the_mix():
    plan = make_plan(RateProfile.constant(1_000.0, 100.0), seed=1)
    shares = np.bincount(plan.kind, minlength=3) / len(plan)
    np.testing.assert_allclose(shares, [0.70, 0.25, 0.05], atol=0.005)


def test_a_kind_of_weight_zero_is_never_sent():
    plan = make_plan(PROFILE, parse_mix("1,0", "1,5"))
    assert set(plan.kind) == {0}


@pytest.mark.parametrize("warmup_s", [-1.0, 20.0, float("nan")])
def test_warmup_leaves_something_to_judge(warmup_s):
    with pytest.raises(PlanInvalid, match="--warmup"):
        make_plan(PROFILE, warmup_s=warmup_s)


def test_nothing_and_too_much_are_refused():
    with pytest.raises(PlanInvalid, match="no request falls"):
        make_plan(RateProfile.constant(0.001, 1.0), arrivals="even")
    with pytest.raises(PlanInvalid, match="at most 5,000,000"):
        make_plan(RateProfile.constant(1e6, 100.0))


@pytest.mark.parametrize(
    ("weights", "rows", "complaint"),
    [
        ("1,1", "1", "2 weights"),
        ("1,x", "1,2", "'x' is no number"),
        ("1,-1", "1,2", "'-1' is no number"),
        ("nan", "1", "'nan' is no number"),
        ("0,0", "1,2", "above 0"),
        ("1", "0", "from 1 to 100,000"),
        ("1", "1.5", "from 1 to 100,000"),
        ("1", "100001", "from 1 to 100,000"),
        ("1,1", "5,5", "only once"),
    ],
)
def test_bad_mixes_are_refused(weights, rows, complaint):
    with pytest.raises(PlanInvalid, match=complaint):
        parse_mix(weights, rows)
