import numpy as np
import pytest
from scipy import stats

from monitoring.analysis.drift.tails import (
    difference_z,
    new_value_z,
    p_from_normal,
    rate_z,
    studentised,
)


@pytest.mark.parametrize(("rows", "share", "hits"), [(100, 0.3, 55), (1000, 0.05, 90)])
def test_the_saddlepoint_reproduces_exact_tails_far_out(rows, share, hits):
    """Against a baseline so large that only the window's binomial is left; mid-p of its tail."""
    z = difference_z(
        np.array([hits / rows - share]),
        np.array([[0.0, 1.0]]),
        np.array([[1 - share, share]]),
        np.array([float(rows)]),
        np.array([1e12]),
    )
    law = stats.binom(rows, share)
    exact = law.sf(hits) + 0.5 * law.pmf(hits)
    assert stats.norm.sf(z[0]) == pytest.approx(exact, rel=0.1)
    plain = (hits / rows - share) / np.sqrt(share * (1 - share) / rows)
    assert stats.norm.sf(plain) < exact / 2  # what the normal approximation would have said


def test_the_saddlepoint_is_right_for_a_skewed_score():
    """A sum of geometric counts is negative binomial."""
    score = np.arange(60.0)
    shares = stats.geom.pmf(score + 1, 0.5)
    law = stats.nbinom(50, 0.5)
    total = law.isf(1e-5)
    z = difference_z(
        np.array([total / 50 - 1]), score[None], shares[None], np.array([50.0]), np.array([1e12])
    )
    exact = law.sf(total) + 0.5 * law.pmf(total)
    assert stats.norm.sf(z[0]) == pytest.approx(exact, rel=0.1)


def test_the_sign_follows_the_difference_and_no_difference_is_zero():
    scores = np.array([[-1.0, 0.0, 1.0]] * 3)
    shares = np.full((3, 3), 1 / 3)
    z = difference_z(np.array([0.2, -0.2, 0.0]), scores, shares, np.full(3, 80.0), np.full(3, 90.0))
    assert z[0] == pytest.approx(-z[1])
    assert z[0] > 0 == z[2]


def test_a_constant_score_says_nothing():
    z = difference_z(
        np.array([0.0]), np.ones((1, 2)), np.full((1, 2), 0.5), np.array([9.0]), np.array([9.0])
    )
    assert z.tolist() == [0.0]


def test_a_rare_rate_is_tested_exactly():
    z = rate_z(*(np.array([value]) for value in (4.0, 100.0, 1.0, 1000.0)))
    one_sided = stats.fisher_exact([[4, 96], [1, 999]], alternative="greater").pvalue
    assert p_from_normal(z)[0] == pytest.approx(2 * one_sided)


@pytest.mark.parametrize(("hits", "base"), [(0.0, 0.0), (50.0, 1000.0)])
def test_rates_that_agree_give_no_signal(hits, base):
    z = rate_z(*(np.array([value]) for value in (hits, 50.0, base, 1000.0)))
    assert abs(z[0]) < 1e-6


def test_one_new_value_is_no_news_and_many_are():
    assert new_value_z(0, 1000, 2, 50_000) == 0
    assert p_from_normal(np.array([new_value_z(1, 1000, 2, 50_000)]))[0] > 0.01
    assert p_from_normal(np.array([new_value_z(8, 1000, 2, 50_000)]))[0] < 1e-6


def test_an_estimated_scale_costs_students_tails():
    z = studentised(np.array([4.0, -4.0, 4.0]), np.array([10.0, 10.0, np.inf]))
    assert stats.norm.sf(z[0]) == pytest.approx(stats.t.sf(4, 10))
    assert z[1] == -z[0]
    assert z[2] == 4.0
