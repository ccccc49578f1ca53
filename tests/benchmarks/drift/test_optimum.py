import numpy as np
import pytest

from benchmarks.drift import optimum

WINDOW, BASELINE = 1_000, 5_000


@pytest.mark.parametrize(("name", "effect"), [("location", 0.15), ("variance", 1.3)])
def test_the_best_test_of_a_normal_finds_what_it_says(name, effect):
    """Simulated at the level of 1% over twenty columns, from both samples' exact laws."""
    rng = np.random.default_rng(1)
    runs = 40_000

    def statistic(change):
        shift, ratio = (change, 1.0) if name == "location" else (0.0, change)
        if name == "location":
            window = rng.normal(shift, np.sqrt(1 / WINDOW), runs)
            return np.abs(window - rng.normal(0, np.sqrt(1 / BASELINE), runs))
        window = ratio * rng.chisquare(WINDOW - 1, runs) / (WINDOW - 1)
        return window / (rng.chisquare(BASELINE - 1, runs) / (BASELINE - 1))

    quiet = 0.0 if name == "location" else 1.0
    cut = np.quantile(statistic(quiet), 1 - optimum.LEVEL)
    found = (statistic(effect) > cut).mean()
    assert getattr(optimum, name)(effect, WINDOW, BASELINE) == pytest.approx(found, abs=0.06)


def test_a_rate_is_harder_to_see_near_one_half_and_easier_with_more_rows():
    tenth = optimum.rate(0.1, 0.12, 10_000, 50_000)
    half = optimum.rate(0.5, 0.52, 10_000, 50_000)
    assert half < 0.7 < 0.99 < tenth
    assert optimum.rate(0.5, 0.52, 20_000, 50_000) > half


def test_without_a_change_the_best_test_finds_its_level():
    assert optimum.location(0.0, WINDOW, BASELINE) == pytest.approx(optimum.LEVEL)
    assert optimum.variance(1.0, WINDOW, BASELINE) == pytest.approx(optimum.LEVEL)
    assert optimum.rate(0.3, 0.3, WINDOW, BASELINE) <= optimum.LEVEL
    # Of its two tails only the one that the change moves into is counted.
    assert optimum.correlation(0.3, 0.3, WINDOW, BASELINE) == pytest.approx(optimum.LEVEL / 2)
