import numpy as np
import pytest

from monitoring.analysis.drift import EffectFloor, WindowSummary, fit_baseline
from monitoring.analysis.drift.effects import Effect, effect_of
from monitoring.analysis.drift.marginals import new_slots
from monitoring.analysis.drift.summary import WEIGHT_UNIT
from tests.monitoring.analysis.drift.samples import changed, table

PROFILE = fit_baseline(table(np.random.default_rng(1), 20_000))


def effect(rows, name="a"):
    summary = WindowSummary(PROFILE.layout)
    summary.update(rows)
    index = [c.name for c in PROFILE.layout.columns].index(name)
    counts = PROFILE.layout.part(summary.counts, index) / WEIGHT_UNIT
    new = new_slots(PROFILE.layout.bins[index], PROFILE.columns[index])
    return effect_of(PROFILE.columns[index], counts, new)


@pytest.mark.parametrize("sigmas", [0.0, 0.2, 0.5])
def test_a_shift_is_its_own_wasserstein_distance(sigmas):
    rows = table(np.random.default_rng(2), 50_000)
    found = effect(changed(rows, "a", rows.column("a").to_numpy() + sigmas))
    assert found.wasserstein == pytest.approx(sigmas, abs=0.03)
    assert found.mean_shift == pytest.approx(sigmas, abs=0.03)
    assert found.psi == pytest.approx(sigmas**2, abs=0.02)  # of a normal, in deciles


def test_disjoint_distributions_are_at_the_distances_limit():
    rows = table(np.random.default_rng(3), 1_000)
    assert effect(changed(rows, "a", np.full(1_000, 50.0))).js == pytest.approx(1.0)


def test_missing_and_new_shares_are_differences():
    rows = table(np.random.default_rng(4), 1_000)
    values = rows.column("a").to_numpy().copy()
    values[:100], values[100:150] = np.nan, 99.0
    found = effect(changed(rows, "a", values))
    assert (found.missing, found.new) == (0.1, 0.05)


def test_an_empty_window_has_no_effect():
    assert effect(table(np.random.default_rng(5), 0)) is None


def test_a_floor_asks_for_any_of_its_distances():
    found = Effect(psi=0.2, js=0.1, wasserstein=0.05, mean_shift=0.0, missing=0.0, new=0.0)
    assert EffectFloor().reached(found)
    assert EffectFloor(psi=0.1, wasserstein=0.5).reached(found)
    assert not EffectFloor(wasserstein=0.5).reached(found)
