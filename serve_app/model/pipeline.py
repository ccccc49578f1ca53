"""From rows of plain values to probabilities, the shortest way that is proved right.

Three ways, tried in this order: preprocessing and forest compiled; the fitted preprocessing kept in
front of the compiled forest; all of scikit-learn. ``reason`` tells why it is not the first. What
the compiled preprocessing does not take (an unforeseen value, a category that must raise) goes the
second way, so that answers and errors stay scikit-learn's own.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from serve_app.model.forest import (
    CompiledForest,
    Forest,
    SklearnForest,
    Task,
    compile_forest,
    on_one_core,
)
from serve_app.model.frame import FeatureLike, Row, TableBuilder
from serve_app.model.missing_marks import columns_with_none
from serve_app.model.packed import Float64s
from serve_app.model.preprocessing import NotCompilable, Unforeseen, follow, input_table
from serve_app.model.row_proof import first_vector_difference, rows_to_prove
from serve_app.model.rows import RowEncoder

logger = logging.getLogger(__name__)

CHECKED_ROWS: Final = 512
SINGLY_CHECKED_ROWS: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """How the fitted model itself gets its vectors. ``lacking`` columns it may have dropped."""

    build_table: TableBuilder
    preprocessing: Any
    order: tuple[str, ...]
    none_columns: frozenset[str]
    lacking: tuple[str, ...]

    def preprocess(self, rows: Sequence[Row]) -> Any:
        """What the fitted preprocessing makes of the rows. Raises ValueError if it refuses them."""
        table = self.build_table(rows)
        if self.preprocessing is None:
            return table
        try:
            vectors = self.preprocessing.transform(table)
        except (TypeError, KeyError) as error:
            raise ValueError(f"preprocessing refuses the rows: {error}") from error
        if not hasattr(vectors, "toarray"):
            return vectors
        if np.isnan(vectors.data).any():
            raise ValueError("Input X contains NaN, which forests refuse in sparse tables")
        return vectors.toarray()


Preprocess = Callable[[Sequence[Row]], Any]


class Scorer:
    """Scores rows of plain values in feature order; thread-safe."""

    def __init__(
        self,
        *,
        preprocess: Preprocess,
        forest: Forest,
        encoder: RowEncoder | None,
        reason: str | None,
    ) -> None:
        """``preprocess`` is the fitted model's own way, for what ``encoder`` does not take."""
        self._preprocess = preprocess
        self.encoder = encoder
        self.forest = forest
        self.reason = reason
        self.task: Task = forest.task
        is_classifier = self.task == "classification"
        self.classes = tuple(map(str, forest.classes_.tolist())) if is_classifier else ()
        self._answer = forest.predict_proba if is_classifier else forest.predict

    def score(self, rows: Sequence[Row]) -> Float64s:
        """Probabilities (rows x classes, in the order of ``classes``) or values (rows,).

        Raises ValueError for rows that scikit-learn would refuse.
        """
        try:
            return self.score_at_once(rows)
        except Unforeseen:
            scores: Float64s = self._answer(self._preprocess(rows))
            return scores

    def score_at_once(self, rows: Sequence[Row]) -> Float64s:
        """The same, but raises Unforeseen for rows that take scikit-learn: at least milliseconds.

        Where scikit-learn serves every row, it always does: a replica whose event loop is held up
        for milliseconds a request leaves the others unread, so nobody knows that they wait.
        """
        if self.encoder is None:
            raise Unforeseen
        scores: Float64s = self._answer(self.encoder(rows))
        return scores

    def warm(self) -> None:
        """Run the kernel, so that the first request meets hot code."""
        self.forest.warm()


