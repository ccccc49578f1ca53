"""Tensors to rows: what is taken, and what is named when it is not."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.http.tensors import InputTensor, decode_infer, read_rows, write_outputs
from serve_app.schema import (
    Prediction,
    RequestDecoder,
    RequestInvalidError,
    RequestMalformedError,
    encode_request,
)
from tests.serve_app.conftest import Spec

NUMBERS = [Spec("a", "float64"), Spec("b", "int64", nullable=True)]
MIXED = [Spec("age", "float64"), Spec("own", "bool"), Spec("job", "string", nullable=True)]


def tensor(name: str, data: list[Any], datatype: Any = "FP64", shape: Any = None) -> InputTensor:
    return InputTensor(name, shape or [len(data)], datatype, data)


def problems(tensors: list[InputTensor], features: list[Spec]) -> dict[str, str]:
    with pytest.raises(RequestInvalidError) as caught:
        read_rows(tensors, features)
    return {error["field"]: error["detail"] for error in caught.value.errors}


def test_one_tensor_per_feature_in_any_order() -> None:
    tensors = [
        tensor("job", ["clerk", None], "BYTES"),
        tensor("age", [30, 41.5]),
        tensor("own", [[True], [False]], "BOOL", [2, 1]),
    ]
    rows = read_rows(tensors, MIXED)
    assert rows == [(30.0, True, "clerk"), (41.5, False, None)]
    assert isinstance(rows[0][0], float)


@pytest.mark.parametrize("data", [[1.5, 2.0, 3.5, None], [[1.5, 2], [3.5, None]]])
@pytest.mark.parametrize("name", ["input-0", "x"])
def test_one_tensor_for_all_when_all_are_numbers(name: str, data: list[Any]) -> None:
    """Null may stand where the feature is nullable; a float tensor's whole numbers are integers."""
    rows = read_rows([tensor(name, data, "FP32", [2, 2])], NUMBERS)
    assert rows == [(1.5, 2), (3.5, None)]
    assert isinstance(rows[0][1], int)


@pytest.mark.parametrize(
    "datatype",
    ["INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64", "FP32", "FP64"],
)
def test_every_number_type_fits_both_kinds_of_number(datatype: str) -> None:
    rows = read_rows([tensor("a", [7], datatype), tensor("b", [7], datatype)], NUMBERS)
    assert rows == [(7.0, 7)]
    assert [type(value) for value in rows[0]] == [float, int]


@pytest.mark.parametrize(
    ("datatype", "value"),
    [
        ("INT8", 128),
        ("UINT8", 256),
        ("UINT32", -1),
        ("UINT64", 2**63),
        ("FP64", 2.5),
        ("FP64", 1e300),
        ("INT64", 1.0),
        ("INT64", True),
        ("INT64", 10**400),
        ("BOOL", True),
        ("BYTES", "7"),
    ],
)
def test_values_outside_datatype_or_feature_are_named(datatype: str, value: object) -> None:
    tensors = [tensor("a", [1.0]), tensor("b", [value], datatype)]
    assert set(problems(tensors, NUMBERS)) == {"inputs.b"}


def test_null_is_refused_where_the_feature_is_not_nullable() -> None:
    tensors = [tensor("a", [None]), tensor("b", [None], "INT64")]
    assert set(problems(tensors, NUMBERS)) == {"inputs.a"}


def test_all_that_is_wrong_is_named_at_once() -> None:
    tensors = [
        tensor("age", ["x"]),
        tensor("salary", [1.0]),
        tensor("own", [True], "BOOL"),
        tensor("own", [True], "BOOL"),
    ]
    found = problems(tensors, MIXED)
    assert found["inputs.job"] == "missing tensor"
    assert found["inputs.salary"] == "unknown tensor"
    assert found["inputs.own"] == "given twice"
    assert "Expected `float`, got `str`" in found["inputs.age"]


