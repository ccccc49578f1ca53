"""Windows and what follows from them, in one SQLite file per ``state_dir``.

Invariants:

- ``segments`` says up to which byte each spool segment has been counted. It changes in the same
  transaction as the windows, and only from the byte at which the counting began; so a segment's
  frames count once, whoever counts them, wherever a process dies. All shards and lives of agents
  on this folder share the file.
- Each row counts in one window of every level. A level's windows are deleted when they are older
  than it is kept; what arrives later than that is in ``totals`` alone, as too old.
- Windows belong to event time: a row's ``ts``, not its arrival.
"""

import sqlite3
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from monitoring.analysis.drift.layout import Layout
from monitoring.live import outcome_tables
from monitoring.live.answers import Chunk
from monitoring.live.errors import CountedElsewhere
from monitoring.live.outcome_tables import Feedback
from monitoring.live.outcomes import unclicked
from monitoring.live.window import LiveWindow, StreamKey, window_of_bytes

MINUTE_S: Final = 60
HOUR_S: Final = 3_600
DAY_S: Final = 86_400
KEPT_S: Final = {MINUTE_S: 3 * HOUR_S, HOUR_S: 3 * DAY_S, DAY_S: 60 * DAY_S}
KEPT_WINDOWS: Final = 200  # of the level that drift is judged at, where it is none of these
SEGMENTS_KEPT_S: Final = 90 * DAY_S  # beyond, a segment counted again would be too old to count
BUSY_S: Final = 10.0
# Champion and shadow may come through different agents, and feedback sooner than either.
FEEDBACK_SETTLES_S: Final = 4.0
_STREAM: Final = "model TEXT, version TEXT, variant TEXT"
_TABLES: Final = f"""
CREATE TABLE IF NOT EXISTS identity (id TEXT);
CREATE TABLE IF NOT EXISTS segments (name TEXT PRIMARY KEY, counted INTEGER, at_s REAL);
CREATE TABLE IF NOT EXISTS caught_up (shard TEXT PRIMARY KEY, at_s REAL);
CREATE TABLE IF NOT EXISTS windows (
    {_STREAM}, level_s INTEGER, start_s INTEGER, data BLOB,
    PRIMARY KEY (model, version, variant, level_s, start_s)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS totals (
    {_STREAM}, events INTEGER, rows INTEGER, missed_events INTEGER, too_old_events INTEGER,
    newest_s REAL, PRIMARY KEY (model, version, variant)
) WITHOUT ROWID;
"""


@dataclass(slots=True)
class Totals:
    """Since the file was made. ``missed_events`` were received and could not be counted."""

    events: int = 0
    rows: int = 0
    missed_events: int = 0
    too_old_events: int = 0
    newest_s: float = 0.0


