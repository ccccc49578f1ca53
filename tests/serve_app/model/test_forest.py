import dataclasses

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
)

from serve_app.model.forest import CompiledForest, SklearnForest, compile_forest
from serve_app.model.proof import answer as forest_answer
from serve_app.model.proof import draw_rows, first_difference, reference_answer, threshold_rows

KERNELS = ["numba", "numpy"]


def training_rows(n_rows=400, n_features=6, missing=0.0, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_rows, n_features)).round(2)
    X[rng.random(X.shape) < missing] = np.nan
    signal = np.nan_to_num(X[:, 0]) + np.nan_to_num(X[:, 1]) ** 2 + rng.normal(size=n_rows) / 2
    return X, signal


def classes_of(signal, n_classes=3):
    return np.digitize(signal, np.quantile(signal, np.linspace(0, 1, n_classes + 1)[1:-1]))


def classifier(n_classes=2, missing=0.0, labels=None, kind=RandomForestClassifier, **options):
    X, signal = training_rows(missing=missing)
    y = classes_of(signal, n_classes)
    if labels is not None:
        y = np.array(labels)[y]
    return kind(n_estimators=11, random_state=0, **options).fit(X, y)


def regressor(missing=0.0, kind=RandomForestRegressor, transform=np.asarray, **options):
    X, signal = training_rows(missing=missing)
    return kind(n_estimators=9, random_state=0, **options).fit(X, transform(signal))


def weighted():
    X, signal = training_rows()
    weights = np.random.default_rng(1).random(len(X))
    return RandomForestClassifier(10, random_state=0).fit(X, classes_of(signal), weights)


def several_outputs(regression):
    X, signal = training_rows()
    if regression:
        return RandomForestRegressor(8, random_state=0).fit(X, np.c_[signal, -signal])
    y = np.c_[classes_of(signal, 2), classes_of(signal, 4)]
    return RandomForestClassifier(8, random_state=0).fit(X, y)


def missing_split_only():
    """A forest whose only information is whether a value is missing: its thresholds are inf."""
    X = np.array([[1.0], [np.nan]] * 50)
    return RandomForestClassifier(5, random_state=0).fit(X, np.isnan(X[:, 0]))


FORESTS = {
    "binary": classifier,
    "five classes": lambda: classifier(5),
    "missing values in training": lambda: classifier(3, missing=0.2),
    "split on being missing": missing_split_only,
    "text labels": lambda: classifier(labels=["good", "bad"]),
    "object labels": lambda: classifier(labels=np.array(["good", "bad"], dtype=object)),
    "class weights": lambda: classifier(class_weight="balanced_subsample"),
    "sample weights": weighted,
    "one class": lambda: classifier(1),
    "stumps": lambda: classifier(max_depth=1),
    "entropy": lambda: classifier(criterion="entropy", max_leaf_nodes=20),
    "monotonic": lambda: classifier(monotonic_cst=[1, 0, 0, 0, 0, 0]),
    "pruned, no bootstrap": lambda: classifier(ccp_alpha=0.02, bootstrap=False),
    "extra trees": lambda: classifier(3, kind=ExtraTreesClassifier),
    "extra trees with missing values": lambda: classifier(missing=0.2, kind=ExtraTreesClassifier),
    "regression": regressor,
    "regression with missing values": lambda: regressor(missing=0.2),
    "absolute error": lambda: regressor(criterion="absolute_error", max_depth=4),
    "poisson": lambda: regressor(criterion="poisson", transform=np.exp),
    "friedman": lambda: regressor(max_features=2, min_samples_leaf=5),
    "constant target": lambda: regressor(transform=lambda y: y * -0.0),
    "extra trees regression": lambda: regressor(kind=ExtraTreesRegressor),
    "two outputs": lambda: several_outputs(regression=False),
    "two values": lambda: several_outputs(regression=True),
}


