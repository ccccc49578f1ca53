"""What a prediction request and its answer look like, for one model.

The row type is built from the bundle's manifest, so that msgspec decodes and checks a body in one
pass, and no second description of the features can drift from the first. HTTP and handle calls
share this module, and with it their validation.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Annotated, Any, Final, Protocol

import msgspec
import numpy as np

from serve_app.errors import TreelineError

MAX_TAGS: Final = 64
MAX_TEXT: Final = 4_096  # characters of an id or a tag
MAX_REQUEST_ID: Final = 256
MAX_ERRORS: Final = 20  # named in one answer
LARGEST_FLOAT32: Final = 3.4028235e38
INT64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
PYTHON_TYPES: Final[dict[str, Any]] = {
    "float64": float,
    "int64": INT64,
    "bool": bool,
    "string": str,
}
Row = tuple[Any, ...]


class FeatureSpec(Protocol):
    """What this module needs to know of a feature."""

    @property
    def name(self) -> str: ...
    @property
    def dtype(self) -> str: ...
    @property
    def nullable(self) -> bool: ...
    @property
    def categories(self) -> Sequence[str] | None: ...


class RequestMalformedError(TreelineError, ValueError):
    """The body is no JSON."""


class RequestTooLargeError(TreelineError, ValueError):
    """More rows than one request may hold."""


class RequestInvalidError(TreelineError, ValueError):
    """The body is JSON that does not fit the model; ``errors`` name what is wrong where."""

    def __init__(self, detail: str, errors: Sequence[Mapping[str, str]] = ()) -> None:
        super().__init__(detail)
        self.errors = errors


class Context(msgspec.Struct, frozen=True):
    """Who asked. ``fields`` are tags and other context fields, not yet masked."""

    user_id: str | None = None
    session_id: str | None = None
    fields: Mapping[str, object] | None = None


class PredictRequest(msgspec.Struct, frozen=True):
    """Rows in the model's feature order, None where a value is missing."""

    rows: list[Row]
    top_k: int | None
    context: Context


class RankedLabel(msgspec.Struct, frozen=True):
    label: str
    score: float


class Prediction(msgspec.Struct, frozen=True):
    """One row's answer; in regression ``label`` and ``probabilities`` are null."""

    label: str | None
    score: float
    probabilities: list[float] | None
    top_k: list[RankedLabel] | msgspec.UnsetType = msgspec.UNSET


class PredictResponse(msgspec.Struct, frozen=True):
    """``probabilities`` of each prediction stand in the order of ``classes``."""

    request_id: str
    model: str
    version: str
    feature_set_version: str
    classes: list[str]
    predictions: list[Prediction]


NO_CONTEXT: Final = Context()


class RequestDecoder:
    """Decodes and checks ``/predict`` bodies for one ordered list of features."""

    def __init__(self, features: Sequence[FeatureSpec], *, classes: int) -> None:
        """``classes`` bounds ``top_k``; 0 for regression, where there is none."""
        self.features = features
        self._names = [feature.name for feature in features]
        self._known = frozenset(self._names)
        self._classes = classes
        fields = [
            (
                f"f{index}",
                PYTHON_TYPES[spec.dtype] | None if spec.nullable else PYTHON_TYPES[spec.dtype],
            )
            for index, spec in enumerate(features)
        ]
        rename = {f"f{index}": name for index, name in enumerate(self._names)}
        named = msgspec.defstruct(
            "Row", fields, rename=rename, forbid_unknown_fields=True, gc=False
        )
        listed: Any = tuple[tuple(kind for _, kind in fields)]  # type: ignore[misc]
        body = msgspec.defstruct(
            "Body",
            [
                ("instances", Annotated[list[named | listed], msgspec.Meta(min_length=1)]),  # type: ignore[valid-type]
                ("top_k", Annotated[int, msgspec.Meta(ge=1)] | None, None),
                ("context", dict[str, Any] | None, None),
            ],
            forbid_unknown_fields=True,
        )
        self._decode: Callable[[bytes], Any] = msgspec.json.Decoder(body).decode
        self._astuple = msgspec.structs.astuple

    def decode(self, body: bytes) -> PredictRequest:
        """Decode one body.

        Raises RequestMalformedError for what is no JSON and RequestInvalidError, which names the
        features, for what does not fit the model.
        """
        try:
            decoded = self._decode(body)
        except msgspec.ValidationError as exc:
            raise self._explain(body, exc) from exc
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            raise RequestMalformedError(str(exc)) from exc
        except RecursionError as exc:
            raise RequestMalformedError("JSON is nested too deeply") from exc
        if decoded.top_k is not None and not self._classes:
            raise RequestInvalidError("`top_k`: this model is a regression and ranks no classes")
        context = NO_CONTEXT if decoded.context is None else read_context(decoded.context)
        astuple = self._astuple
        rows = [row if type(row) is tuple else astuple(row) for row in decoded.instances]
        return PredictRequest(rows, decoded.top_k, context)

    def explain_refusal(self, rows: Sequence[Row]) -> list[dict[str, str]]:
        """Name the values that a model may refuse, without repeating them: they go into logs.

        These are numbers that are infinite once they are float32, and categories that the training
        data did not have. At most ``MAX_ERRORS``.
        """
        return list(islice(self._refusable(rows), MAX_ERRORS))

    def _refusable(self, rows: Sequence[Row]) -> Iterator[dict[str, str]]:
        known = [spec.categories and frozenset(spec.categories) for spec in self.features]
        for index, row in enumerate(rows):
            for spec, categories, value in zip(self.features, known, row, strict=True):
                where = f"instances[{index}].{spec.name}"
                if isinstance(value, str) and categories and value not in categories:
                    yield {"field": where, "detail": "no category of the training data"}
                elif isinstance(value, float | int) and not abs(value) <= LARGEST_FLOAT32:
                    yield {"field": where, "detail": "out of float32's range"}

    def _explain(self, body: bytes, exc: msgspec.ValidationError) -> ValueError:
        """Compare the first rows with the model's features, so that the answer names them all."""
        try:
            raw = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as broken:
            # The typed decoder stops at the first misfit; the body is broken further on.
            return RequestMalformedError(str(broken))
        except RecursionError:
            return RequestMalformedError("JSON is nested too deeply")
        instances = raw.get("instances") if isinstance(raw, dict) else None
        rows = instances if isinstance(instances, list) else []
        misfits = chain.from_iterable(self._misfits(index, row) for index, row in enumerate(rows))
        return RequestInvalidError(str(exc), list(islice(misfits, MAX_ERRORS)))

    def _misfits(self, index: int, row: object) -> Iterator[dict[str, str]]:
        where = f"instances[{index}]"
        if isinstance(row, dict):
            for name in self._names:
                if name not in row:
                    yield {"field": f"{where}.{name}", "detail": "missing feature"}
            for name in row:
                if name not in self._known:
                    yield {"field": f"{where}.{name}", "detail": "unknown feature"}
        elif isinstance(row, list) and len(row) != len(self._names):
            detail = f"{len(row)} values; the model has {len(self._names)} features"
            yield {"field": where, "detail": detail}
        yield from self._wrong_values(where, row)

    def _wrong_values(self, where: str, row: object) -> Iterator[dict[str, str]]:
        values = row if isinstance(row, dict) else {}
        if isinstance(row, list):
            values = dict(zip(self._names, row, strict=False))
        for spec in self.features:
            if spec.name not in values:
                continue
            kind = PYTHON_TYPES[spec.dtype] | None if spec.nullable else PYTHON_TYPES[spec.dtype]
            try:
                msgspec.convert(values[spec.name], kind)
            except msgspec.ValidationError as exc:
                yield {"field": f"{where}.{spec.name}", "detail": str(exc)}


