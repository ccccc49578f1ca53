"""Rows on which a compiled forest must give scikit-learn's very bits before it may serve.

The rows that matter lie at split thresholds: there a wrong rounding, a ``<`` for a ``<=`` or a
mistaken way for missing values shows. They are placed with scikit-learn's own tree arrays, so that
the proof shares nothing with what it proves.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from serve_app.model.packed import Float64s

CHECKED_ROWS: Final = 512
SINGLE_ROWS: Final = 64  # these are also asked one at a time, which takes another code path
MISSING_SHARE: Final = 0.05


def first_difference(model: Any, compiled: Any, *, check_rows: Any, seed: int) -> str | None:
    """Say where ``compiled`` first answers otherwise than ``model``; None when it never does.

    Asks about ``check_rows``, rows made of thresholds, and rows moved to, below and above the
    threshold of a split that they reach.
    """
    rng = np.random.default_rng(seed)
    allow_nan = compiled.packed.allow_nan
    drawn = draw_rows(model, CHECKED_ROWS, rng, missing_share=MISSING_SHARE if allow_nan else 0.0)
    groups = {"drawn rows": drawn, "rows at thresholds": threshold_rows(model, drawn, rng)}
    if check_rows is not None and len(check_rows):
        try:
            given = np.asarray(check_rows, dtype=np.float64)
        except (TypeError, ValueError) as error:
            return f"the rows to check are not numbers: {error}"
        groups["given rows"] = given
        some = given[rng.permutation(len(given))[:CHECKED_ROWS]]
        groups["given rows at thresholds"] = threshold_rows(model, some, rng)
    for name, rows in groups.items():
        expected = reference_answer(model, rows)
        answered = answer(compiled, rows)
        single = np.concatenate([answer(compiled, row[None]) for row in rows[:SINGLE_ROWS]])
        if answered.tobytes() != expected.tobytes():
            return f"answers differ from scikit-learn's on {name}"
        if single.tobytes() != expected[:SINGLE_ROWS].tobytes():
            return f"answers differ from scikit-learn's on single {name}"
    return None


def answer(forest: Any, rows: Any) -> Float64s:
    """Probabilities or values as one float64 array (rows x columns)."""
    means = forest.predict_proba(rows) if hasattr(forest, "classes_") else forest.predict(rows)
    columns = means if isinstance(means, list) else [means.reshape(len(rows), -1)]
    return np.ascontiguousarray(np.concatenate(columns, axis=1))


def reference_answer(model: Any, rows: Float64s) -> Float64s:
    """The same from scikit-learn, which warns about arrays if it was fitted on a table."""
    names = getattr(model, "feature_names_in_", None)
    return answer(model, rows if names is None else pd.DataFrame(rows, columns=names))


def draw_rows(
    model: Any, n_rows: int, rng: np.random.Generator, *, missing_share: float
) -> Float64s:
    """Rows whose values are thresholds of their feature, jittered on every second row."""
    rows = np.zeros((n_rows, int(model.n_features_in_)))
    features = np.concatenate([tree.tree_.feature for tree in model.estimators_])
    thresholds = np.concatenate([tree.tree_.threshold for tree in model.estimators_])
    finite = np.isfinite(thresholds)
    for feature in range(rows.shape[1]):
        pool = thresholds[(features == feature) & finite]
        if not len(pool):
            pool = np.zeros(1)
        rows[:, feature] = rng.choice(pool, n_rows)
        rows[::2, feature] += rng.normal(0.0, pool.std() + 1e-3, len(rows[::2]))
    rows[rng.random(rows.shape) < missing_share] = np.nan
    limit = np.finfo(np.float32).max
    return np.clip(rows, -limit, limit)


def threshold_rows(model: Any, rows: Float64s, rng: np.random.Generator) -> Float64s:
    """Move each row to a threshold it meets on its way down one tree: at, just below, just above.

    The new value may change where the row goes from there on, but it still reaches that split.
    Rows of trees without a split stay as they are.
    """
    moved = [rows.copy(), rows.copy(), rows.copy()]
    tree_of = rng.integers(len(model.estimators_), size=len(rows))
    for number in np.unique(tree_of):
        tree = model.estimators_[number].tree_
        mine = np.flatnonzero(tree_of == number)
        split = _splits_met(tree, rows[mine], rng)
        mine, split = mine[split >= 0], split[split >= 0]
        at = tree.threshold[split]
        feature = tree.feature[split]
        usable = np.isfinite(at)
        mine, at, feature = mine[usable], at[usable], feature[usable]
        nearest = at.astype(np.float32)
        moved[0][mine, feature] = at
        moved[1][mine, feature] = np.nextafter(nearest, np.float32(-np.inf))
        moved[2][mine, feature] = np.nextafter(nearest, np.float32(np.inf))
    stacked = np.concatenate(moved)
    limit = np.finfo(np.float32).max
    return np.clip(stacked, -limit, limit)


def _splits_met(tree: Any, rows: Float64s, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """One split on each row's path, at a random depth; -1 where there is none."""
    stop_at = rng.integers(0, max(1, tree.max_depth), size=len(rows))
    x = rows.astype(np.float32)
    node = np.zeros(len(rows), dtype=np.int64)
    met = np.full(len(rows), -1, dtype=np.int64)
    for depth in range(tree.max_depth):
        on = (tree.children_left[node] >= 0) & (depth <= stop_at)
        met[on] = node[on]
        value = x[np.arange(len(rows)), np.maximum(tree.feature[node], 0)]
        missing_left = tree.missing_go_to_left[node].astype(bool)
        left = np.where(np.isnan(value), missing_left, value <= tree.threshold[node])
        child = np.where(left, tree.children_left[node], tree.children_right[node])
        node = np.where(on, child, node)
    return met