@dataclass(slots=True)
class Delta:
    """What one stream has got since the last commit; windows by start, at the finest level.

    ``answers`` are to be found again by feedback; a stream of feedback has nothing but that.
    """

    windows: dict[int, LiveWindow] = field(default_factory=dict)
    missed_events: int = 0
    answers: list[Chunk] = field(default_factory=list)
    feedback: list[Feedback] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A segment counted from one byte to another."""

    segment: str
    begun: int
    counted: int


class Store:
    """Belongs to one thread; every process and thread that needs one opens its own."""

    def __init__(self, path: Path, drift_window_s: int) -> None:
        """Open or make the file. Raises ``sqlite3.Error`` or ``OSError``."""
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._db = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._made: set[str] = set()
        self.require(_TABLES + outcome_tables.TABLES)
        self.identity = self._identify()
        self.kept_s = dict(KEPT_S)
        self.kept_s.setdefault(drift_window_s, KEPT_WINDOWS * drift_window_s)
        self.finest_s = min(self.kept_s)

    def _identify(self) -> str:
        """Name the file for ever, so that two agents that share it are not added up."""
        with self.transaction() as db:
            db.execute(
                "INSERT INTO identity SELECT ? WHERE NOT EXISTS (SELECT 1 FROM identity)",
                (uuid.uuid4().hex,),
            )
        found: str = self._db.execute("SELECT id FROM identity").fetchone()[0]
        return found

    def require(self, tables: str) -> None:
        """Make tables of a module that keeps its own here; asked again it costs nothing."""
        if tables not in self._made:
            self._db.executescript(tables)
            self._made.add(tables)

    @property
    def connection(self) -> sqlite3.Connection:
        """For what else lives in the file."""
        return self._db

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Change several things or nothing; others that write wait meanwhile."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield self._db
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def counted(self, segment: str) -> int:
        row = self._db.execute("SELECT counted FROM segments WHERE name = ?", (segment,)).fetchone()
        return row[0] if row else 0

    def add(
        self,
        deltas: Mapping[StreamKey, Delta],
        progress: list[Progress],
        layouts: Mapping[StreamKey, Layout | None],
        now_s: float,
    ) -> None:
        """Add what was counted, and how far, in one step. Raises ``CountedElsewhere``."""
        with self.transaction():
            for part in progress:
                if self.counted(part.segment) != part.begun:
                    raise CountedElsewhere(part.segment)
                self._db.execute(
                    "INSERT OR REPLACE INTO segments VALUES (?, ?, ?)",
                    (part.segment, part.counted, now_s),
                )
            for key, delta in deltas.items():
                self._add_delta(key, delta, layouts[key], now_s)

    def note_caught_up(self, shard: str, at_s: float) -> None:
        """Keep that all that a shard's spool held at a time has been counted."""
        self._db.execute("INSERT OR REPLACE INTO caught_up VALUES (?, ?)", (shard, at_s))

    def caught_up(self, at_s: float, since_s: float) -> bool:
        """Tell whether every shard heard of since a time has been counted up to another."""
        oldest: float | None = self._db.execute(
            "SELECT min(at_s) FROM caught_up WHERE at_s >= ?", (since_s,)
        ).fetchone()[0]
        return oldest is not None and oldest >= at_s

    def kept_windows(self, start_s: int, now_s: float) -> Iterator[tuple[int, int]]:
        """Yield level and start of every kept window that holds a window of the finest level."""
        for level_s, kept_s in self.kept_s.items():
            level_start_s = start_s // level_s * level_s
            if level_start_s + level_s > now_s - kept_s:
                yield level_s, level_start_s

    def _add_delta(self, key: StreamKey, delta: Delta, layout: Layout | None, now_s: float) -> None:
        if delta.feedback:
            try_at_s = now_s + FEEDBACK_SETTLES_S
            outcome_tables.keep_waiting(self._db, key.model, delta.feedback, now_s, try_at_s)
            return
        for chunk in delta.answers:
            outcome_tables.keep_answers(self._db, key, chunk)
            self._add_unclicked(key, chunk, now_s)
        totals = self.totals(key)
        totals.missed_events += delta.missed_events
        for start_s, window in delta.windows.items():
            totals.events += window.figures.events
            totals.rows += window.figures.rows
            totals.newest_s = max(totals.newest_s, start_s + self.finest_s)
            kept = list(self.kept_windows(start_s, now_s))
            for level_s, level_start_s in kept:
                self._merge_into(key, level_s, level_start_s, window, layout)
            totals.too_old_events += 0 if kept else window.figures.events
        self._db.execute(
            "INSERT OR REPLACE INTO totals VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(key.model, key.version, key.variant, totals.events, totals.rows),
                *(totals.missed_events, totals.too_old_events, totals.newest_s),
            ),
        )

    def _add_unclicked(self, key: StreamKey, chunk: Chunk, now_s: float) -> None:
        """Let answers that somebody saw count as not clicked until somebody says otherwise."""
        if key.variant == "shadow":
            return
        starts_s, rows = np.frombuffer(chunk.starts_s, np.int64), chunk.row_counts()
        for start_s in np.unique(starts_s).tolist():
            sums = unclicked(rows[starts_s == start_s])
            for level_s, level_start_s in self.kept_windows(start_s, now_s):
                outcome_tables.add_sums(self._db, key, (level_s, level_start_s, "click"), sums)

    def _merge_into(
        self, key: StreamKey, level_s: int, start_s: int, delta: LiveWindow, layout: Layout | None
    ) -> None:
        place = (key.model, key.version, key.variant, level_s, start_s)
        window = self._window(place, layout) or LiveWindow()
        window.merge(delta)
        self._db.execute(
            "INSERT OR REPLACE INTO windows VALUES (?, ?, ?, ?, ?, ?)", (*place, window.to_bytes())
        )

    def _window(
        self, place: tuple[str, str, str, int, int], layout: Layout | None
    ) -> LiveWindow | None:
        row = self._db.execute(
            "SELECT data FROM windows WHERE model = ? AND version = ? AND variant = ? "
            "AND level_s = ? AND start_s = ?",
            place,
        ).fetchone()
        return window_of_bytes(row[0], layout) if row else None

    def streams(self) -> list[StreamKey]:
        rows = self._db.execute("SELECT model, version, variant FROM totals ORDER BY 1, 2, 3")
        return [StreamKey(*row) for row in rows]

    def totals(self, key: StreamKey) -> Totals:
        row = self._db.execute(
            "SELECT events, rows, missed_events, too_old_events, newest_s FROM totals "
            "WHERE model = ? AND version = ? AND variant = ?",
            (key.model, key.version, key.variant),
        ).fetchone()
        return Totals(*row) if row else Totals()

    def windows(
        self,
        key: StreamKey,
        level_s: int,
        *,
        start_s: float = 0.0,
        end_s: float = float("inf"),
        layout: Layout | None = None,
    ) -> list[tuple[int, LiveWindow]]:
        """Read a level's windows that begin in a span, in order of time."""
        rows = self._db.execute(
            "SELECT start_s, data FROM windows WHERE model = ? AND version = ? AND variant = ? "
            "AND level_s = ? AND start_s >= ? AND start_s < ? ORDER BY start_s",
            (key.model, key.version, key.variant, level_s, start_s, end_s),
        )
        return [(start, window_of_bytes(data, layout)) for start, data in rows]

    def forget(self, now_s: float, present: set[str]) -> None:
        """Delete windows that are no longer kept, and segments that are long gone."""
        with self.transaction():
            for level_s, kept_s in self.kept_s.items():
                for table in ("windows", "outcomes"):
                    self._db.execute(
                        f"DELETE FROM {table} WHERE level_s = ? AND start_s + level_s <= ?",  # noqa: S608
                        (level_s, now_s - kept_s),
                    )
            old = self._db.execute(
                "SELECT name FROM segments WHERE at_s < ?", (now_s - SEGMENTS_KEPT_S,)
            ).fetchall()
            gone = [row for row in old if row[0] not in present]
            self._db.executemany("DELETE FROM segments WHERE name = ?", gone)

    def close(self) -> None:
        self._db.close()