def encode_request(
    rows: Sequence[Any], *, top_k: int | None, context: Mapping[str, Any] | None
) -> bytes:
    """Write a handle call as the body it would be over HTTP; NaN and NumPy values included.

    One way in means one validation. Raises RequestInvalidError for what JSON cannot say.
    """
    for index, row in enumerate(rows):
        if _holds_infinity(row):  # msgspec would write it as null, which means missing
            raise RequestInvalidError(f"`instances[{index}]`: holds an infinite number")
    document = {"instances": rows, "top_k": top_k, "context": context}
    try:
        return msgspec.json.encode(document, enc_hook=_plain)
    except (TypeError, ValueError, RecursionError) as exc:
        raise RequestInvalidError(f"the rows cannot be written as JSON: {exc}") from exc


def _holds_infinity(row: Any) -> bool:
    values = row.values() if isinstance(row, Mapping) else row
    if not isinstance(values, Iterable):
        return False
    return any(isinstance(value, float | np.floating) and math.isinf(value) for value in values)


def check_request_id(value: object, where: str) -> str:
    """Return a request id that logs can hold; RequestInvalidError names what is allowed."""
    if not isinstance(value, str) or not value.isprintable() or len(value) > MAX_REQUEST_ID:
        raise RequestInvalidError(
            f"`{where}`: allowed is a text of at most {MAX_REQUEST_ID} printable characters"
        )
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"a value of type {type(value).__name__} is not taken")


def read_context(raw: Mapping[str, Any]) -> Context:
    """Check a request's ``context``; scalars beside the known keys count as tags."""
    fields: dict[str, object] = {}
    tags = raw.get("tags")
    if tags is not None and not isinstance(tags, dict):
        raise RequestInvalidError("`context.tags`: expected an object of strings and numbers")
    for where, items in (("context", raw), ("context.tags", tags or {})):
        for key, value in items.items():
            if where == "context" and key in ("user_id", "session_id", "tags"):
                continue
            if not isinstance(value, str | int | float | bool | None):
                raise RequestInvalidError(f"`{where}.{key}`: expected a string, number or boolean")
            if isinstance(value, str) and len(value) > MAX_TEXT:
                raise RequestInvalidError(f"`{where}.{key}`: longer than {MAX_TEXT} characters")
            fields[key] = value
    if len(fields) > MAX_TAGS:
        raise RequestInvalidError(f"`context`: {len(fields)} tags; at most {MAX_TAGS} are taken")
    return Context(_identifier(raw, "user_id"), _identifier(raw, "session_id"), fields or None)


def _identifier(raw: Mapping[str, Any], key: str) -> str | None:
    value = raw.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise RequestInvalidError(f"`context.{key}`: expected a string or an integer")
    text = str(value)
    if len(text) > MAX_TEXT:
        raise RequestInvalidError(f"`context.{key}`: longer than {MAX_TEXT} characters")
    return text
