"""Tensors of the Open Inference Protocol, as JSON carries them, to rows and back.

Specification: github.com/kserve/open-inference-protocol, ``inference_rest.md``.

Invariants:

- A request holds one tensor per feature, of shape [n] or [n, 1]; or, when every feature is a
  number, a single one of shape [n, features] under a name that is no feature's.
- ``data`` is flat in row-major order, or nested as ``shape`` says. Values are what ``datatype``
  says and are then checked as ``POST /predict`` checks them.
- ``null`` is a missing value. The protocol has none; metadata says which inputs take it.
- Members that are not named here are ignored: clients send parameters of other servers.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Annotated, Any, Final, Literal

import msgspec

from serve_app.schema import (
    PYTHON_TYPES,
    FeatureSpec,
    Prediction,
    RequestInvalidError,
    RequestMalformedError,
    Row,
)

# fmt: off
Datatype = Literal[
    "BOOL", "BYTES", "FP32", "FP64",
    "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64",
]
# fmt: on
Dimension = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]

DATATYPE_OF: Final[dict[str, Datatype]] = {
    "float64": "FP64",
    "int64": "INT64",
    "bool": "BOOL",
    "string": "BYTES",
}
NUMBERS: Final = ("float64", "int64")
NAMED_UNKNOWN: Final = 20  # unknown tensors an answer names

_VALUE_TYPES: Final[dict[str, Any]] = {
    "BOOL": bool,
    "BYTES": str,
    "FP32": float,
    "FP64": float,
    **{
        f"INT{bits}": Annotated[int, msgspec.Meta(ge=-(2 ** (bits - 1)), le=2 ** (bits - 1) - 1)]
        for bits in (8, 16, 32, 64)
    },
    **{f"UINT{bits}": Annotated[int, msgspec.Meta(ge=0, le=2**bits - 1)] for bits in (8, 16, 32)},
    # msgspec takes no bound above int64; an int64 feature bounds the value itself.
    "UINT64": Annotated[int, msgspec.Meta(ge=0)],
}


class InputTensor(msgspec.Struct, frozen=True):
    name: str
    shape: list[Dimension]
    datatype: Datatype
    data: list[Any]


class RequestedOutput(msgspec.Struct, frozen=True):
    name: str


class InferRequest(msgspec.Struct, frozen=True):
    inputs: Annotated[list[InputTensor], msgspec.Meta(min_length=1)]
    id: str | None = None
    parameters: dict[str, Any] | None = None
    outputs: list[RequestedOutput] | None = None


class OutputTensor(msgspec.Struct, frozen=True):
    """``data`` is flat, in row-major order."""

    name: str
    shape: list[int]
    datatype: Datatype
    data: list[Any]


class _MisfitError(ValueError):
    """One tensor does not fit its feature."""


_decode: Final = msgspec.json.Decoder(InferRequest).decode


def decode_infer(body: bytes) -> InferRequest:
    """Decode one body; raise RequestMalformedError or RequestInvalidError, as schema.py does."""
    try:
        try:
            return _decode(body)
        except msgspec.ValidationError as exc:
            # The typed decoder stops at the first misfit; the body may be broken further on.
            msgspec.json.decode(body)
            raise RequestInvalidError(str(exc)) from exc
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise RequestMalformedError(str(exc)) from exc
    except RecursionError as exc:
        raise RequestMalformedError("JSON is nested too deeply") from exc


def read_rows(tensors: Sequence[InputTensor], features: Sequence[FeatureSpec]) -> list[Row]:
    """Turn a request's tensors into rows in feature order.

    Raises RequestInvalidError, whose errors name every feature that is missing or misfits.
    """
    if _is_matrix(tensors, features):
        columns = _split(tensors[0], features)
    else:
        columns = _pick(tensors, features)
    lengths = {len(column) for column in columns}
    if len(lengths) > 1:
        shapes = [{"field": f"inputs.{t.name}", "detail": f"shape {t.shape}"} for t in tensors]
        raise RequestInvalidError("`inputs`: the tensors differ in their number of rows", shapes)
    if lengths == {0}:
        raise RequestInvalidError("`inputs`: no rows; at least one is needed")
    return list(zip(*columns, strict=True))


def _is_matrix(tensors: Sequence[InputTensor], features: Sequence[FeatureSpec]) -> bool:
    return (
        len(tensors) == 1
        and len(tensors[0].shape) == 2
        and all(spec.dtype in NUMBERS and spec.name != tensors[0].name for spec in features)
    )


def _split(tensor: InputTensor, features: Sequence[FeatureSpec]) -> list[list[Any]]:
    """Columns of one tensor that holds all features."""
    width = len(features)
    if tensor.shape[1] != width:
        detail = f"shape {tensor.shape}; the model has {width} features, so [n, {width}] is taken"
        raise _invalid([{"field": f"inputs.{tensor.name}", "detail": detail}])
    try:
        flat = _flatten(tensor, width)
    except _MisfitError as exc:
        raise _invalid([{"field": f"inputs.{tensor.name}", "detail": str(exc)}]) from exc
    columns = {
        spec.name: InputTensor(spec.name, tensor.shape[:1], tensor.datatype, flat[at::width])
        for at, spec in enumerate(features)
    }
    return _check_columns(columns, features, [])


def _pick(tensors: Sequence[InputTensor], features: Sequence[FeatureSpec]) -> list[list[Any]]:
    """Columns in feature order out of one tensor each."""
    names = {spec.name for spec in features}
    counted = Counter(tensor.name for tensor in tensors)
    errors = [_error(name, "missing tensor") for name in names - counted.keys()]
    errors += [_error(n, "unknown tensor") for n in [*counted.keys() - names][:NAMED_UNKNOWN]]
    errors += [_error(name, "given twice") for name in names if counted[name] > 1]
    columns: dict[str, InputTensor] = {}
    for tensor in tensors:
        if tensor.name not in names:
            continue
        try:
            if tensor.shape[1:] not in ([], [1]) or not tensor.shape:
                raise _MisfitError(f"shape {tensor.shape}; [n] and [n, 1] are taken")
            columns[tensor.name] = msgspec.structs.replace(tensor, data=_flatten(tensor, 1))
        except _MisfitError as exc:
            errors.append(_error(tensor.name, str(exc)))
    return _check_columns(columns, features, errors)


def _flatten(tensor: InputTensor, width: int) -> list[Any]:
    """The tensor's values in row-major order; ``width`` to a row."""
    rows, data = tensor.shape[0], tensor.data
    if (
        len(tensor.shape) == 2
        and len(data) == rows
        and all(type(row) is list and len(row) == width for row in data)
    ):
        return list(chain.from_iterable(data))
    if len(data) != rows * width:
        raise _MisfitError(f"shape {tensor.shape} does not fit `data` of {len(data)} entries")
    return data


