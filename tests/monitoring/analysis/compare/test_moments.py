import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from monitoring.analysis.compare.effects import difference_of_arms, difference_of_pairs
from monitoring.analysis.compare.moments import Moments, unit_moments

values = hnp.arrays(float, st.integers(2, 40), elements=st.floats(-100, 100))


@given(values)
def test_rows_of_their_own_give_the_plain_variance(x: np.ndarray) -> None:
    found = unit_moments(x, np.ones(len(x)), np.arange(len(x)))
    assert found.mean == pytest.approx(x.mean(), abs=1e-9)
    assert found.squares == pytest.approx(((x - x.mean()) ** 2).sum(), rel=1e-6, abs=1e-6)
    assert found.cubes == pytest.approx(((x - x.mean()) ** 3).sum(), rel=1e-5, abs=1e-2)


@given(values, st.integers(1, 5), st.randoms())
def test_shards_merge_to_one_in_any_order(x: np.ndarray, shards: int, random) -> None:
    units = np.arange(len(x)) // 2
    weights = np.linspace(1, 2, len(x))
    parts = [
        unit_moments(x[here], weights[here], units[here])
        for here in (units % shards == k for k in range(shards))
    ]
    random.shuffle(parts)
    merged = sum(parts, Moments())
    whole = unit_moments(x, weights, units)
    assert (merged.units, merged.rows) == (whole.units, whole.rows)
    assert merged.x == pytest.approx(whole.x, abs=1e-6)
    assert merged.xxn == pytest.approx(whole.xxn, rel=1e-9, abs=1e-4)


def test_rows_that_repeat_within_a_unit_bring_no_certainty() -> None:
    x = np.random.default_rng(1).normal(size=1_000)
    once = unit_moments(x, np.ones(1_000), np.arange(1_000))
    ten_times = unit_moments(np.repeat(x, 10), np.ones(10_000), np.repeat(np.arange(1_000), 10))
    assert ten_times.squares == pytest.approx(once.squares)
    assert ten_times.units == 1_000


def test_weights_undo_sampling() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=100_000) + np.repeat([0.0, 1.0], 50_000)
    kept = rng.random(100_000) < np.repeat([1.0, 0.1], 50_000)
    weights = np.repeat([1.0, 10.0], 50_000)[kept]
    found = unit_moments(x[kept], weights, np.arange(kept.sum()))
    assert found.mean == pytest.approx(x.mean(), abs=0.03)


def arm(x: np.ndarray) -> Moments:
    return unit_moments(x, np.ones(len(x)), np.arange(len(x)))


def test_small_equal_and_skewed_arms_have_an_obstacle() -> None:
    rng = np.random.default_rng(3)
    few, many = arm(rng.normal(size=99)), arm(rng.normal(size=200))
    assert "100 are needed" in str(difference_of_arms(few, many, 1_000).obstacle)
    assert "same" in str(difference_of_arms(arm(np.ones(200)), arm(np.ones(200)), 1_000).obstacle)
    rare = arm((np.arange(5_000) % 100 == 0).astype(float))
    assert "skewed" in str(difference_of_arms(rare, arm(np.eye(1, 150)[0]), 1_000).obstacle)
    assert "skewed" in str(difference_of_pairs(rare, 1_000).obstacle) or rare.units >= 1_000
    assert "paired" in str(difference_of_pairs(few, 1_000).obstacle)
    assert "same" in str(difference_of_pairs(arm(np.ones(200)), 1_000).obstacle)


def test_the_error_of_a_difference_is_the_textbooks() -> None:
    rng = np.random.default_rng(4)
    a, b = rng.normal(0, 1, 2_000), rng.normal(0.3, 1, 1_000)
    found = difference_of_arms(arm(a), arm(b), 1_000)
    assert found.difference == pytest.approx(b.mean() - a.mean())
    plain = np.sqrt(a.var(ddof=1) / 2_000 + b.var(ddof=1) / 1_000)
    assert found.standard_error == pytest.approx(plain, rel=0.01)
    assert found.progress == pytest.approx(4 / 3, rel=0.01)  # as two arms of 1,333 would
