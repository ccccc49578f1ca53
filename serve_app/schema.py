"""What a prediction request and its answer look like, for one model.

The row type is built from the bundle's manifest, so that msgspec decodes and checks a body in one
pass, and no second description of the features can drift from the first. HTTP and handle calls
share this module, and with it their validation.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Final, Protocol

import msgspec
import numpy as np

MAX_TAGS: Final = 64
MAX_TEXT: Final = 4_096  # characters of an id or a tag
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


class RequestMalformedError(ValueError):
    """The body is no JSON."""


class RequestInvalidError(ValueError):
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

    def name_bad_numbers(self, rows: Sequence[Row]) -> list[dict[str, str]]:
        """Name the values that a forest refuses: infinite once they are float32."""
        errors = []
        for index, row in enumerate(rows):
            for spec, value in zip(self.features, row, strict=True):
                too_large = isinstance(value, float | int) and abs(value) > 3.4028235e38
                if too_large or (isinstance(value, float) and not math.isfinite(value)):
                    where = f"instances[{index}].{spec.name}"
                    errors.append(
                        {"field": where, "detail": f"{value!r} is out of float32's range"}
                    )
        return errors

    def _explain(self, body: bytes, exc: msgspec.ValidationError) -> ValueError:
        """Compare the first rows with the model's features, so that the answer names them all."""
        errors: list[dict[str, str]] = []
        try:
            raw = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as broken:
            # The typed decoder stops at the first misfit; the body is broken further on.
            return RequestMalformedError(str(broken))
        except RecursionError:
            return RequestMalformedError("JSON is nested too deeply")
        instances = raw.get("instances") if isinstance(raw, dict) else None
        for index, row in enumerate(instances[:10] if isinstance(instances, list) else ()):
            where = f"instances[{index}]"
            if isinstance(row, dict):
                missing = [name for name in self._names if name not in row]
                unknown = [str(name) for name in row if name not in set(self._names)]
                errors += [{"field": f"{where}.{n}", "detail": "missing feature"} for n in missing]
                errors += [{"field": f"{where}.{n}", "detail": "unknown feature"} for n in unknown]
            elif isinstance(row, list) and len(row) != len(self._names):
                detail = f"{len(row)} values; the model has {len(self._names)} features"
                errors.append({"field": where, "detail": detail})
            errors += self._wrong_values(where, row)
        return RequestInvalidError(str(exc), errors)

    def _wrong_values(self, where: str, row: object) -> list[dict[str, str]]:
        values = row if isinstance(row, dict) else {}
        if isinstance(row, list):
            values = dict(zip(self._names, row, strict=False))
        errors = []
        for spec in self.features:
            if spec.name not in values:
                continue
            kind = PYTHON_TYPES[spec.dtype] | None if spec.nullable else PYTHON_TYPES[spec.dtype]
            try:
                msgspec.convert(values[spec.name], kind)
            except msgspec.ValidationError as exc:
                errors.append({"field": f"{where}.{spec.name}", "detail": str(exc)})
        return errors


def encode_request(
    rows: Sequence[Any], *, top_k: int | None, context: Mapping[str, Any] | None
) -> bytes:
    """Write a handle call as the body it would be over HTTP; NaN and NumPy values included.

    One way in means one validation. Raises RequestInvalidError for what JSON cannot say.
    """
    document = {"instances": rows, "top_k": top_k, "context": context}
    try:
        return msgspec.json.encode(document, enc_hook=_plain)
    except (TypeError, ValueError, RecursionError) as exc:
        raise RequestInvalidError(f"the rows cannot be written as JSON: {exc}") from exc


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
