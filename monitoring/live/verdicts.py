"""Verdicts on closed windows and the state of each stream's drift, beside the windows in the store.

A verdict and the state after it are written in one transaction, and only onto the state it was made
from: a window is judged once, by whoever comes first.
"""

import sqlite3
from typing import Final

import msgspec

from monitoring.analysis.drift.budget import Evidence
from monitoring.live.drifting import DriftState
from monitoring.live.errors import CountedElsewhere
from monitoring.live.store import Store
from monitoring.live.window import StreamKey

KEPT_VERDICTS: Final = 200
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS verdicts (
    model TEXT, version TEXT, variant TEXT, start_s INTEGER, report BLOB,
    PRIMARY KEY (model, version, variant, start_s)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS drift (
    model TEXT, version TEXT, variant TEXT, evidence REAL, windows INTEGER, alarm INTEGER,
    open_since_s REAL, calm INTEGER, judged_to_s REAL, threshold REAL,
    PRIMARY KEY (model, version, variant)
) WITHOUT ROWID;
"""


class Verdicts:
    """Belongs to the thread of its store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        store.require(_TABLES)
        self._db: sqlite3.Connection = store.connection

    def state(self, key: StreamKey) -> tuple[DriftState, float | None]:
        """Return a stream's state and the threshold it was last held against."""
        row = self._db.execute(
            "SELECT evidence, windows, alarm, open_since_s, calm, judged_to_s, threshold "
            "FROM drift WHERE model = ? AND version = ? AND variant = ?",
            msgspec.structs.astuple(key),
        ).fetchone()
        if row is None:
            return DriftState(), None
        value, windows, alarm, open_since_s, calm, judged_to_s, threshold = row
        state = DriftState(
            evidence=Evidence(value=value, windows=windows, alarm=bool(alarm)),
            open_since_s=open_since_s,
            calm=calm,
            judged_to_s=judged_to_s,
        )
        return state, threshold

    def add(
        self,
        key: StreamKey,
        start_s: int,
        report: bytes,
        *,
        before: DriftState,
        after: DriftState,
        threshold: float,
    ) -> None:
        """Store a verdict (JSON) and the state after it. Raises ``CountedElsewhere``."""
        stream = msgspec.structs.astuple(key)
        evidence = after.evidence
        with self._store.transaction() as db:
            if self.state(key)[0].judged_to_s != before.judged_to_s:
                raise CountedElsewhere(f"window {start_s} of {stream}")
            db.execute(
                "INSERT OR REPLACE INTO drift VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(*stream, evidence.value, evidence.windows, int(evidence.alarm)),
                    *(after.open_since_s, after.calm, after.judged_to_s, threshold),
                ),
            )
            db.execute(
                "INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?, ?, ?)",
                (*stream, start_s, report),
            )
            db.execute(
                "DELETE FROM verdicts WHERE model = ? AND version = ? AND variant = ? "
                "AND start_s <= (SELECT start_s FROM verdicts WHERE model = ? AND version = ? "
                "AND variant = ? ORDER BY start_s DESC LIMIT 1 OFFSET ?)",
                (*stream, *stream, KEPT_VERDICTS),
            )

    def reports(self, key: StreamKey, start_s: float, end_s: float) -> list[bytes]:
        """Return the verdicts on windows that begin in a span, in order of time."""
        rows = self._db.execute(
            "SELECT report FROM verdicts WHERE model = ? AND version = ? AND variant = ? "
            "AND start_s >= ? AND start_s < ? ORDER BY start_s",
            (*msgspec.structs.astuple(key), start_s, end_s),
        )
        return [row[0] for row in rows]
