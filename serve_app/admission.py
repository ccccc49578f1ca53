"""How much work a replica takes on before it says no.

Ray Serve's own limits do not see requests that wait inside a replica when HAProxy is in front, so
the replica counts them itself, in rows: the unit that costs time.
"""


class OverloadedError(Exception):
    """More rows are pending than the replica may hold."""


class Admission:
    """Bounds the rows admitted and not yet answered; one request always fits an idle replica."""

    def __init__(self, max_pending_rows: int) -> None:
        self._max_pending_rows = max_pending_rows
        self.pending_rows = 0
        self.ongoing = 0

    def admit(self, rows: int) -> None:
        """Count a request in, or raise OverloadedError. Who is admitted must ``leave`` again."""
        if self.pending_rows and self.pending_rows + rows > self._max_pending_rows:
            raise OverloadedError(
                f"{self.pending_rows} rows are pending; at most {self._max_pending_rows} are held"
            )
        self.pending_rows += rows
        self.ongoing += 1

    def leave(self, rows: int) -> None:
        self.pending_rows -= rows
        self.ongoing -= 1
