"""Alerts kept in the store, and their messages sent until somebody has taken them.

An alert and its message are written in one transaction. A message is deleted once the webhook has
answered 2xx, so a death in between sends it twice, and a webhook that is away gets it later.
"""

import logging
import time
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from monitoring.live.alerts import Alert, Cause, changes
from monitoring.live.errors import WebhookFailed
from monitoring.live.store import Store

log = logging.getLogger(__name__)

FIRST_WAIT_S: Final = 5.0
LAST_WAIT_S: Final = 300.0
MAX_WAITING: Final = 1_000  # beyond, the oldest messages are given up
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS alerts (cause TEXT PRIMARY KEY, alert BLOB);
CREATE TABLE IF NOT EXISTS messages (id INTEGER PRIMARY KEY AUTOINCREMENT, alert BLOB);
"""


class Alerting:
    """Belongs to the thread of its store. ``send`` raises ``WebhookFailed``; None: nobody asks.

    Links of alerts begin with ``public_url``, where the application is reached from outside.
    """

    def __init__(
        self,
        store: Store,
        clock: Callable[[], float] = time.time,
        send: Callable[[Alert], None] | None = None,
        public_url: str = "",
    ) -> None:
        self._store = store
        self._clock = clock
        self._send = send
        self._public_url = public_url.rstrip("/")
        self._failures = 0
        self._retry_at_s = 0.0
        store.require(_TABLES)

    def known(self) -> dict[str, Alert]:
        rows = self._store.connection.execute("SELECT cause, alert FROM alerts ORDER BY cause")
        return {cause: msgspec.msgpack.decode(data, type=Alert) for cause, data in rows}

    def update(self, causes: Mapping[str, Cause]) -> list[Alert]:
        """Open and resolve alerts, given all causes there are now; return those that changed."""
        with self._store.transaction() as db:
            found = {
                name: msgspec.structs.replace(cause, link=f"{self._public_url}{cause.link}")
                for name, cause in causes.items()
            }
            changed = changes(self.known(), found, self._clock())
            for alert in changed:
                data = msgspec.msgpack.encode(alert)
                db.execute("INSERT OR REPLACE INTO alerts VALUES (?, ?)", (alert.cause, data))
                if self._send is not None:
                    db.execute("INSERT INTO messages (alert) VALUES (?)", (data,))
            db.execute(
                "DELETE FROM messages WHERE id <= (SELECT max(id) FROM messages) - ?",
                (MAX_WAITING,),
            )
        for alert in changed:
            log.warning("alert %s: %s (%s)", alert.state, alert.text, alert.cause)
        return changed

    def deliver(self) -> int:
        """Send what waits, in order, until one fails; return how many were sent."""
        if self._send is None or self._clock() < self._retry_at_s:
            return 0
        db, sent = self._store.connection, 0
        for number, data in db.execute("SELECT id, alert FROM messages ORDER BY id").fetchall():
            try:
                self._send(msgspec.msgpack.decode(data, type=Alert))
            except WebhookFailed as error:
                self._failures += 1
                wait_s = min(FIRST_WAIT_S * 2.0 ** min(self._failures - 1, 16), LAST_WAIT_S)
                self._retry_at_s = self._clock() + wait_s
                log.warning("an alert is sent again in %.0f s: %s", wait_s, error)
                return sent
            self._failures = 0
            db.execute("DELETE FROM messages WHERE id = ?", (number,))
            sent += 1
        return sent
