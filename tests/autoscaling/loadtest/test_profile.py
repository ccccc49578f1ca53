"""Rates over time: arrivals follow them, traces are read or refused with their line."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaling.loadtest.errors import PlanInvalid
from autoscaling.loadtest.profile import RateProfile, read_trace

PROFILES = st.lists(
    st.tuples(st.floats(0.01, 50), st.just(0.0) | st.floats(0.01, 40)), min_size=1, max_size=8
).map(
    lambda steps: RateProfile(
        edges_s=np.concatenate([[0.0], np.cumsum([length for length, _ in steps])]),
        rates_rps=np.array([rate for _, rate in steps]),
    )
)


@given(PROFILES, st.sampled_from(["poisson", "even"]), st.integers(0, 2**32))
def test_arrivals_ascend_within_the_profile_and_repeat_with_the_seed(profile, arrivals, seed):
    at_s = profile.draw(arrivals, np.random.default_rng(seed))
    assert np.all(np.diff(at_s) >= 0)
    assert np.all((at_s >= 0) & (at_s <= profile.duration_s))
    np.testing.assert_array_equal(at_s, profile.draw(arrivals, np.random.default_rng(seed)))


@given(PROFILES)
def test_even_arrivals_hit_every_step_to_within_one(profile):
    at_s = profile.draw("even", np.random.default_rng(0))
    assert abs(len(at_s) - profile.expected_requests) <= 1
    found, _ = np.histogram(at_s, profile.edges_s)
    np.testing.assert_allclose(found, np.diff(profile.edges_s) * profile.rates_rps, atol=1.001)


@given(PROFILES, st.floats(0.1, 10), st.floats(0.1, 10))
def test_speed_shortens_and_scale_multiplies(profile, speed, scale):
    changed = profile.changed(speed=speed, scale=scale)
    assert changed.duration_s == pytest.approx(profile.duration_s / speed)
    expected = profile.expected_requests * scale / speed
    assert changed.expected_requests == pytest.approx(expected)


def test_poisson_counts_have_the_variance_of_poisson():
    profile = RateProfile(
        edges_s=np.array([0.0, 10.0, 20.0, 30.0]), rates_rps=np.array([3.0, 0.0, 9.0])
    )
    rng = np.random.default_rng(11)
    draws = [profile.draw("poisson", rng) for _ in range(2_000)]
    counts = np.array([np.histogram(at_s, profile.edges_s)[0] for at_s in draws])
    np.testing.assert_allclose(counts.mean(axis=0), [30, 0, 90], atol=1.0)
    np.testing.assert_allclose(counts.var(axis=0), [30, 0, 90], rtol=0.1)
    gaps = np.concatenate([np.diff(at_s[at_s > 20.0]) for at_s in draws])
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)  # exponential gaps


def test_first_seconds_keep_the_rates():
    profile = RateProfile(edges_s=np.array([0.0, 10.0, 20.0]), rates_rps=np.array([1.0, 5.0]))
    cut = profile.first(12.0)
    assert cut.edges_s.tolist() == [0.0, 10.0, 12.0]
    assert cut.rates_rps.tolist() == [1.0, 5.0]
    assert profile.first(10.0).edges_s.tolist() == [0.0, 10.0]
    assert profile.first(99.0) is profile


def test_a_trace_starts_at_zero_and_its_last_line_lasts(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text("t_s,rps\n5,2\n6,4\n\n8,0.5\n")
    profile = read_trace(path)
    assert profile.edges_s.tolist() == [0.0, 1.0, 3.0, 5.0]
    assert profile.rates_rps.tolist() == [2.0, 4.0, 0.5]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "first line"),
        ("time,rate\n0,1\n", "t_s,rps is needed"),
        ("t_s,rps\n0,1\n1,much\n", ":3:.*two numbers"),
        ("t_s,rps\n0,1,2\n", ":2:.*two numbers"),
        ("t_s,rps\n0,1\n1,-1\n", ":3:.*at least 0"),
        ("t_s,rps\n0,nan\n1,1\n", ":2:.*finite"),
        ("t_s,rps\n1,1\n1,1\n", ":3:.*does not follow"),
        ("t_s,rps\n1,1\n", "at least 2"),
        (b"\xff\xfe", "trace.csv"),
    ],
)
def test_bad_traces_are_refused(tmp_path, text, complaint):
    path = tmp_path / "trace.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(PlanInvalid, match=complaint):
        read_trace(path)


def test_missing_trace_and_bad_numbers_are_refused(tmp_path):
    with pytest.raises(PlanInvalid, match="No such file"):
        read_trace(tmp_path / "none.csv")
    for value in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(PlanInvalid, match="--rate"):
            RateProfile.constant(value, 1.0)
        with pytest.raises(PlanInvalid, match="--speed"):
            RateProfile.constant(1.0, 1.0).changed(speed=value)
