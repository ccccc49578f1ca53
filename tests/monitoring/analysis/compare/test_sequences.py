import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitoring.analysis.compare.sequences import Mixture, rate_interval

progress = st.floats(1e-3, 1e3)


@pytest.mark.parametrize("alpha", [0.001, 0.01, 0.05, 0.2])
def test_it_is_narrowest_at_the_plan(alpha: float) -> None:
    mixture = Mixture(alpha=alpha)
    times = np.geomspace(0.01, 100, 801)
    widths = [mixture.quantile(t) for t in times]
    assert times[int(np.argmin(widths))] == pytest.approx(1.0, rel=0.05)
    # The narrowest of a normal mixture about zero, whatever its spread.
    spreads = np.geomspace(0.5, 100, 400)
    centred = np.sqrt(2 * (1 + 1 / spreads) * (np.log1p(spreads) / 2 - math.log(alpha)))
    assert mixture.quantile(1.0) < centred.min()


def test_four_in_five_effects_of_the_planned_size_are_found_soon() -> None:
    """Within 1.6 of what a test with one look needs for that."""
    step, effect = 0.01, 1.959964 + 0.841621
    noise = np.random.default_rng(8).normal(0, math.sqrt(step), size=(2_000, 300))
    times = step * np.arange(1, 301)
    walks = np.cumsum(noise, axis=1) + effect * times
    mixture = Mixture(alpha=0.05)
    outside = walks > np.array([mixture.quantile(t) for t in times]) * np.sqrt(times)
    decided = np.where(outside.any(axis=1), times[outside.argmax(axis=1)], math.inf)
    assert np.quantile(decided, 0.8) == pytest.approx(1.5, abs=0.05)
    assert np.median(decided) == pytest.approx(0.84, abs=0.03)


@given(progress, st.floats(0.001, 0.3))
def test_it_is_wider_than_the_fixed_interval_it_makes_honest(t: float, alpha: float) -> None:
    from scipy.stats import norm

    assert Mixture(alpha=alpha).quantile(t) > norm.ppf(1 - alpha / 2)


@given(st.floats(-5, 5), st.floats(0.01, 5), progress)
def test_p_value_and_interval_agree(estimate: float, error: float, t: float) -> None:
    mixture = Mixture(alpha=0.05)
    excluded = mixture.interval(estimate, error, t).excludes(0.0)
    p_value = mixture.p_value(estimate, error, t)
    assert excluded == (p_value < 0.05) or p_value == pytest.approx(0.05, rel=1e-6)


def test_nothing_seen_says_nothing() -> None:
    mixture = Mixture(alpha=0.05)
    assert mixture.quantile(0.0) == math.inf
    assert mixture.p_value(1.0, 0.0, 1.0) == mixture.p_value(1.0, 1.0, 0.0) == 1.0


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, math.nan])
def test_alpha_must_be_a_probability(alpha: float) -> None:
    with pytest.raises(ValueError, match="allowed"):
        Mixture(alpha=alpha)


def test_a_walk_without_drift_seldom_leaves() -> None:
    steps = np.random.default_rng(7).normal(size=(2_000, 3_000))
    n = np.arange(1, 3_001)
    mixture = Mixture(alpha=0.05)
    bound = np.array([mixture.quantile(t) for t in n / 1_000]) * np.sqrt(n)
    left = (np.abs(np.cumsum(steps, axis=1)) > bound).any(axis=1)
    assert left.mean() == 0.033  # at most 0.05 is promised, for ever


@pytest.mark.parametrize("rate", [0.005, 0.1, 0.9])
def test_a_rates_interval_holds_at_every_look_from_the_first_event_on(rate: float) -> None:
    rng = np.random.default_rng(12)
    missed = 0
    for _ in range(300):
        hits = np.cumsum(rng.random(1_000) < rate)
        looks = [*range(1, 50), *range(50, 1_001, 50)]
        missed += any(rate_interval(hits[n - 1] / n, n, 0.05).excludes(rate) for n in looks)
    assert missed <= 15


def test_a_rates_interval_narrows_to_the_rate() -> None:
    for rate, within in ((0.0, 0.012), (1.0, 0.012), (0.5, 0.06)):
        found = rate_interval(rate, 1_000, 0.05)
        assert found.low <= rate <= found.high
        assert found.high - found.low < 2 * within
