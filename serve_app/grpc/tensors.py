"""Tensors of the Open Inference Protocol, as protobuf carries them, to those of REST and back.

Specification: github.com/kserve/open-inference-protocol, ``inference_grpc.md``. What a tensor may
hold is checked where REST's tensors are: ``serve_app/http/tensors.py``.

Invariants:

- A request's values stand all in ``contents`` or all in ``raw_input_contents``: flat, in row-major
  order, little-endian, each text behind its length as four bytes. The answer takes the same way.
- NaN is a missing value, and so is text equal to the tensor's parameter ``missing``: protobuf has
  no null.
- Shapes are checked before values are looked at, so that a message costs no more than the rows and
  features it may have.
"""

import math
import struct
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np

from serve_app.grpc.open_inference_pb2 import ModelInferRequest, ModelInferResponse
from serve_app.http.tensors import Datatype, InputTensor, OutputTensor
from serve_app.schema import RequestInvalidError, RequestTooLargeError

MISSING: Final = "missing"
MAX_NAME: Final = 100  # characters of a caller's name that an answer repeats
CONTENTS_OF: Final[dict[str, str]] = {
    "BOOL": "bool_contents",
    "BYTES": "bytes_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
}
_RAW_TYPES: Final[dict[str, str]] = {
    "BOOL": "?",
    "FP32": "<f4",
    "FP64": "<f8",
    **{f"INT{8 * size}": f"<i{size}" for size in (1, 2, 4, 8)},
    **{f"UINT{8 * size}": f"<u{size}" for size in (1, 2, 4, 8)},
}
_LENGTH: Final = struct.Struct("<I")


class _MisfitError(ValueError):
    """One tensor's values cannot be read."""


def read_tensors(
    request: ModelInferRequest, *, max_rows: int, max_columns: int
) -> list[InputTensor]:
    """The request's input tensors, of at most ``max_rows`` by ``max_columns`` values each.

    Raises RequestTooLargeError for more rows, RequestInvalidError naming each tensor that cannot be
    read otherwise.
    """
    inputs, raw = request.inputs, request.raw_input_contents
    if not inputs:
        raise RequestInvalidError("`inputs`: no tensors; at least one is needed")
    if raw and len(raw) != len(inputs):
        detail = f"`raw_input_contents`: {len(raw)} entries for {len(inputs)} tensors"
        raise RequestInvalidError(detail)
    tensors: list[InputTensor] = []
    errors: list[dict[str, str]] = []
    for position, tensor in enumerate(inputs):
        try:
            count = _count(tensor.shape, max_rows, max_columns)
            if raw:
                data = _read_raw(tensor, raw[position], count)
            else:
                data = _read_contents(tensor, count)
            data = _mark(data, tensor)
        except _MisfitError as exc:
            errors.append({"field": f"inputs.{tensor.name[:MAX_NAME]}", "detail": str(exc)})
            continue
        tensors.append(InputTensor(tensor.name, list(tensor.shape), tensor.datatype, data))
    if errors:
        first = errors[0]
        raise RequestInvalidError(f"`{first['field']}`: {first['detail']}", errors)
    return tensors


def _count(shape: Sequence[int], max_rows: int, max_columns: int) -> int:
    """How many values a tensor of this shape holds."""
    if len(shape) not in (1, 2) or min(shape) < 0:
        shown = list(shape[:3])
        raise _MisfitError(f"shape {shown}; [n], [n, 1] and [n, {max_columns}] are taken")
    if shape[0] > max_rows:
        raise RequestTooLargeError(f"{shape[0]} rows; at most {max_rows} are taken")
    if len(shape) == 2 and shape[1] > max_columns:
        raise _MisfitError(f"shape {list(shape)}; [n, {max_columns}] is taken at most")
    return math.prod(shape)


