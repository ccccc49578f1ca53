import math
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.schema import (
    RequestDecoder,
    RequestInvalidError,
    RequestMalformedError,
    check_request_id,
    encode_request,
    read_context,
)


@dataclass(frozen=True)
class Spec:
    name: str
    dtype: str
    nullable: bool = False
    categories: tuple[str, ...] | None = None


FEATURES = [
    Spec("age in years", "float64"),
    Spec("loans", "int64", nullable=True),
    Spec("housing", "string"),
    Spec("owner", "bool"),
]
GOOD = {"age in years": 41, "loans": None, "housing": "own", "owner": True}


@pytest.fixture(scope="module")
def decoder() -> RequestDecoder:
    return RequestDecoder(FEATURES, classes=2)


def body(*instances: object, **more: object) -> bytes:
    return msgspec.json.encode({"instances": instances, **more})


def test_named_and_listed_rows_decode_to_the_same_row(decoder: RequestDecoder) -> None:
    request = decoder.decode(body(GOOD, list(GOOD.values())))
    assert request.rows == [(41.0, None, "own", True)] * 2


def test_order_of_names_does_not_matter(decoder: RequestDecoder) -> None:
    request = decoder.decode(body(dict(reversed(GOOD.items()))))
    assert request.rows == [(41.0, None, "own", True)]


@pytest.mark.parametrize(
    ("row", "field", "detail"),
    [
        ({**GOOD, "colour": 1}, "instances[0].colour", "unknown feature"),
        ({k: v for k, v in GOOD.items() if k != "loans"}, "instances[0].loans", "missing feature"),
        ({**GOOD, "age in years": "old"}, "instances[0].age in years", "Expected `float`"),
        ({**GOOD, "age in years": None}, "instances[0].age in years", "Expected `float`"),
        ({**GOOD, "loans": 2**63}, "instances[0].loans", "Expected `int`"),
        ([1.0, 2], "instances[0]", "2 values; the model has 4 features"),
    ],
)
def test_wrong_features_are_named(
    decoder: RequestDecoder, row: object, field: str, detail: str
) -> None:
    with pytest.raises(RequestInvalidError) as caught:
        decoder.decode(body(row))
    assert any(e["field"] == field and detail in e["detail"] for e in caught.value.errors)


@pytest.mark.parametrize("bad", [b"", b"{", b"\xff\xfe", b'{"instances": [[NaN, 1, "a", true]]}'])
def test_what_is_no_json_is_malformed(decoder: RequestDecoder, bad: bytes) -> None:
    with pytest.raises(RequestMalformedError):
        decoder.decode(bad)


def test_broken_text_behind_a_misfit_is_malformed(decoder: RequestDecoder) -> None:
    with pytest.raises(RequestMalformedError):
        decoder.decode(b'{"instances": [["x", 1, "\xff", true]]}')


def test_top_k_needs_classes() -> None:
    with pytest.raises(RequestInvalidError, match="regression"):
        RequestDecoder(FEATURES, classes=0).decode(body(GOOD, top_k=1))


@pytest.mark.parametrize("top_k", [0, -1, "1", 1.5])
def test_top_k_out_of_range_is_refused(decoder: RequestDecoder, top_k: object) -> None:
    with pytest.raises(RequestInvalidError, match="top_k"):
        decoder.decode(body(GOOD, top_k=top_k))


def test_infinite_numbers_are_named(decoder: RequestDecoder) -> None:
    rows = decoder.decode(body({**GOOD, "age in years": 1e300})).rows
    assert decoder.explain_refusal(rows)[0]["field"] == "instances[0].age in years"


def test_a_handle_call_is_written_as_a_body(decoder: RequestDecoder) -> None:
    row = {**GOOD, "age in years": np.float64(41), "loans": float("nan")}
    body = encode_request([row, list(GOOD.values())], top_k=None, context={"user_id": "u"})
    request = decoder.decode(body)
    assert request.rows == [(41.0, None, "own", True)] * 2
    assert request.context.user_id == "u"


@pytest.mark.parametrize("row", [[float("inf"), 1, "own", True], {**GOOD, "loans": -math.inf}])
def test_infinity_is_refused_and_not_taken_for_missing(row: object) -> None:
    with pytest.raises(RequestInvalidError, match=r"instances\[0\].*infinite"):
        encode_request([row], top_k=None, context=None)


@pytest.mark.parametrize("rows", [[3], [object()], [[object()]]])
def test_rows_that_json_cannot_hold_are_refused(decoder: RequestDecoder, rows: list[Any]) -> None:
    with pytest.raises(RequestInvalidError):
        decoder.decode(encode_request(rows, top_k=None, context=None))


@pytest.mark.parametrize("value", [17, "a" * 300, "a\x00b", b"bytes"])
def test_request_ids_that_logs_cannot_hold_are_refused(value: object) -> None:
    with pytest.raises(RequestInvalidError, match="request_id"):
        check_request_id(value, "request_id")


def test_context_fields_become_tags() -> None:
    context = read_context({"user_id": 7, "channel": "web", "tags": {"campaign": "may"}})
    assert context.user_id == "7"
    assert context.fields == {"channel": "web", "campaign": "may"}


@pytest.mark.parametrize(
    "raw",
    [
        {"user_id": ["a"]},
        {"user_id": True},
        {"tags": ["a"]},
        {"tags": {"a": {"b": 1}}},
        {"other": [1]},
        {"tags": {str(i): i for i in range(65)}},
        {"session_id": "x" * 5_000},
        {"tags": {"a": "x" * 5_000}},
    ],
)
def test_context_that_cannot_be_logged_is_refused(raw: dict[str, object]) -> None:
    with pytest.raises(RequestInvalidError, match="context"):
        read_context(raw)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)


@given(JSON | st.fixed_dictionaries({"instances": st.lists(JSON, max_size=3), "context": JSON}))
def test_any_json_is_decoded_or_refused(decoder: RequestDecoder, document: object) -> None:
    try:
        request = decoder.decode(msgspec.json.encode(document))
    except (RequestInvalidError, RequestMalformedError) as exc:
        assert str(exc)
    else:
        assert all(len(row) == len(FEATURES) for row in request.rows)


@given(st.binary(max_size=64))
def test_any_bytes_are_decoded_or_refused(decoder: RequestDecoder, data: bytes) -> None:
    with pytest.raises((RequestInvalidError, RequestMalformedError)):
        decoder.decode(b"[" + data)
