import numpy as np
import pyarrow as pa
import pytest

from monitoring.analysis.drift import fit_baseline
from monitoring.analysis.drift.dependence import inflation
from tests.monitoring.analysis.drift.samples import autoregressive, table


def dependent_table(seed: int, rows: int, rho: float) -> pa.Table:
    rng = np.random.default_rng(seed)
    return pa.table({f"f{i}": autoregressive(rng, rows, rho) for i in range(4)})


def test_independent_rows_are_taken_as_independent():
    profile = fit_baseline(table(np.random.default_rng(1), 5_000))
    assert not len(profile.dependence.groups)
    spread = inflation(profile.dependence, 500)
    assert (spread.factor == 1).all()
    assert np.isinf(spread.freedom).all()


def test_autocorrelation_inflates_the_location_as_theory_says():
    """(1 + rho) / (1 - rho) = 9 for an AR(1) process with rho = 0.8."""
    profile = fit_baseline(dependent_table(2, 20_000, 0.8))
    assert profile.dependence.groups.tolist() == [0, 1, 2, 3]
    spread = inflation(profile.dependence, 500)
    locations = [column.statistics.start for column in profile.columns]
    assert spread.factor[locations].mean() == pytest.approx(9, rel=0.25)
    assert (spread.freedom < 100).all()


def test_one_dependent_column_does_not_cost_the_others_their_power():
    rng = np.random.default_rng(3)
    rows = table(rng, 5_000).append_column("walk", pa.array(autoregressive(rng, 5_000, 0.9)))
    profile = fit_baseline(rows)
    assert profile.dependence.groups.tolist() == [6]


def test_a_window_longer_than_a_quarter_of_the_baseline_has_few_degrees_of_freedom():
    profile = fit_baseline(dependent_table(4, 2_000, 0.8))
    spread = inflation(profile.dependence, 50_000)
    assert (spread.freedom < 6).all()
    assert (spread.factor >= 1).all()


def test_part_of_a_cycle_is_judged_by_the_noise_and_not_by_the_cycle():
    rng = np.random.default_rng(5)
    time = np.arange(6_000)
    season = 2 * np.sin(2 * np.pi * time / 400)
    rows = pa.table({f"f{i}": season + autoregressive(rng, 6_000, 0.5) for i in range(10)})
    profile = fit_baseline(rows)
    assert len(profile.dependence.cycles)
    location = profile.columns[0].statistics.start
    drift = inflation(profile.dependence, 100)
    expected = inflation(profile.dependence, 100, "expected")
    assert drift.factor[location] < 5 < 20 < expected.factor[location]
