"""``POST /feedback``: what became known about an answer later. See docs/http.md."""

import math
import time
from collections.abc import Callable
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Final, Protocol

import msgspec

from serve_app.http.asgi import Request, Response, Route
from serve_app.http.problems import Problem, invalid
from serve_app.schema import MAX_REQUEST_ID

KIND_PATTERN: Final = r"^[A-Za-z][A-Za-z0-9_.-]{0,63}\Z"
MAX_TEXT: Final = 1_024  # characters of a value
MAX_ROW: Final = 2**31 - 1
MAX_NUMBER: Final = 2**53  # beyond, a float does not hold every whole number
FIRST_S: Final = 0
LAST_S: Final = 253_402_300_799  # the end of year 9999


class FeedbackBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One feedback as callers send it; ``ts`` is RFC 3339 with a zone, or seconds since 1970."""

    request_id: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_REQUEST_ID)]
    kind: Annotated[str, msgspec.Meta(pattern=KIND_PATTERN)]
    value: bool | int | float | Annotated[str, msgspec.Meta(max_length=MAX_TEXT)]
    row: Annotated[int, msgspec.Meta(ge=0, le=MAX_ROW)] | None = None
    ts: Annotated[datetime, msgspec.Meta(tz=True)] | int | float | None = None


class Recorder(Protocol):
    """Keeps feedback; False says that it could not."""

    def record(
        self,
        *,
        received_us: int,
        request_id: str,
        kind: str,
        value: str | bool | int | float,
        row: int | None = None,
        outcome_us: int | None = None,
    ) -> bool: ...


def feedback_route(
    recorder: Recorder, *, retry_after_s: int, clock: Callable[[], float] = time.time
) -> Route:
    """Answer 202 once the feedback is as durable as a logged prediction; ``clock`` gives seconds.

    Nobody looks the request up: feedback may outlive its request's stay anywhere but in the log.
    """
    decode = msgspec.json.Decoder(FeedbackBody).decode

    async def feedback(request: Request) -> Response:
        body = _checked(request.body, decode)
        kept = recorder.record(
            received_us=int(clock() * 1e6),
            request_id=body.request_id,
            kind=body.kind,
            value=body.value,
            row=body.row,
            outcome_us=_microseconds(body.ts),
        )
        if not kept:
            raise Problem(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "not-kept",
                "the journal has no room; the feedback was not kept",
                retry_after_s=retry_after_s,
            )
        answer = {"request_id": body.request_id, "kind": body.kind, "accepted": True}
        return Response(msgspec.json.encode(answer), status=int(HTTPStatus.ACCEPTED))

    return feedback


def _checked(data: bytes, decode: Callable[[bytes], FeedbackBody]) -> FeedbackBody:
    try:
        body = decode(data)
    except msgspec.ValidationError as exc:
        raise invalid(str(exc)) from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise Problem(HTTPStatus.BAD_REQUEST, "not-json", str(exc)) from exc
    if not body.request_id.isprintable():
        raise invalid("`request_id` has unprintable characters")
    value = body.value
    if isinstance(value, float) and not math.isfinite(value):
        raise invalid("`value` is not a finite number")
    if isinstance(value, int) and abs(value) > MAX_NUMBER:
        raise invalid(f"`value` is {value}; allowed: up to {MAX_NUMBER} either way")
    return body


def _microseconds(ts: datetime | float | None) -> int | None:
    if ts is None:
        return None
    seconds = ts.timestamp() if isinstance(ts, datetime) else ts
    if not FIRST_S <= seconds <= LAST_S:
        raise invalid(f"`ts` is {seconds}; allowed: {FIRST_S} to {LAST_S} seconds since 1970")
    return round(seconds * 1e6)
