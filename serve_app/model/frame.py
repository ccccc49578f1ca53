"""Rows of plain values as the table that scikit-learn's preprocessing was fitted on.

This is the reference that compiled preprocessing is proved against, and the way for every row it
does not take. Types are strict: nothing is guessed from text, as pandas would.
"""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, Final, Protocol

import numpy as np

Row = Sequence[object]

_ACCEPTED: Final[dict[str, tuple[type, ...]]] = {
    "float64": (float, int),
    "int64": (int,),
    "bool": (bool,),
    "string": (str,),
}


class FeatureLike(Protocol):
    """A column of the rows: its name and one of float64, int64, bool, string."""

    @property
    def name(self) -> str: ...

    @property
    def dtype(self) -> str: ...


class TableBuilder:
    """Builds tables in the feature order of the rows.

    int64 with missing values becomes float64 and bool with missing values object, as pandas reads
    them. Text columns get pandas's own text type, except those of ``none_columns``: these hold None
    for missing values in an object column, which fitted encoders tell apart from NaN.
    ``order`` names the columns as the model was fitted on them; None gives the bare values, for a
    model that was fitted without column names.
    """

    def __init__(
        self,
        features: Sequence[FeatureLike],
        *,
        none_columns: frozenset[str] = frozenset(),
        order: Sequence[str] | None,
    ) -> None:
        unknown = {f.dtype for f in features} - set(_ACCEPTED)
        if unknown:
            raise ValueError(f"dtype is {sorted(unknown)}, allowed are {sorted(_ACCEPTED)}")
        self._features = tuple(features)
        self._none_columns = none_columns
        self._order = None if order is None else list(order)

    def __call__(self, rows: Sequence[Row]) -> Any:
        """Raise ValueError for a wrong row length or a value of another type."""
        import pandas as pd  # a second that a replica with a stored scorer need not spend

        width = len(self._features)
        for row in rows:
            if len(row) != width:
                raise ValueError(f"a row has {len(row)} values, expected {width}")
        table = pd.DataFrame(
            {
                feature.name: self._column(number, [row[number] for row in rows])
                for number, feature in enumerate(self._features)
            }
        )
        return table.to_numpy() if self._order is None else table[self._order]

    def _column(self, number: int, values: list[Any]) -> Any:
        import pandas as pd

        feature = self._features[number]
        accepted = _ACCEPTED[feature.dtype]
        has_missing = False
        for value in values:
            if value is None:
                has_missing = True
            elif not isinstance(value, accepted) or (type(value) is bool and bool not in accepted):
                kind = type(value).__name__
                raise ValueError(f"feature {feature.name!r}: expected {feature.dtype}, got {kind}")
        try:
            match feature.dtype:
                case "int64" if not has_missing:
                    return np.array(values, dtype=np.int64)
                case "bool":
                    # As a Series, or pandas would guess another type for an array of objects.
                    return pd.Series(values, dtype="object" if has_missing else "bool")
                case "string" if feature.name in self._none_columns:
                    return pd.Series(values, dtype="object")
                case "string":
                    return pd.Series(values, dtype=TEXT_TYPE).fillna(np.nan)
            return np.array(values, dtype=np.float64)
        except OverflowError as error:
            raise ValueError(f"feature {feature.name!r}: a number is too large") from error


# pandas 2 has no text type that encoders read like its own tables: object, NaN where missing.
TEXT_TYPE: Final = "str" if int(version("pandas").split(".")[0]) >= 3 else "object"
