"""Rows on which compiled preprocessing must give scikit-learn's very vectors before it may serve.

Rows that the compiled way does not take are scikit-learn's anyway; they need no proof.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from serve_app.model.frame import FeatureLike, Row
from serve_app.model.packed import Float32s
from serve_app.model.preprocessing import Encode, Table, Unforeseen
from serve_app.model.rows import RowEncoder, known_texts

DRAWN_ROWS: Final = 256
SINGLE_ROWS: Final = 8  # a table of one row may have other types than a table of many
CHANGED_SHARE: Final = 0.2


def first_vector_difference(
    encoder: RowEncoder, preprocess: Callable[[Sequence[Row]], Any], rows: Sequence[Row]
) -> str | None:
    """Say how ``encoder`` differs from ``preprocess`` on ``rows``; None if it never does."""
    taken = [row for row in rows if _takes(encoder, row)]
    if not taken:
        return "compiled preprocessing takes none of the rows it is to be proved on"
    groups = [taken, *([row] for row in taken[:SINGLE_ROWS])]
    for group in groups:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # "found unknown categories"
                expected = to_float32(preprocess(group))
        except ValueError as error:
            return f"compiled preprocessing takes a row that scikit-learn refuses: {error}"
        if not np.array_equal(encoder(group), expected, equal_nan=True):
            return "compiled preprocessing differs from scikit-learn's"
    return None


def to_float32(vectors: Any) -> Float32s:
    """Vectors as a forest would read them."""
    with np.errstate(over="ignore"):
        return np.asarray(vectors, dtype=np.float32)


def rows_to_prove(
    table: Table, features: Sequence[FeatureLike], given: Sequence[Row], seed: int = 0
) -> list[Row]:
    """The given rows, the same with some values changed, and rows drawn freely.

    Values are known and unknown categories, missing values, and numbers of several magnitudes.
    """
    rng = np.random.default_rng(seed)
    pools = [_values(table, number, feature, rng) for number, feature in enumerate(features)]
    drawn = [[pool[rng.integers(len(pool))] for pool in pools] for _ in range(DRAWN_ROWS)]
    changed = [
        [new if rng.random() < CHANGED_SHARE else old for new, old in zip(free, row, strict=True)]
        for free, row in zip(drawn, given, strict=False)
    ]
    return [*given, *changed, *drawn]


def _values(
    table: Table, source: int, feature: FeatureLike, rng: np.random.Generator
) -> list[object]:
    columns = [column for column in table.columns if column.source == source]
    match feature.dtype:
        case "string":
            return [*known_texts(columns), None, "", "a text that no category equals"]
        case "bool":
            return [True, False]
    steps = [step for column in columns for step in column.steps if isinstance(step, Encode)]
    known = [key for step in steps for key in step.codes if isinstance(key, float)]
    drawn = (rng.normal(size=16) * 10.0 ** rng.integers(-3, 7, size=16)).tolist()
    numbers = [*known, *drawn, 0.0, 1.0]
    if feature.dtype == "int64":
        return [*(int(number) for number in numbers), None]
    return [*numbers, -0.0, 7, None]


def _takes(encoder: RowEncoder, row: Row) -> bool:
    try:
        encoder([row])
    except Unforeseen:
        return False
    return True