@pytest.fixture(scope="module", params=FORESTS)
def model(request):
    return FORESTS[request.param]()


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_kind_of_forest_answers_in_the_same_bits(model, kernel):
    rng = np.random.default_rng(7)
    compiled = compile_forest(model, kernel=kernel, threads=2)
    assert compiled.reason is None
    allow_nan = compiled.packed.allow_nan
    rows = draw_rows(model, 700, rng, missing_share=0.1 if allow_nan else 0.0)
    rows = np.concatenate([rows, threshold_rows(model, rows, rng)])
    expected = reference_answer(model, rows)
    for dtype in (np.float64, np.float32):
        typed = rows.astype(dtype)
        expected_typed = expected if dtype is np.float64 else reference_answer(model, typed)
        assert forest_answer(compiled, typed).tobytes() == expected_typed.tobytes()
    one_by_one = np.concatenate([forest_answer(compiled, row[None]) for row in rows[:50]])
    assert one_by_one.tobytes() == expected[:50].tobytes()


def test_labels_and_regression_values_are_scikit_learns(model):
    rows = draw_rows(model, 100, np.random.default_rng(3), missing_share=0.0)
    compiled = compile_forest(model)
    expected, answered = model.predict(rows), compiled.predict(rows)
    assert answered.dtype == expected.dtype
    assert answered.shape == expected.shape
    assert (answered == expected).all()


@pytest.mark.parametrize("n_rows", [1, 2, 7, 8, 9, 127, 128, 129, 1023, 1024, 3001])
@pytest.mark.parametrize("kernel", KERNELS)
def test_batch_size_does_not_change_a_row(n_rows, kernel):
    forest = classifier(3, missing=0.1)
    rows = draw_rows(forest, n_rows, np.random.default_rng(n_rows), missing_share=0.1)
    compiled = compile_forest(forest, kernel=kernel, threads=2)
    assert compiled.predict_proba(rows).tobytes() == forest.predict_proba(rows).tobytes()


@settings(deadline=None, max_examples=40)
@given(data=st.data())
@pytest.mark.parametrize("kernel", KERNELS)
def test_any_row_is_answered_or_refused_alike(kernel, data):
    forest = data.draw(st.sampled_from(hypothesis_forests()))
    width = data.draw(st.sampled_from([6, 6, 6, 6, 5, 7]))
    number = st.floats(width=data.draw(st.sampled_from([32, 64])))
    rows = np.array(
        data.draw(st.lists(st.lists(number, min_size=width, max_size=width), max_size=9))
    )
    rows = rows.reshape(-1, width)
    compiled = compiled_for(forest, kernel)
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            expected = forest_answer(forest, rows)
    except ValueError:
        with pytest.raises(ValueError):
            forest_answer(compiled, rows)
    else:
        assert forest_answer(compiled, rows).tobytes() == expected.tobytes()


_FORESTS = []
_COMPILED = {}


def hypothesis_forests():
    if not _FORESTS:
        _FORESTS.extend([classifier(3, missing=0.2), regressor(), FORESTS["monotonic"]()])
    return _FORESTS


def compiled_for(forest, kernel):
    key = (id(forest), kernel)
    if key not in _COMPILED:
        _COMPILED[key] = compile_forest(forest, kernel=kernel)
    return _COMPILED[key]


def test_tables_lists_and_other_layouts_are_read_like_arrays():
    X, signal = training_rows()
    table = pd.DataFrame(X, columns=list("abcdef"))
    forest = RandomForestClassifier(10, random_state=0).fit(table, classes_of(signal))
    compiled = compile_forest(forest, check_rows=X)
    expected = forest.predict_proba(table)
    for rows in (table, X, np.asfortranarray(X), X.tolist(), X[::-1][::-1]):
        assert compiled.predict_proba(rows).tobytes() == expected.tobytes()
    with pytest.raises(ValueError, match="feature names should match"):
        compiled.predict_proba(table[list("bacdef")])


