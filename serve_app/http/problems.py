"""Problem details for HTTP (RFC 9457). HTTP status codes live in this folder only."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus

import msgspec

PROBLEM_TYPE = "urn:treeline:problem:"


class Problem(Exception):
    """An answer other than a result; docs/errors.md explains each ``slug``."""

    def __init__(
        self,
        status: HTTPStatus,
        slug: str,
        detail: str,
        *,
        errors: Sequence[Mapping[str, str]] = (),
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.slug = slug
        self.detail = detail
        self.errors = errors
        self.retry_after_s = retry_after_s

    def body(self, request_id: str) -> bytes:
        document: dict[str, object] = {
            "type": PROBLEM_TYPE + self.slug,
            "title": self.status.phrase,
            "status": int(self.status),
            "detail": self.detail,
            "request_id": request_id,
            "error": self.detail,  # where clients of the Open Inference Protocol look
        }
        if self.errors:
            document["errors"] = list(self.errors)
        return msgspec.json.encode(document)

    def headers(self) -> list[tuple[bytes, bytes]]:
        headers = [(b"content-type", b"application/problem+json")]
        if self.retry_after_s is not None:
            headers.append((b"retry-after", str(self.retry_after_s).encode()))
        return headers


def invalid(detail: str) -> Problem:
    """What is understood and does not fit."""
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid", detail)
