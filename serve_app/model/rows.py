"""Rows of plain values straight to the float32 vectors of a forest.

Each run of columns that come from one feature becomes one *field*: a function from the feature's
value to the bytes of those float32 numbers. Text is looked up in a table of ready bytes.
"""

import math
import struct
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any, Final

import numpy as np

from serve_app.model.frame import FeatureLike, Row
from serve_app.model.packed import Float32s
from serve_app.model.preprocessing import (
    UNKNOWN_TEXT,
    Column,
    Encode,
    Fill,
    Table,
    Unforeseen,
    is_missing,
)

LARGEST_EXACT_INTEGER: Final = 2**53  # beyond it float64 rounds, and pandas's way may round twice

Field = Callable[[Any], bytes]


class RowEncoder:
    """Encodes rows for the forest; raises Unforeseen for what scikit-learn must look at itself."""

    def __init__(self, table: Table, features: Sequence[FeatureLike]) -> None:
        self.table = table
        self._width = width = len(features)
        self._fields: list[tuple[int, Field]] = []
        for source, run in groupby(table.columns, key=lambda column: column.source):
            columns = list(run)
            field = _text_field if features[source].dtype == "string" else _number_field
            made = field(columns, features[source].dtype, refuse_nan=table.sparse)
            self._fields.append((source, made))
        self._n_columns = len(table.columns)
        self._pack_plain = struct.Struct(f"{width}f").pack if _is_plain(table, features) else None
        self._floats = (float,) * width

    def __call__(self, rows: Sequence[Row]) -> Float32s:
        fields, width, pack_plain = self._fields, self._width, self._pack_plain
        parts: list[bytes] = []
        for row in rows:
            if pack_plain is not None and tuple(map(type, row)) == self._floats:
                parts.append(_pack_floats(pack_plain, row))
                continue
            if len(row) != width:
                raise ValueError(f"a row has {len(row)} values, expected {width}")
            try:
                parts += [field(row[source]) for source, field in fields]
            except TypeError:  # a list or an object cannot be looked up in a table of texts
                raise Unforeseen from None
        vectors = np.frombuffer(b"".join(parts), dtype=np.float32)
        return vectors.reshape(len(rows), self._n_columns)


def _is_plain(table: Table, features: Sequence[FeatureLike]) -> bool:
    """Whether a row of floats is the forest's vector as it stands: 1 microsecond instead of 6."""
    sources = [column.source for column in table.columns]
    steps = [step for column in table.columns for step in column.steps]
    return (
        not table.sparse
        and sources == list(range(len(features)))
        and all(feature.dtype == "float64" for feature in features)
        and not steps
    )


def _pack_floats(pack: Callable[..., bytes], row: Sequence[Any]) -> bytes:
    try:
        return pack(*row)
    except OverflowError:  # beyond float32: scikit-learn refuses it in its own words
        raise Unforeseen from None


class _TextTable(dict[Any, bytes]):
    """Ready bytes by text, with a way for texts that training never saw."""

    unknown: bytes | None = None

    def __missing__(self, text: object) -> bytes:
        if self.unknown is None or type(text) is not str:
            raise Unforeseen
        return self.unknown


def _text_field(columns: list[Column], dtype: str, *, refuse_nan: bool) -> Field:
    table = _TextTable()
    for text in [*known_texts(columns), None, UNKNOWN_TEXT]:
        try:
            numbers = [_run(column, text) for column in columns]
            if refuse_nan and any(map(is_missing, numbers)):
                continue
            table[text] = _pack(numbers)
        except Unforeseen:
            continue
    table.unknown = table.pop(UNKNOWN_TEXT, None)
    return table.__getitem__


def known_texts(columns: Sequence[Column]) -> list[str]:
    """All texts that any step of these columns treats in its own way."""
    texts: dict[str, None] = {}
    for column in columns:
        for step in column.steps:
            if isinstance(step, Encode):
                texts.update((key, None) for key in step.codes if isinstance(key, str))
            elif isinstance(step, Fill) and isinstance(step.value, str):
                texts[step.value] = None
    return list(texts)


def _number_field(columns: list[Column], dtype: str, *, refuse_nan: bool) -> Field:
    wanted = {"float64": float, "int64": int, "bool": bool}[dtype]
    takes_missing = dtype != "bool"  # pandas makes an object column of it
    pack = struct.Struct(f"{len(columns)}f").pack
    chains = [column.steps for column in columns]

    def field(value: Any) -> bytes:
        kind = type(value)
        if kind is wanted or (kind is int and wanted is float):
            number = _checked(value)
        elif value is None and takes_missing:
            number = math.nan
        else:
            raise Unforeseen
        numbers = []
        for steps in chains:
            result: Any = number
            for step in steps:
                result = step(result)
            if refuse_nan and result != result:  # noqa: PLR0124 (NaN alone differs from itself)
                raise Unforeseen
            numbers.append(result)
        try:
            return pack(*numbers)
        except OverflowError:  # beyond float32: scikit-learn refuses it in its own words
            raise Unforeseen from None

    return field


def _checked(value: float) -> float:
    if isinstance(value, int):
        if not -LARGEST_EXACT_INTEGER <= value <= LARGEST_EXACT_INTEGER:
            raise Unforeseen
        return float(value)
    if math.isinf(value):
        raise Unforeseen
    return value


def _run(column: Column, value: Any) -> Any:
    for step in column.steps:
        value = step(value)
    return value


def _pack(numbers: list[Any]) -> bytes:
    try:
        return struct.pack(f"{len(numbers)}f", *numbers)
    except (struct.error, OverflowError):
        raise Unforeseen from None
