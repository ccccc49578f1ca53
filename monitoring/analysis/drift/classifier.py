"""A second opinion, on demand: a classifier that tries to tell the window from training rows.
It sees any change of the joint distribution, interactions of three columns included, at a thousand
times the cost of the counts. It needs the rows themselves, so it is for offline use, and it takes
rows as independent: with serial dependence its p-value is too small.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy
from numpy.typing import NDArray

from monitoring.analysis.drift.columns import (
    Column,
    as_numbers,
    as_texts,
    baseline_columns,
    require_columns,
)
from monitoring.analysis.drift.errors import WindowUnusable

MIN_ROWS: Final = 100
MAX_ROWS: Final = 20_000  # of each side; more rows cost more and change little
MAX_CATEGORIES: Final = 200  # HistGradientBoosting takes at most 255


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierOpinion:
    """``auc`` on held-out rows (0.5: no difference), its one-sided p-value, and what it used.

    ``importance`` is the loss of AUC when a column is shuffled, largest first.
    """

    auc: float
    p_value: float
    rows: int
    importance: dict[str, float]


def tell_apart(baseline: pa.Table, window: pa.Table, *, seed: int) -> ClassifierOpinion:
    """Train a classifier on half of the rows to tell the two tables apart; test it on the rest.

    Mann-Whitney's test on the held-out scores is exact whatever the classifier. Raises
    WindowUnusable below 100 rows of either table or where a column is missing.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    fewest = min(baseline.num_rows, window.num_rows)
    if fewest < MIN_ROWS:
        raise WindowUnusable(f"{fewest} rows, at least {MIN_ROWS} of each table are needed")
    chosen = baseline_columns(baseline.schema)
    require_columns(window.schema, list(chosen.values()))
    rng = np.random.default_rng(seed)
    size = min(MAX_ROWS, fewest)
    first = baseline.take(np.sort(rng.choice(baseline.num_rows, size, replace=False)))
    second = window.take(np.sort(rng.choice(window.num_rows, size, replace=False)))
    X = np.column_stack([_encoded(first, second, name, column) for name, column in chosen.items()])
    y = np.repeat([0, 1], size)
    half = rng.permutation(2 * size)
    train, test = half[:size], half[size:]
    categorical = [column.kind == "category" for column in chosen.values()]
    model = HistGradientBoostingClassifier(
        categorical_features=categorical, max_iter=100, random_state=seed
    ).fit(X[train], y[train])
    scores = model.predict_proba(X[test])[:, 1]
    auc, p = _auc(scores, y[test])
    importance = _importance(model, X[test], y[test], auc, rng)
    names = [column.name for column in chosen.values()]
    ranked = sorted(zip(names, importance, strict=True), key=lambda pair: -pair[1])
    return ClassifierOpinion(auc=auc, p_value=p, rows=2 * size, importance=dict(ranked))


def _encoded(first: pa.Table, second: pa.Table, name: str, column: Column) -> NDArray[np.float64]:
    before, after = first.column(name), second.column(column.source)
    if column.kind == "number":
        return np.concatenate([as_numbers(before), as_numbers(after)])
    texts = pa.chunked_array([*as_texts(before).chunks, *as_texts(after).chunks])
    counted = sorted(
        pc.value_counts(texts.drop_null()).to_pylist(), key=lambda c: (-c["counts"], c["values"])
    )
    known = pa.array([c["values"] for c in counted[:MAX_CATEGORIES]], pa.string())
    codes = pc.fill_null(pc.index_in(texts, value_set=known), MAX_CATEGORIES).to_numpy()
    return np.where(texts.is_null().to_numpy(), np.nan, codes.astype(np.float64))


def _auc(scores: NDArray[np.float64], y: NDArray[np.int64]) -> tuple[float, float]:
    ones, zeros = scores[y == 1], scores[y == 0]
    test = scipy.stats.mannwhitneyu(ones, zeros, alternative="greater", method="asymptotic")
    return float(test.statistic) / (len(ones) * len(zeros)), float(test.pvalue)


def _importance(
    model: Any,
    X: NDArray[np.float64],
    y: NDArray[np.int64],
    auc: float,
    rng: np.random.Generator,
) -> list[float]:
    lost = []
    for index in range(X.shape[1]):
        shuffled = X.copy()
        shuffled[:, index] = rng.permutation(shuffled[:, index])
        lost.append(auc - _auc(model.predict_proba(shuffled)[:, 1], y)[0])
    return lost