@pytest.mark.parametrize("shape", [[3], [2, 2], [1, 2], [2, 1, 1], [2**63 - 1, 2**63 - 1]])
def test_shapes_that_do_not_fit_are_named(shape: list[int]) -> None:
    tensors = [tensor("a", [1.0, 2.0], shape=shape), tensor("b", [1, 2], "INT64")]
    assert set(problems(tensors, NUMBERS)) == {"inputs.a"}


def test_a_scalar_is_no_column() -> None:
    tensors = [InputTensor("a", [], "FP64", [1.0]), tensor("b", [1], "INT64")]
    assert set(problems(tensors, NUMBERS)) == {"inputs.a"}


@pytest.mark.parametrize("shape", [[2, 3], [3, 2], [4, 1]])
def test_a_matrix_needs_one_column_per_feature(shape: list[int]) -> None:
    assert set(problems([tensor("x", [1.0] * 4, shape=shape)], NUMBERS)) == {"inputs.x"}


def test_a_matrix_is_not_taken_by_a_model_with_text() -> None:
    found = problems([tensor("x", [1.0] * 3, shape=[1, 3])], MIXED)
    assert found["inputs.job"] == "missing tensor"
    assert found["inputs.x"] == "unknown tensor"


def test_tensors_of_different_length_are_refused() -> None:
    assert problems([tensor("a", [1.0]), tensor("b", [1, 2], "INT64")], NUMBERS) == {
        "inputs.a": "shape [1]",
        "inputs.b": "shape [2]",
    }


def test_no_rows_are_refused() -> None:
    empty = [InputTensor("a", [0], "FP64", []), InputTensor("b", [0], "INT64", [])]
    with pytest.raises(RequestInvalidError, match="no rows"):
        read_rows(empty, NUMBERS)


row = st.tuples(
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.none() | st.text(st.characters(exclude_categories=["Cs"])),
)


@settings(deadline=None)
@given(rows=st.lists(row, min_size=1, max_size=5), nested=st.booleans())
def test_tensors_say_what_instances_say(rows: list[Any], nested: bool) -> None:
    """Whatever can be sent to both endpoints reaches the model as the same rows."""
    decoder = RequestDecoder(MIXED, classes=2)
    body = encode_request([list(r) for r in rows], top_k=None, context=None)
    tensors = []
    for spec, datatype, column in zip(
        MIXED, ["FP64", "BOOL", "BYTES"], zip(*rows, strict=True), strict=True
    ):
        data = [[value] for value in column] if nested else list(column)
        shape = [len(rows), 1] if nested else [len(rows)]
        tensors.append(tensor(spec.name, data, datatype, shape))
    assert read_rows(tensors, MIXED) == decoder.decode(body).rows


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b'{"inputs": 3', b'"\xff"', b"[" * 100_000, b'{"inputs": ' + b"[" * 100_000],
)
def test_what_is_no_json_is_malformed(body: bytes) -> None:
    with pytest.raises(RequestMalformedError):
        decode_infer(body)


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"{}",
        b'{"inputs": []}',
        b'{"inputs": [{"name": "a", "shape": [-1], "datatype": "FP64", "data": []}]}',
        b'{"inputs": [{"name": "a", "shape": [1], "datatype": "FP8", "data": [1]}]}',
        b'{"inputs": [{"name": "a", "shape": [1], "datatype": "FP64", "data": 1}]}',
        b'{"inputs": [{"name": "a", "shape": [1], "datatype": "FP64", "data": [1]}], "id": 3}',
    ],
)
def test_what_is_no_infer_request_is_invalid(body: bytes) -> None:
    with pytest.raises(RequestInvalidError):
        decode_infer(body)


def test_outputs_are_flat_and_in_the_order_asked_for() -> None:
    predictions = [Prediction("a", 0.75, [0.75, 0.25]), Prediction("b", 0.5, [0.5, 0.5])]
    probabilities, label = write_outputs(predictions, ["probabilities", "label"], classes=2)
    assert (probabilities.shape, probabilities.data) == ([2, 2], [0.75, 0.25, 0.5, 0.5])
    assert (label.shape, label.datatype, label.data) == ([2], "BYTES", ["a", "b"])
