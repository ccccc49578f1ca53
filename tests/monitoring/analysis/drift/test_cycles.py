import numpy as np
import pytest

from monitoring.analysis.drift.cycles import find_cycles, without_cycles
from tests.monitoring.analysis.drift.samples import autoregressive


def dependent_columns(rng, steps, columns):
    return np.column_stack([autoregressive(rng, steps, 0.8) for _ in range(columns)])


def test_a_cycle_is_found_under_serial_dependence():
    series = dependent_columns(np.random.default_rng(1), 1_000, 10)
    series[:, :5] += 1.5 * np.sin(2 * np.pi * np.arange(1_000) / 90)[:, None]
    found = find_cycles(series, 10)
    assert found[0] == pytest.approx(1 / 90, rel=0.03)
    assert np.var(without_cycles(series, found)[:, 0]) < 0.7 * np.var(series[:, 0])


@pytest.mark.parametrize("seed", range(5))
def test_dependence_alone_is_no_cycle(seed):
    series = dependent_columns(np.random.default_rng(seed), 1_000, 10)
    assert not len(find_cycles(series, 10))


def test_three_repetitions_are_not_a_cycle_yet():
    series = dependent_columns(np.random.default_rng(2), 300, 10)
    series += 2 * np.sin(2 * np.pi * np.arange(300) / 100)[:, None]
    assert not len(find_cycles(series, 10))
