"""Tensors of the Open Inference Protocol, as protobuf carries them, to those of REST and back.

Specification: github.com/kserve/open-inference-protocol, ``inference_grpc.md``. What a tensor may
hold is checked where REST's tensors are: ``serve_app/http/tensors.py``.

Invariants:

- A request's values stand all in ``contents`` or all in ``raw_input_contents``: flat, in row-major
  order, little-endian, each text behind its length as four bytes. The answer takes the same way.
- NaN is a missing value, and so is text equal to the tensor's parameter ``missing``: protobuf has
  no null.
"""

import math
import struct
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np

from serve_app.grpc.open_inference_pb2 import ModelInferRequest, ModelInferResponse
from serve_app.http.tensors import Datatype, InputTensor, OutputTensor
from serve_app.schema import RequestInvalidError

MISSING: Final = "missing"
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


def read_tensors(request: ModelInferRequest) -> list[InputTensor]:
    """The request's input tensors; raise RequestInvalidError naming each that cannot be read."""
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
            data = _read_raw(tensor, raw[position]) if raw else _read_contents(tensor)
            shape = list(tensor.shape)
            if any(dimension < 0 for dimension in shape):
                raise _MisfitError(f"shape {shape}; no dimension may be negative")
        except _MisfitError as exc:
            errors.append({"field": f"inputs.{tensor.name}", "detail": str(exc)})
            continue
        tensors.append(InputTensor(tensor.name, shape, tensor.datatype, _mark(data, tensor)))
    if errors:
        first = errors[0]
        raise RequestInvalidError(f"`{first['field']}`: {first['detail']}", errors)
    return tensors


def _read_contents(tensor: ModelInferRequest.InferInputTensor) -> list[Any]:
    field = _known(tensor.datatype, CONTENTS_OF)
    filled = [descriptor.name for descriptor, _ in tensor.contents.ListFields()]
    if filled not in ([], [field]):
        raise _MisfitError(f"{tensor.datatype} values stand in {field}, not {', '.join(filled)}")
    values = list(getattr(tensor.contents, field))
    return _texts(values) if tensor.datatype == "BYTES" else values


def _read_raw(tensor: ModelInferRequest.InferInputTensor, raw: bytes) -> list[Any]:
    if tensor.contents.ListFields():
        raise _MisfitError("both contents and raw_input_contents are given")
    if tensor.datatype == "BYTES":
        return _texts(_split_raw(raw))
    dtype = np.dtype(_known(tensor.datatype, _RAW_TYPES))
    if len(raw) % dtype.itemsize:
        detail = f"{len(raw)} raw bytes are no whole number of {tensor.datatype} values"
        raise _MisfitError(detail)
    values: list[Any] = np.frombuffer(raw, dtype).tolist()
    return values


def _known(datatype: str, names: dict[str, str]) -> str:
    if datatype not in names:
        raise _MisfitError(f"datatype {datatype!r}; taken are {', '.join(CONTENTS_OF)}")
    return names[datatype]


def _split_raw(raw: bytes) -> list[bytes]:
    texts = []
    position = 0
    while position < len(raw):
        begin = position + _LENGTH.size
        if begin > len(raw):
            raise _MisfitError("the raw bytes end within a length")
        (length,) = _LENGTH.unpack_from(raw, position)
        position = begin + length
        if position > len(raw):
            raise _MisfitError("the raw bytes end within a text")
        texts.append(raw[begin:position])
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
        missing = tensor.parameters[MISSING].string_param
        return [None if value == missing else value for value in data]
    return data


def fill_response(
    response: ModelInferResponse, tensors: Sequence[OutputTensor], *, raw: bool
) -> None:
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
