import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from monitoring.analysis.drift.scores import COMPONENTS, normal_scores, smooth_components

SHARES = arrays(np.float64, st.integers(1, 40), elements=st.integers(0, 1000).map(float))


@given(SHARES)
def test_components_are_orthonormal_under_the_bins_own_shares(counts):
    components = smooth_components(counts)
    filled = int((counts > 0).sum())
    assert len(components) <= min(COMPONENTS, max(filled - 1, 0))
    if len(components):
        weight = counts / counts.sum()
        assert np.allclose(components @ weight, 0, atol=1e-6)
        assert np.allclose((components * weight) @ components.T, np.eye(len(components)), atol=1e-6)


def test_a_fine_grid_gives_the_normals_own_quantiles():
    scores = normal_scores(np.full(1000, 1.0))
    assert abs(scores[500] - 0.0013) < 1e-3
    assert abs((scores**2).mean() - 1) < 0.01


def test_two_values_carry_a_location_only():
    assert smooth_components(np.array([0.0, 30.0, 0.0, 70.0, 0.0])).shape == (1, 5)