def _read_contents(tensor: ModelInferRequest.InferInputTensor, count: int) -> list[Any]:
    field = _known(tensor.datatype, CONTENTS_OF)
    filled = [descriptor.name for descriptor, _ in tensor.contents.ListFields()]
    if filled not in ([], [field]):
        raise _MisfitError(f"{tensor.datatype} values stand in {field}, not {', '.join(filled)}")
    values = getattr(tensor.contents, field)
    if len(values) != count:
        raise _MisfitError(f"shape {list(tensor.shape)} does not fit {len(values)} values")
    return _texts(values) if tensor.datatype == "BYTES" else list(values)


def _read_raw(tensor: ModelInferRequest.InferInputTensor, raw: bytes, count: int) -> list[Any]:
    if tensor.contents.ListFields():
        raise _MisfitError("both contents and raw_input_contents are given")
    if tensor.datatype == "BYTES":
        return _texts(_split_raw(raw, count))
    dtype = np.dtype(_known(tensor.datatype, _RAW_TYPES))
    if len(raw) != count * dtype.itemsize:
        detail = f"shape {list(tensor.shape)} of {tensor.datatype} does not fit {len(raw)} bytes"
        raise _MisfitError(detail)
    values: list[Any] = np.frombuffer(raw, dtype).tolist()
    return values


def _known(datatype: str, names: dict[str, str]) -> str:
    if datatype not in names:
        shown = datatype[:MAX_NAME]
        raise _MisfitError(f"datatype {shown!r}; taken are {', '.join(CONTENTS_OF)}")
    return names[datatype]


def _split_raw(raw: bytes, count: int) -> list[bytes]:
    texts: list[bytes] = []
    position = 0
    while position < len(raw):
        if len(texts) == count:
            raise _MisfitError(f"the raw bytes hold more than the {count} texts of its shape")
        begin = position + _LENGTH.size
        if begin > len(raw):
            raise _MisfitError("the raw bytes end within a length")
        (length,) = _LENGTH.unpack_from(raw, position)
        position = begin + length
        if position > len(raw):
            raise _MisfitError("the raw bytes end within a text")
        texts.append(raw[begin:position])
    if len(texts) != count:
        raise _MisfitError(f"the raw bytes hold {len(texts)} texts, its shape {count}")
    return texts


def _texts(values: Iterable[bytes]) -> list[Any]:
    try:
        return [value.decode() for value in values]
    except UnicodeDecodeError as exc:
        raise _MisfitError("a text is not UTF-8") from exc


def _mark(data: list[Any], tensor: ModelInferRequest.InferInputTensor) -> list[Any]:
    """Put None where a value is missing."""
    if tensor.datatype in ("FP32", "FP64"):
        return [None if math.isnan(value) else value for value in data]
    if tensor.datatype == "BYTES" and MISSING in tensor.parameters:
        parameter = tensor.parameters[MISSING]
        if parameter.WhichOneof("parameter_choice") != "string_param":
            raise _MisfitError(f"the parameter {MISSING!r} is a text (string_param)")
        missing = parameter.string_param
        return [None if value == missing else value for value in data]
    return data


def fill_response(response: ModelInferResponse, tensors: Sequence[OutputTensor], raw: bool) -> None:
    """Add output tensors, their values in ``raw_output_contents`` if ``raw``, else in contents."""
    for tensor in tensors:
        output = response.outputs.add(
            name=tensor.name, datatype=tensor.datatype, shape=tensor.shape
        )
        if raw:
            response.raw_output_contents.append(_to_raw(tensor.datatype, tensor.data))
        else:
            values = tensor.data
            if tensor.datatype == "BYTES":
                values = [text.encode() for text in values]
            getattr(output.contents, CONTENTS_OF[tensor.datatype]).extend(values)


def _to_raw(datatype: Datatype, values: list[Any]) -> bytes:
    if datatype != "BYTES":
        return np.array(values, _RAW_TYPES[datatype]).tobytes()
    texts = (text.encode() for text in values)
    return b"".join(_LENGTH.pack(len(text)) + text for text in texts)
