"""Log lines from the request path, limited so that a full disk does not fill the log as well."""

import logging
from collections.abc import Callable
from typing import Final

MUTE_S: Final = 60.0


class QuietLog:
    """Warn at most once a minute about each subject; says how often it held its tongue."""

    def __init__(self, log: logging.Logger, monotonic: Callable[[], float]) -> None:
        self._log = log
        self._monotonic = monotonic
        self._next_s: dict[str, float] = {}
        self._muted: dict[str, int] = {}

    def warn(self, subject: str, message: str, *args: object) -> None:
        now = self._monotonic()
        if now < self._next_s.get(subject, float("-inf")):
            self._muted[subject] = self._muted.get(subject, 0) + 1
            return
        self._next_s[subject] = now + MUTE_S
        self._log.warning(
            f"%s: {message} (%d more since the last line)",
            subject,
            *args,
            self._muted.pop(subject, 0),
        )
