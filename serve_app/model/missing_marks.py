"""Which text columns a fitted model expects to hold None, not NaN, where a value is missing.

Encoders remember the mark they were fitted with as a category of its own and take the other one for
an unknown category. A log or a Parquet file cannot tell them apart, so the model is asked.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np


def columns_with_none(transformer: Any, columns: Sequence[str | int]) -> frozenset[str | int]:
    """Name the columns among ``columns``, those that ``transformer`` reads, that want None."""
    match type(transformer).__name__:
        case "Pipeline":
            # Later steps see the same columns only while nothing before has turned them to numbers.
            found: frozenset[str | int] = frozenset()
            for _, step in transformer.steps:
                found |= columns_with_none(step, columns)
                if type(step).__name__ != "SimpleImputer":
                    break
            return found
        case "ColumnTransformer":
            parts = [
                columns_with_none(inner, _selected(chosen, columns))
                for _, inner, chosen in transformer.transformers_
            ]
            return frozenset[str | int]().union(*parts)
        case "SimpleImputer":
            return frozenset(columns) if transformer.missing_values is None else frozenset()
    categories = getattr(transformer, "categories_", None)
    if categories is None or len(categories) != len(columns):
        return frozenset()
    pairs = zip(columns, categories, strict=True)
    return frozenset(column for column, known in pairs if any(v is None for v in known.tolist()))


def _selected(chosen: Any, columns: Sequence[str | int]) -> list[str | int]:
    if isinstance(chosen, slice):
        whole = chosen.start is None or isinstance(chosen.start, int)
        return list(columns)[chosen] if whole else []
    entries = [chosen] if isinstance(chosen, (str, int)) else list(chosen)
    if entries and all(isinstance(entry, (bool, np.bool_)) for entry in entries):
        return [column for column, wanted in zip(columns, entries, strict=False) if wanted]
    return [entry if isinstance(entry, str) else columns[int(entry)] for entry in entries]
