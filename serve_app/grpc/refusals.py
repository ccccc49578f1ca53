"""How a call that is not answered ends: the gRPC status that stands for each HTTP status."""

from http import HTTPStatus
from typing import Final, Protocol

import grpc

from serve_app.http.problems import Problem
from serve_app.schema import MAX_ERRORS

CODE_OF: Final[dict[int, grpc.StatusCode]] = {
    HTTPStatus.BAD_REQUEST: grpc.StatusCode.INVALID_ARGUMENT,
    HTTPStatus.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: grpc.StatusCode.INVALID_ARGUMENT,
    HTTPStatus.UNPROCESSABLE_ENTITY: grpc.StatusCode.INVALID_ARGUMENT,
    HTTPStatus.TOO_MANY_REQUESTS: grpc.StatusCode.RESOURCE_EXHAUSTED,
}
MAX_DETAILS: Final = 2_000  # bytes
PUSHBACK: Final = "grpc-retry-pushback-ms"  # gRPC's own retries wait this long: gRFC A6


class CallContext(Protocol):
    """What is used of ``ray.serve.grpc_util.RayServegRPCContext``."""

    def trailing_metadata(self) -> list[tuple[str, str]]: ...

    def set_trailing_metadata(self, trailing_metadata: list[tuple[str, str]]) -> None: ...

    def set_code(self, code: grpc.StatusCode) -> None: ...

    def set_details(self, details: str) -> None: ...


def refuse(context: CallContext, problem: Problem) -> None:
    """End a call that no model saw."""
    context.set_code(CODE_OF[problem.status])
    context.set_details(details_of(problem))
    if problem.retry_after_s is not None:
        pushback = (PUSHBACK, str(1_000 * problem.retry_after_s))
        context.set_trailing_metadata([*context.trailing_metadata(), pushback])


def fail(context: CallContext, detail: str) -> None:
    """End a call that failed in here."""
    context.set_code(grpc.StatusCode.INTERNAL)
    context.set_details(detail)


def details_of(problem: Problem) -> str:
    """The problem's text and, where several things are wrong, each of them on a line.

    Cut to ``MAX_DETAILS``: clients take a status and all metadata with it to have at most 8 KiB.
    """
    lines = [problem.detail]
    if len(problem.errors) > 1:
        lines += [f"{error['field']}: {error['detail']}" for error in problem.errors[:MAX_ERRORS]]
    return shortened("\n".join(lines), MAX_DETAILS)


def shortened(text: str, budget: int) -> str:
    """Cut a text to ``budget`` bytes as HTTP/2 carries it, where all but plain ASCII takes more.

    >>> shortened("schön", 6), shortened("schon", 6)
    ('sch…', 'schon')
    """
    used = 0
    for place, char in enumerate(text):
        used += 1 if " " <= char <= "~" else 3 * len(char.encode())  # percent-encoded
        if used > budget:
            return f"{text[:place]}…"
    return text