def test_large_integers_are_rounded_once():
    forest = regressor()
    rows = np.array([[2**53 + 1, 2**60 + 2**36 + 1, 16777217, 1, 2, 3]])
    assert compile_forest(forest).predict(rows).tobytes() == forest.predict(rows).tobytes()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[1.0] * 5], "X has 5 features, but RandomForestClassifier is expecting 6"),
        ([[np.inf] + [0.0] * 5], "Input X contains infinity or a value too large"),
        ([[1e39] + [0.0] * 5], "Input X contains infinity or a value too large"),
        (np.empty((0, 6)), r"Found array with 0 sample\(s\)"),
        ([0.0] * 6, "Expected 2D array"),
        ([["a"] * 6], "could not convert"),
    ],
)
@pytest.mark.parametrize("kernel", KERNELS)
def test_bad_rows_are_refused(rows, message, kernel):
    with pytest.raises(ValueError, match=message):
        compile_forest(classifier(), kernel=kernel).predict_proba(rows)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("position", [0, 700, 1999])
def test_one_bad_row_anywhere_refuses_a_threaded_batch(kernel, position):
    rows = np.zeros((2000, 6))
    rows[position, 5] = -np.inf
    compiled = compile_forest(classifier(), kernel=kernel, threads=2)
    with pytest.raises(ValueError, match="contains infinity"):
        compiled.predict_proba(rows)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("n_rows", [1, 20])
def test_missing_values_are_refused_where_the_forest_refuses_them(kernel, n_rows):
    """Older scikit-learn refuses them for some criteria; the current one accepts all."""
    compiled = compile_forest(classifier())
    strict = dataclasses.replace(compiled.packed, allow_nan=False)
    with pytest.raises(ValueError, match="contains NaN"):
        CompiledForest(strict, compiled.description, kernel=kernel).predict_proba(
            np.full((n_rows, 6), np.nan)
        )


def test_another_model_is_served_on_one_core_with_the_reason():
    X, signal = training_rows()
    boosted = GradientBoostingClassifier(n_estimators=3).fit(X, classes_of(signal, 2))
    served = compile_forest(boosted)
    assert isinstance(served, SklearnForest)
    assert "GradientBoostingClassifier is not one of" in served.reason
    assert (served.predict_proba(X) == boosted.predict_proba(X)).all()


class Optimist(RandomForestClassifier):
    def predict_proba(self, X):
        return np.ones_like(super().predict_proba(X))


def test_a_subclass_keeps_its_own_answers_and_loses_its_threads():
    X, signal = training_rows()
    model = Optimist(n_estimators=3, n_jobs=2).fit(X, classes_of(signal, 2))
    served = compile_forest(model)
    assert "Optimist is not one of" in served.reason
    assert served.predict_proba(X).min() == 1.0
    assert served._model.n_jobs == 1
    assert model.n_jobs == 2


def test_a_forest_too_large_for_its_words_falls_back():
    forest = classifier()
    forest.n_features_in_ = 1 << 28  # leaves two bits for a node's offset
    served = compile_forest(forest)
    assert isinstance(served, SklearnForest)
    assert "node offsets" in served.reason


def test_a_difference_is_found_and_named():
    forest, other = classifier(), classifier(max_depth=2)
    compiled = compile_forest(other)
    assert isinstance(compiled, CompiledForest)
    difference = first_difference(forest, compiled, check_rows=None, seed=0)
    assert difference == "answers differ from scikit-learn's on drawn rows"


def test_threshold_rows_meet_the_threshold_from_both_sides():
    forest = classifier(max_depth=1)
    rows = draw_rows(forest, 50, np.random.default_rng(0), missing_share=0.0)
    at, below, above = np.split(threshold_rows(forest, rows, np.random.default_rng(0)), 3)
    moved = (at != rows) | (below != rows)
    assert moved.any(axis=1).all()
    assert (below[moved] < above[moved]).all()


def test_warming_runs_and_changes_nothing():
    compiled = compile_forest(classifier())
    before = compiled.predict_proba(np.zeros((3, 6)))
    compiled.warm()
    assert (compiled.predict_proba(np.zeros((3, 6))) == before).all()
