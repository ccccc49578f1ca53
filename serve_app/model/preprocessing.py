"""Preprocessing as what it does to single values: the steps from one feature to one column.

Every transformer known here treats columns one by one, so each output column is one feature with a
chain of steps. What is not known raises ``NotCompilable`` with the reason and stays as it is.
Arithmetic is Python's on float64, the same operations in the same order as scikit-learn's. Encoders
are not reimplemented: they are asked about each category they know, about a missing value, and
about one they cannot know.

A value is a float (NaN where missing) or, for text, a str or None. A step raises ``Unforeseen`` for
a value that must be left to scikit-learn.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec
import numpy as np

from serve_app.model.frame import FeatureLike

Value = float | str | None
UNKNOWN_TEXT: Final = "\x00 no such category"


class NotCompilable(Exception):
    """A transformer that is not understood column by column; the message is the reason."""


class Unforeseen(Exception):
    """A value that the compiled way does not take."""


class Fill(msgspec.Struct, frozen=True, tag=True):
    value: Value

    def __call__(self, value: Value) -> Value:
        return self.value if is_missing(value) else value


class IsMissing(msgspec.Struct, frozen=True, tag=True):
    def __call__(self, value: Value) -> Value:
        return 1.0 if is_missing(value) else 0.0


class Standardize(msgspec.Struct, frozen=True, tag=True):
    mean: float | None
    scale: float | None

    def __call__(self, value: Any) -> Value:
        if self.mean is not None:
            value = value - self.mean
        return float(value if self.scale is None else value / self.scale)


class Rescale(msgspec.Struct, frozen=True, tag=True):
    scale: float
    shift: float
    low: float = -math.inf
    high: float = math.inf

    def __call__(self, value: Any) -> Value:
        scaled = value * self.scale + self.shift
        return float(self.low if scaled < self.low else min(scaled, self.high))


class Encode(msgspec.Struct, frozen=True, tag=True):
    """One output column of an encoder. Answers that are absent are errors in the encoder."""

    codes: dict[Value, float]
    missing: float | None
    unknown: float | None

    def __call__(self, value: Value) -> Value:
        if is_missing(value):
            code = self.missing
        else:
            code = self.codes.get(value, self.unknown)
        if code is None:
            raise Unforeseen
        return code


Step = Fill | IsMissing | Standardize | Rescale | Encode


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of a table on its way: which feature it comes from and what was done to it."""

    source: int
    is_text: bool
    is_integer: bool = False  # as long as no step has changed it
    none_marks_missing: bool = False
    steps: tuple[Step, ...] = ()

    def then(self, step: Step, *, is_text: bool = False) -> "Column":
        return replace(self, steps=(*self.steps, step), is_text=is_text, is_integer=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Columns in order; ``names`` only while they are those of the input. Sparse refuses NaN."""

    columns: tuple[Column, ...]
    names: tuple[str, ...] | None = None
    sparse: bool = False


def is_missing(value: Value) -> bool:
    return value is None or value != value  # noqa: PLR0124 (NaN alone differs from itself)


def input_table(
    features: Sequence[FeatureLike], *, order: Sequence[str], none_columns: frozenset[str]
) -> Table:
    """The table before any step; ``order`` names its columns as the model was fitted on them."""
    sources = {feature.name: number for number, feature in enumerate(features)}
    return Table(
        columns=tuple(
            Column(
                source=sources[name],
                is_text=features[sources[name]].dtype == "string",
                is_integer=features[sources[name]].dtype == "int64",
                none_marks_missing=name in none_columns,
            )
            for name in order
        ),
        names=tuple(order),
    )


def follow(transformer: Any, table: Table) -> Table:
    """Add what a fitted transformer does to ``table``; raise NotCompilable if that is not known."""
    kind = type(transformer).__name__
    if transformer == "passthrough" or transformer is None:
        return table
    if not type(transformer).__module__.startswith("sklearn."):
        raise NotCompilable(f"{kind} is not scikit-learn's")
    if kind == "Pipeline":
        for _, step in transformer.steps:
            table = follow(step, table)
        return table
    if kind == "ColumnTransformer":
        return _follow_column_transformer(transformer, table)
    if table.sparse:
        raise NotCompilable(f"{kind} reads a sparse table")
    if kind not in _COLUMN_WISE:
        raise NotCompilable(f"{kind} is not among {', '.join(sorted(_COLUMN_WISE))}")
    return _COLUMN_WISE[kind](transformer, table)


def _follow_column_transformer(transformer: Any, table: Table) -> Table:
    columns: list[Column] = []
    for _, inner, selected in transformer.transformers_:
        if inner == "drop":
            continue
        positions = _positions(selected, table)
        part = Table(
            columns=tuple(table.columns[position] for position in positions),
            names=table.names and tuple(table.names[position] for position in positions),
        )
        columns.extend(follow(inner, part).columns)
    return Table(columns=tuple(columns), sparse=bool(transformer.sparse_output_))


def _positions(selected: Any, table: Table) -> list[int]:
    if isinstance(selected, slice) and all(
        edge is None or isinstance(edge, int) for edge in (selected.start, selected.stop)
    ):
        return list(range(len(table.columns)))[selected]
    if isinstance(selected, (str, int)) or not isinstance(selected, (list, tuple, np.ndarray)):
        raise NotCompilable(f"columns selected by {selected!r}")
    chosen = list(selected)
    if chosen and all(isinstance(entry, (bool, np.bool_)) for entry in chosen):
        return [position for position, wanted in enumerate(chosen) if wanted]
    if all(isinstance(entry, str) for entry in chosen) and table.names is not None:
        lacking = set(chosen) - set(table.names)
        if lacking:
            raise NotCompilable(f"columns {sorted(lacking)} are not among the features")
        return [table.names.index(name) for name in chosen]
    if all(isinstance(entry, (int, np.integer)) for entry in chosen):
        return [range(len(table.columns))[position] for position in chosen]
    raise NotCompilable(f"columns selected by {selected!r}")


def _follow_function(transformer: Any, table: Table) -> Table:
    if transformer.func is not None:
        raise NotCompilable("FunctionTransformer calls a function of its own")
    return table


def _follow_imputer(imputer: Any, table: Table) -> Table:
    columns: list[Column] = []
    if isinstance(imputer.missing_values, str) or not is_missing(imputer.missing_values):
        raise NotCompilable(f"SimpleImputer looks for {imputer.missing_values!r}")
    for column, statistic in zip(table.columns, imputer.statistics_, strict=True):
        if column.is_text and column.none_marks_missing is not (imputer.missing_values is None):
            raise NotCompilable("SimpleImputer looks for another mark of missing text")
        if column.is_integer and imputer.strategy == "constant":
            raise NotCompilable("SimpleImputer puts a constant into whole numbers")
        if column.is_text:
            columns.append(column.then(Fill(statistic), is_text=True))
        elif not math.isnan(statistic):
            columns.append(column.then(Fill(float(statistic))))
        elif imputer.keep_empty_features:
            raise NotCompilable("SimpleImputer keeps empty features")
    if imputer.indicator_ is not None:
        watched = imputer.indicator_.features_
        columns.extend(table.columns[position].then(IsMissing()) for position in watched)
    return Table(columns=tuple(columns))


def _numeric(table: Table, kind: str) -> None:
    if any(column.is_text for column in table.columns):
        raise NotCompilable(f"{kind} reads text")


def _follow_standard_scaler(scaler: Any, table: Table) -> Table:
    _numeric(table, "StandardScaler")
    means = scaler.mean_ if scaler.with_mean else [None] * len(table.columns)
    scales = scaler.scale_ if scaler.with_std else [None] * len(table.columns)
    steps = [
        Standardize(None if mean is None else float(mean), None if scale is None else float(scale))
        for mean, scale in zip(means, scales, strict=True)
    ]
    return _each(table, steps)


def _follow_min_max_scaler(scaler: Any, table: Table) -> Table:
    _numeric(table, "MinMaxScaler")
    low, high = scaler.feature_range if scaler.clip else (-math.inf, math.inf)
    pairs = zip(scaler.scale_, scaler.min_, strict=True)
    return _each(table, [Rescale(float(a), float(b), float(low), float(high)) for a, b in pairs])


def _each(table: Table, steps: Sequence[Step]) -> Table:
    pairs = zip(table.columns, steps, strict=True)
    return Table(columns=tuple(column.then(step) for column, step in pairs))


def _follow_encoder(encoder: Any, table: Table) -> Table:
    columns: list[Column] = []
    outputs = _outputs_per_column(encoder)
    first = 0
    for position, column in enumerate(table.columns):
        answers = _ask(encoder, position, column)
        for output in range(first, first + outputs[position]):
            codes = {key: answer[output] for key, answer in answers.items() if answer is not None}
            missing = codes.pop(None, None)
            unknown = codes.pop(UNKNOWN_TEXT if column.is_text else math.inf, None)
            columns.append(column.then(Encode(codes, missing, unknown)))
        first += outputs[position]
    is_sparse = bool(getattr(encoder, "sparse_output", False))
    return Table(columns=tuple(columns), sparse=is_sparse)


def _outputs_per_column(encoder: Any) -> list[int]:
    """One per column, or for one-hot one per category left after grouping and dropping."""
    if type(encoder).__name__ == "OrdinalEncoder":
        return [1] * len(encoder.categories_)
    counts = [len(categories) for categories in encoder.categories_]
    grouped = getattr(encoder, "infrequent_categories_", [None] * len(counts))
    dropped = encoder.drop_idx_ if encoder.drop_idx_ is not None else [None] * len(counts)
    return [
        count - (0 if group is None else len(group) - 1) - (0 if drop is None else 1)
        for count, group, drop in zip(counts, grouped, dropped, strict=True)
    ]


def _ask(encoder: Any, position: int, column: Column) -> dict[Value, list[float] | None]:
    """Encode each known category of one column, None for missing, and an unknown value.

    The other columns hold their first category. The unknown number is asked as a number that is no
    category and entered as infinity, which no row may hold.
    """
    known = [value for value in encoder.categories_[position].tolist() if not is_missing(value)]
    if any(isinstance(value, str) is not column.is_text for value in known):
        raise NotCompilable(f"{type(encoder).__name__} knows categories of another type")
    missing = None if column.none_marks_missing else math.nan
    unknown: Any = UNKNOWN_TEXT if column.is_text else max([0.0, *map(float, known)]) + 1.5
    questions: dict[Value, Any] = {
        value if column.is_text else float(value): value for value in known
    }
    questions[None] = missing
    questions[UNKNOWN_TEXT if column.is_text else math.inf] = unknown
    try:
        answers: list[Any] = _encoded(encoder, position, list(questions.values()))
    except ValueError:  # some of them are errors: find out which
        answers = [_encoded_alone(encoder, position, value) for value in questions.values()]
    return dict(zip(questions, answers, strict=True))


def _encoded_alone(encoder: Any, position: int, value: Any) -> list[float] | None:
    try:
        return _encoded(encoder, position, [value])[0]
    except ValueError:
        return None


def _encoded(encoder: Any, position: int, values: list[Any]) -> list[list[float]]:
    names = getattr(encoder, "feature_names_in_", range(len(encoder.categories_)))
    is_text = [categories.dtype.kind in "OU" for categories in encoder.categories_]
    cells = [[categories[0]] * len(values) for categories in encoder.categories_]
    cells[position] = values
    import pandas as pd  # a second that a replica with a stored scorer need not spend

    table = pd.DataFrame(
        {
            name: pd.Series(cell, dtype="object" if text else None)
            for name, cell, text in zip(names, cells, is_text, strict=True)
        }
    )
    rows = table if hasattr(encoder, "feature_names_in_") else table.to_numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # "found unknown categories"
        encoded = encoder.transform(rows)
    dense = encoded.toarray() if hasattr(encoded, "toarray") else np.asarray(encoded)
    numbers: list[list[float]] = dense.astype(np.float64).tolist()
    return numbers


_COLUMN_WISE: Final[dict[str, Callable[[Any, Table], Table]]] = {
    "FunctionTransformer": _follow_function,
    "SimpleImputer": _follow_imputer,
    "StandardScaler": _follow_standard_scaler,
    "MinMaxScaler": _follow_min_max_scaler,
    "OneHotEncoder": _follow_encoder,
    "OrdinalEncoder": _follow_encoder,
}