def compile_scorer(
    model: Any,
    features: Sequence[FeatureLike],
    *,
    check_rows: Sequence[Row] | None = None,
    compiled: CompiledForest | None = None,
) -> Scorer:
    """Compile a fitted forest, or a Pipeline that ends in one, into a Scorer.

    ``check_rows`` are plain rows as they will be served: the compiled ways must give scikit-learn's
    bits on them. ``compiled`` is the forest as loaded from a cache; it is not proved again. Raises
    ValueError when the features are not the model's or the model has several outputs.
    """
    is_pipeline = type(model).__name__ == "Pipeline"
    final = on_one_core(model[-1] if is_pipeline else model)
    n_outputs = int(getattr(final, "n_outputs_", 1))
    if n_outputs > 1:
        raise ValueError(f"the model has {n_outputs} outputs, allowed is 1")
    source = _source(model, model[:-1] if is_pipeline and len(model) > 1 else None, features)
    reference = Scorer(
        preprocess=source.preprocess, forest=SklearnForest(final, ""), encoder=None, reason=None
    )
    rows = _answered(reference, list(check_rows or ())[:CHECKED_ROWS])
    forest: Forest = compiled or compile_forest(
        final, check_rows=source.preprocess(rows) if rows else None
    )
    encoder, reason = None, forest.reason
    if reason is None:
        encoder, reason = _compile_preprocessing(source, features, rows)
    scorer = Scorer(preprocess=source.preprocess, forest=forest, encoder=encoder, reason=reason)
    if rows and scorer.score(rows).tobytes() != reference.score(rows).tobytes():
        reason = "scores differ from scikit-learn's on the rows to check"
        forest = SklearnForest(final, reason)
        scorer = Scorer(preprocess=source.preprocess, forest=forest, encoder=None, reason=reason)
    if reason:
        logger.warning("%s is not compiled as a whole: %s", type(model).__name__, reason)
    return scorer


def model_preprocessing(model: Any, features: Sequence[FeatureLike]) -> Preprocess:
    """How the fitted model itself makes vectors of rows. Raises ValueError as compile_scorer."""
    is_chain = type(model).__name__ == "Pipeline" and len(model) > 1
    return _source(model, model[:-1] if is_chain else None, features).preprocess


def _source(model: Any, preprocessing: Any, features: Sequence[FeatureLike]) -> Source:
    """Find out what table the model wants. Raises ValueError if a feature it needs is lacking."""
    by_name = {feature.name: number for number, feature in enumerate(features)}
    fitted = getattr(model, "feature_names_in_", None)
    expected = list(by_name) if fitted is None else [str(name) for name in fitted]
    lacking = [name for name in expected if name not in by_name]
    if lacking and preprocessing is None:
        raise ValueError(f"features lack {lacking}, which the model was fitted on")
    n_features = getattr(model, "n_features_in_", None)
    if fitted is None and n_features is not None and n_features != len(features):
        raise ValueError(
            f"the model was fitted on {n_features} features, {len(features)} are given"
        )
    order = [name for name in expected if name in by_name]
    none_columns = frozenset(map(str, columns_with_none(preprocessing, order)))
    return Source(
        build_table=TableBuilder(
            features, none_columns=none_columns, order=None if fitted is None else order
        ),
        preprocessing=preprocessing,
        order=tuple(order),
        none_columns=none_columns,
        lacking=tuple(lacking),
    )


def _compile_preprocessing(
    source: Source, features: Sequence[FeatureLike], rows: list[Row]
) -> tuple[RowEncoder | None, str | None]:
    """An encoder if it is proved right, or the reason why there is none."""
    if source.lacking:
        return None, f"features lack {list(source.lacking)}, which the model was fitted on"
    table = input_table(features, order=source.order, none_columns=source.none_columns)
    try:
        table = follow(source.preprocessing, table)
    except NotCompilable as error:
        return None, f"preprocessing is kept: {error}"
    encoder = RowEncoder(table, features)
    candidates = rows_to_prove(table, features, rows)
    reason = first_vector_difference(encoder, source.preprocess, candidates)
    return (None if reason else encoder), reason


def _answered(reference: Scorer, rows: list[Row]) -> list[Row]:
    """Leave out rows that scikit-learn refuses: they have no answer to be compared.

    If there are any, only the first rows are looked at, one by one: each takes milliseconds.
    """
    if not rows or _answers(reference, rows):
        return rows
    return [row for row in rows[:SINGLY_CHECKED_ROWS] if _answers(reference, [row])]


def _answers(reference: Scorer, rows: list[Row]) -> bool:
    try:
        reference.score(rows)
    except ValueError:
        return False
    return True
