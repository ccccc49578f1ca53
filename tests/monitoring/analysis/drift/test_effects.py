import numpy as np
import pytest
from scipy import stats
from scipy.spatial import distance

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
    found = effect(changed(rows, "colour", ["infrared"] * 1_000), "colour")
    assert found.js == pytest.approx(1.0)


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


@pytest.mark.parametrize(
    "change",
    [lambda x: x + 0.3, lambda x: x * 1.4, lambda x: np.where(x > 1, x + 2, x)],
    ids=["shift", "scale", "tail"],
)
def test_the_distances_are_those_of_scipy(change):
    """On raw values, deciles of training: Wasserstein, Jensen-Shannon and PSI by its formula."""
    before = table(np.random.default_rng(1), 20_000).column("a").to_numpy()
    rows = table(np.random.default_rng(6), 20_000)
    after = change(rows.column("a").to_numpy())
    found = effect(changed(rows, "a", after))
    edges = np.concatenate([[-np.inf], np.quantile(before, np.linspace(0.1, 0.9, 9)), [np.inf]])
    p, q = (np.histogram(values, edges)[0] / len(values) for values in (before, after))
    raw = stats.wasserstein_distance(before, after) / before.std()
    assert found.wasserstein == pytest.approx(raw, rel=0.1)
    assert found.js == pytest.approx(distance.jensenshannon(p, q, 2), rel=0.1)
    assert found.psi == pytest.approx(((q - p) * np.log(q / p)).sum(), rel=0.1)


def test_of_categories_the_distances_are_those_of_scipy():
    before = table(np.random.default_rng(1), 20_000).column("colour").to_numpy(zero_copy_only=False)
    rows = table(np.random.default_rng(7), 20_000)
    after = rows.column("colour").to_numpy(zero_copy_only=False).copy()
    after[::5] = "blue"
    found = effect(changed(rows, "colour", after), "colour")
    names = np.unique(before)
    p, q = (np.array([(values == n).mean() for n in names]) for values in (before, after))
    assert found.js == pytest.approx(distance.jensenshannon(p, q, 2))
    assert found.psi == pytest.approx(((q - p) * np.log(q / p)).sum())
