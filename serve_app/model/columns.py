"""Input columns on their way between a person's table, the log's types and the model.

``columns`` here is a pyarrow.Table with one column per feature, in order, in the log's types
(``monitoring.events.ARROW_TYPES``), null for missing. What the model is given is made from that
and from nothing else, so that the model sees at training time what it will see when serving.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from monitoring.events import ARROW_TYPES, Dtype
from serve_app.errors import BundleUnbuildable
from serve_app.model.manifest import FeatureSpec

MAX_CATEGORIES: Final = 1000

# What pandas calls the content of a column, missing values left out.
_DTYPES: Final[dict[str, Dtype]] = {
    "floating": "float64",
    "mixed-integer-float": "float64",
    "integer": "int64",
    "boolean": "bool",
    "string": "string",
}


def infer_columns(
    frame: pd.DataFrame, names: Sequence[str]
) -> tuple[tuple[FeatureSpec, ...], pa.Table]:
    """Describe the named columns and convert them to the log's types.

    A column of another kind than number, bool or text raises BundleUnbuildable, and so does an
    infinite number, which a forest refuses. A column without any value is taken as float64.
    """
    dtypes = {name: _dtype_of(frame[name], name) for name in names}
    columns = convert_columns(frame, dtypes)
    features = tuple(_describe(name, dtypes[name], columns.column(name)) for name in names)
    return features, columns


def convert_columns(frame: pd.DataFrame, dtypes: dict[str, Dtype]) -> pa.Table:
    """Convert to the given log types; BundleUnbuildable names the first column that does not fit.

    Used for training data and for held-out data, which must fit the training data's types.
    """
    missing = [name for name in dtypes if name not in frame.columns]
    if missing:
        raise BundleUnbuildable(f"the data lacks the model's columns {', '.join(missing)}")
    return pa.table({name: _convert(frame[name], name, dtype) for name, dtype in dtypes.items()})


def model_frame(columns: pa.Table) -> pd.DataFrame:
    """Build the frame a model is given: NaN for missing, text as pandas' text.

    Integers and bools stay what they are while nothing is missing; with missing values integers
    become float64 and bools become objects, as they do when pandas reads a file.
    """
    return pd.DataFrame(
        {name: _model_series(columns.column(name)) for name in columns.column_names}
    )


def _model_series(column: pa.ChunkedArray) -> pd.Series:
    series: pd.Series = column.to_pandas()
    if pa.types.is_boolean(column.type) and column.null_count:
        # None would be a category of its own to an encoder that has learnt NaN.
        return series.where(series.notna(), np.nan)
    return series


def _dtype_of(series: pd.Series, name: str) -> Dtype:
    values = series.cat.categories if isinstance(series.dtype, pd.CategoricalDtype) else series
    kind = pd.api.types.infer_dtype(values, skipna=True)
    if kind == "empty":
        return "float64"
    if kind not in _DTYPES:
        raise BundleUnbuildable(
            f"column {name!r} holds {kind} values ({series.dtype}); "
            "numbers, bools and texts can be served"
        )
    return _DTYPES[kind]


def _convert(series: pd.Series, name: str, dtype: Dtype) -> pa.Array:
    values = series.astype(object) if isinstance(series.dtype, pd.CategoricalDtype) else series
    try:
        column = pa.array(values, type=ARROW_TYPES[dtype], from_pandas=True)
    except (pa.ArrowException, OverflowError) as exc:
        raise BundleUnbuildable(f"column {name!r} does not fit {dtype}: {exc}") from exc
    if isinstance(column, pa.ChunkedArray):  # pandas' own text type hands over its chunks
        column = column.combine_chunks()
    if dtype == "float64" and pc.any(pc.is_inf(column)).as_py():
        raise BundleUnbuildable(f"column {name!r} holds infinite values, which a forest refuses")
    return column


def _describe(name: str, dtype: Dtype, column: pa.ChunkedArray) -> FeatureSpec:
    nullable = column.null_count > 0
    if dtype == "string":
        distinct = pc.unique(column.drop_null()).to_pylist()
        listed = tuple(sorted(distinct)) if len(distinct) <= MAX_CATEGORIES else None
        return FeatureSpec(name=name, dtype=dtype, nullable=nullable, categories=listed)
    if dtype == "bool":
        return FeatureSpec(name=name, dtype=dtype, nullable=nullable)
    bounds = pc.min_max(column).as_py()
    return FeatureSpec(
        name=name, dtype=dtype, nullable=nullable, min=bounds["min"], max=bounds["max"]
    )
