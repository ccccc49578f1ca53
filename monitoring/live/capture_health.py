"""What agents say about their capture, beside the windows: alerts for it are opened by the judge.

An agent's word counts as long as it is repeated: what a dead one said opens nothing for ever.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from monitoring.agent.health import Kind
from monitoring.live.alerts import Cause
from monitoring.live.store import Store

KEPT_S: Final = 60.0
REPEAT_S: Final = 10.0
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS health (shard TEXT PRIMARY KEY, at_s REAL, causes BLOB);
"""


def note_health(store: Store, shard: str, causes: Mapping[Kind, str], now_s: float) -> None:
    """Keep what an agent says by kind; the same again is written every ``REPEAT_S`` only."""
    store.require(_TABLES)
    data = msgspec.msgpack.encode(dict(causes))
    row = store.connection.execute(
        "SELECT at_s, causes = ? FROM health WHERE shard = ?", (data, shard)
    ).fetchone()
    if row is None or not row[1] or abs(now_s - row[0]) >= REPEAT_S:
        store.connection.execute(
            "INSERT OR REPLACE INTO health VALUES (?, ?, ?)", (shard, now_s, data)
        )


def unhealthy(store: Store, now_s: float) -> dict[str, Cause]:
    """Make a cause of an alert of each kind of trouble that an agent has."""
    store.require(_TABLES)
    rows = store.connection.execute("SELECT shard, at_s, causes FROM health ORDER BY shard")
    return {
        f"capture:{shard}/{kind}": Cause(
            kind="capture", text=text, since_s=at_s, link="/monitor/api/health"
        )
        for shard, at_s, data in rows
        if abs(now_s - at_s) <= KEPT_S
        for kind, text in msgspec.msgpack.decode(data, type=dict[str, str]).items()
    }