def _check_columns(
    columns: Mapping[str, InputTensor],
    features: Sequence[FeatureSpec],
    errors: list[dict[str, str]],
) -> list[list[Any]]:
    """Check the flat values of each feature; ``errors`` are those already found."""
    checked = []
    for spec in features:
        if spec.name not in columns:
            continue
        try:
            checked.append(_check_column(columns[spec.name], spec))
        except (_MisfitError, msgspec.ValidationError) as exc:
            errors.append(_error(spec.name, str(exc)))
    if errors:
        raise _invalid(sorted(errors, key=lambda error: error["field"]))
    return checked


def _check_column(tensor: InputTensor, spec: FeatureSpec) -> list[Any]:
    """The values as the feature's Python type, None where missing."""
    datatype, own = tensor.datatype, DATATYPE_OF[spec.dtype]
    if datatype != own and (spec.dtype not in NUMBERS or datatype in ("BOOL", "BYTES")):
        taken = own if spec.dtype not in NUMBERS else "FP32, FP64, INT8 to INT64, UINT8 to UINT64"
        raise _MisfitError(f"datatype {datatype}; {taken} is taken")
    checked: list[Any] = msgspec.convert(tensor.data, _list_of(_VALUE_TYPES[datatype], spec))
    if spec.dtype == "int64" and datatype.startswith("FP"):
        # JSON of a float tensor writes 3 as 3.0: a whole number all the same.
        checked = [int(v) if v is not None and v.is_integer() else v for v in checked]
    if datatype != own:
        checked = msgspec.convert(checked, _list_of(PYTHON_TYPES[spec.dtype], spec))
    return checked


def _list_of(kind: Any, spec: FeatureSpec) -> Any:
    return list[kind | None] if spec.nullable else list[kind]


def _error(name: str, detail: str) -> dict[str, str]:
    return {"field": f"inputs.{name}", "detail": detail}


def _invalid(errors: list[dict[str, str]]) -> RequestInvalidError:
    first = errors[0]
    return RequestInvalidError(f"`{first['field']}`: {first['detail']}", errors)


def output_names(classes: Sequence[str]) -> tuple[str, ...]:
    """Names of a model's outputs; without ``classes`` it is a regression.

    >>> output_names(())
    ('score',)
    """
    return ("label", "score", "probabilities") if classes else ("score",)


def write_outputs(
    predictions: Sequence[Prediction], names: Sequence[str], *, classes: int
) -> list[OutputTensor]:
    """Write predictions as the tensors named: ``label``, ``score``, ``probabilities``."""
    rows = len(predictions)
    tensors = []
    for name in names:
        if name == "label":
            labels = [each.label for each in predictions]
            tensors.append(OutputTensor(name, [rows], "BYTES", labels))
        elif name == "score":
            scores = [each.score for each in predictions]
            tensors.append(OutputTensor(name, [rows], "FP64", scores))
        else:
            flat = list(chain.from_iterable(each.probabilities or () for each in predictions))
            tensors.append(OutputTensor(name, [rows, classes], "FP64", flat))
    return tensors
