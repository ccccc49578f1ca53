"""Which columns of a baseline and of a window are compared, and under which name.

A bundle's baseline and the stored log carry features as ``x_<feature>``, next to predictions whose
columns differ in name: the log's ``label`` is the model's answer, while the baseline's ``label`` is
the truth and its ``predicted`` the answer. Plain tables carry features under their own names.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from monitoring.analysis.drift.errors import WindowUnusable
from monitoring.events import FEATURE_PREFIX

Kind = Literal["number", "category"]
Role = Literal["feature", "prediction"]

# In plain tables these are not inputs of the model.
NOT_FEATURES: Final = frozenset({"label", "predicted", "probabilities", "weight"})

# In a baseline's metadata: a forest is far surer of rows it was trained on than of any others.
PREDICTIONS_KEY: Final = b"treeline.predictions"
OUT_OF_BAG: Final = b"out-of-bag"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One compared column: ``name`` in reports, ``source`` in windows.

    ``float_bits`` of the baseline's numbers: 0.1 stored in 32 bits is not 0.1 in 64, so a window's
    finer numbers are rounded to the baseline's before they are compared.
    """

    name: str
    source: str
    kind: Kind
    role: Role = "feature"
    float_bits: int = 64


def kind_of(arrow_type: pa.DataType) -> Kind | None:
    """Tell how a column is compared; None for types that are not (times, lists, maps, bytes).

    >>> kind_of(pa.bool_()), kind_of(pa.string()), kind_of(pa.timestamp("us"))
    ('number', 'category', None)
    """
    types = pa.types
    if types.is_dictionary(arrow_type):
        return "category" if kind_of(arrow_type.value_type) == "category" else None
    if types.is_string(arrow_type) or types.is_large_string(arrow_type):
        return "category"
    if types.is_string_view(arrow_type):
        return "category"
    plain = types.is_integer(arrow_type) or types.is_floating(arrow_type)
    number = plain or types.is_boolean(arrow_type) or types.is_decimal(arrow_type)
    return "number" if number or types.is_null(arrow_type) else None


def baseline_columns(schema: pa.Schema) -> dict[str, Column]:
    """Choose the compared columns of a baseline: its column's name to what it is in windows."""
    logged = [name for name in schema.names if name.startswith(FEATURE_PREFIX)]
    chosen: dict[str, Column] = {}
    for name in logged or [name for name in schema.names if name not in NOT_FEATURES]:
        kind = kind_of(schema.field(name).type)
        if kind is not None:
            plain = name.removeprefix(FEATURE_PREFIX) if logged else name
            chosen[name] = Column(
                name=plain, source=name, kind=kind, float_bits=_float_bits(schema.field(name).type)
            )
    if logged:
        chosen |= _prediction_columns(schema)
    return chosen


def _prediction_columns(schema: pa.Schema) -> dict[str, Column]:
    chosen: dict[str, Column] = {}
    # Regression has no predicted label: the column is there, and null throughout.
    if "predicted" in schema.names and kind_of(schema.field("predicted").type) == "category":
        chosen["predicted"] = Column(
            name="predicted label", source="label", kind="category", role="prediction"
        )
    if "score" in schema.names:
        chosen["score"] = Column(
            name="score",
            source="score",
            kind="number",
            role="prediction",
            float_bits=_float_bits(schema.field("score").type),
        )
    return chosen


def _float_bits(arrow_type: pa.DataType) -> int:
    return arrow_type.bit_width if pa.types.is_floating(arrow_type) else 64


def comparable_predictions(baseline: pa.Table) -> pa.Table:
    """Leave predictions out that were made on the rows the model was trained on."""
    if (baseline.schema.metadata or {}).get(PREDICTIONS_KEY) == OUT_OF_BAG:
        return baseline
    return baseline.drop_columns([c for c in ("predicted", "score") if c in baseline.schema.names])


def answers_as_label(window: pa.Table) -> pa.Table:
    """Read a window that carries ``predicted``, as a baseline does, as the log would have it.

    Its ``label`` is the truth then, and the answer takes its place. Any other window stays.
    """
    if "predicted" not in window.schema.names:
        return window
    rest = window.drop_columns([c for c in ("label", "predicted") if c in window.schema.names])
    return rest.append_column("label", window.column("predicted"))


def require_columns(schema: pa.Schema, columns: Sequence[Column]) -> None:
    """Raise WindowUnusable, naming every column that is absent or of another kind."""
    problems = []
    for column in columns:
        if column.source not in schema.names:
            problems.append(f"column {column.source!r} is missing")
            continue
        arrow_type = schema.field(column.source).type
        if not pa.types.is_null(arrow_type) and kind_of(arrow_type) != column.kind:
            problems.append(f"column {column.source!r} is {arrow_type}, not a {column.kind}")
    if problems:
        raise WindowUnusable("window does not fit its baseline: " + "; ".join(problems))


def as_numbers(array: pa.Array | pa.ChunkedArray, float_bits: int = 64) -> NDArray[np.float64]:
    """Turn a numeric, boolean or null column into float64, NaN where missing.

    Values keep no more than the precision of ``float_bits``.
    """
    if not pa.types.is_floating(array.type):
        # Arrow casts bool to float only by way of an integer.
        array = pc.cast(array, pa.uint8()) if pa.types.is_boolean(array.type) else array
        array = pc.cast(array, pa.float64(), safe=False)
    values = (
        array.to_numpy()
        if isinstance(array, pa.ChunkedArray)
        else array.to_numpy(zero_copy_only=False)
    )
    if values.dtype.itemsize * 8 > float_bits:
        values = values.astype(f"f{float_bits // 8}")
    return np.asarray(values, np.float64)


def as_texts(array: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Turn a categorical or null column into strings."""
    return array if pa.types.is_string(array.type) else pc.cast(array, pa.string())
