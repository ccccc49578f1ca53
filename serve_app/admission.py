"""How much work a replica takes on before it says no.

Ray Serve's own limits do not see requests that wait inside a replica when HAProxy is in front, so
the replica counts them itself: requests from the moment they arrive, rows from the moment they are
known.
"""

import asyncio

from serve_app.errors import TreelineError


class OverloadedError(TreelineError):
    """More is waiting than the replica may hold."""


class Admission:
    """Bounds requests and rows that are not yet answered; an idle replica takes any request.

    Plain calls and no context managers, all on the event loop: they stand in the path of every
    request. ``idle`` is set when the last request leaves; who waits for it clears it first.
    """

    def __init__(self, *, max_requests: int, max_pending_rows: int) -> None:
        self._max_requests = max_requests
        self._max_pending_rows = max_pending_rows
        self.requests = 0
        self.pending_rows = 0
        self.idle = asyncio.Event()

    def arrive(self) -> None:
        """Count a request as waiting; it must ``leave`` again, answered or not."""
        self.requests += 1

    def leave(self) -> None:
        self.requests -= 1
        if not self.requests:
            self.idle.set()

    def admit(self, rows: int) -> None:
        """Let an arrived request's rows in, or raise OverloadedError; then ``release`` them."""
        if self.requests > self._max_requests:
            raise OverloadedError(
                f"{self.requests} requests are waiting; at most {self._max_requests} are held"
            )
        if self.pending_rows and self.pending_rows + rows > self._max_pending_rows:
            raise OverloadedError(
                f"{self.pending_rows} rows are pending; at most {self._max_pending_rows} are held"
            )
        self.pending_rows += rows

    def release(self, rows: int) -> None:
        self.pending_rows -= rows
