"""The tables of feedback, beside the windows in the store.

``answers`` are remembered requests in chunks, ``waiting`` is feedback that is not joined yet,
``said`` the last word about each row, ``outcomes`` the sums of each window at each level,
``settled`` some days' sums as they stood soon after the day, and ``feedback`` what has become of
all that came. Sums are whole numbers; too long ones stand as their digits. Everything here happens
in a transaction of the caller's.
"""

import sqlite3
from collections.abc import Iterator
from typing import Final

import msgspec

from monitoring.analysis.compare.moments import Moments
from monitoring.live.answers import Chunk
from monitoring.live.outcomes import SUMS, Metric, Word, in_units, sums_in, with_sums
from monitoring.live.window import StreamKey

# Of an answered request: 20, and two more for each row's class or eight for its number, so that up
# to five rows of classes fit, or one of a regression.
REQUEST_BYTES: Final = 32
_STREAM: Final = "model TEXT, version TEXT, variant TEXT"
TABLES: Final = f"""
CREATE TABLE IF NOT EXISTS answers (
    id INTEGER PRIMARY KEY AUTOINCREMENT, {_STREAM}, data BLOB
);
CREATE TABLE IF NOT EXISTS waiting (
    id INTEGER PRIMARY KEY AUTOINCREMENT, model TEXT, request INTEGER, row INTEGER, kind TEXT,
    value TEXT, number REAL, when_us INTEGER, arrived_us INTEGER, counted_s REAL, try_at_s REAL
);
CREATE TABLE IF NOT EXISTS said (
    model TEXT, request INTEGER, kind TEXT, row INTEGER, when_us INTEGER, arrived_us INTEGER,
    value TEXT, number REAL, newest_answer INTEGER, PRIMARY KEY (model, request, kind, row)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS outcomes (
    {_STREAM}, level_s INTEGER, start_s INTEGER, metric TEXT,
    {", ".join(f"{name} NUMERIC" for name in SUMS)},
    PRIMARY KEY (model, version, variant, level_s, start_s, metric)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS settled (
    {_STREAM}, metric TEXT, start_s INTEGER, {", ".join(f"{name} NUMERIC" for name in SUMS)},
    PRIMARY KEY (model, version, variant, metric, start_s)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS feedback (
    model TEXT, fate TEXT, events INTEGER, PRIMARY KEY (model, fate)
) WITHOUT ROWID;
"""


class Feedback(msgspec.Struct, frozen=True):
    """One feedback as counted; ``row`` None is about the request's only row."""

    request: int
    row: int | None
    kind: str
    word: Word


class Waiting(msgspec.Struct, frozen=True):
    """One that waits for its answer, since ``counted_s``."""

    id: int
    model: str
    counted_s: float
    feedback: Feedback


def keep_answers(db: sqlite3.Connection, key: StreamKey, chunk: Chunk) -> None:
    place = (key.model, key.version, key.variant)
    db.execute(
        "INSERT INTO answers (model, version, variant, data) VALUES (?, ?, ?, ?)",
        (*place, msgspec.msgpack.encode(chunk)),
    )


def answers_after(db: sqlite3.Connection, number: int) -> Iterator[tuple[int, StreamKey, Chunk]]:
    rows = db.execute(
        "SELECT id, model, version, variant, data FROM answers WHERE id > ? ORDER BY id", (number,)
    )
    for found, model, version, variant, data in rows:
        chunk = msgspec.msgpack.decode(data, type=Chunk)
        yield found, StreamKey(model, version, variant), chunk


def keep_waiting(
    db: sqlite3.Connection, model: str, feedback: list[Feedback], now_s: float, try_at_s: float
) -> None:
    db.executemany(
        "INSERT INTO waiting (model, request, row, kind, value, number, when_us, arrived_us, "
        "counted_s, try_at_s) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                *(model, f.request, f.row, f.kind, f.word.value, f.word.number),
                *(f.word.when_us, f.word.arrived_us, now_s, try_at_s),
            )
            for f in feedback
        ],
    )


def due(db: sqlite3.Connection, now_s: float, at_most: int) -> list[Waiting]:
    rows = db.execute(
        "SELECT id, model, counted_s, request, row, kind, when_us, arrived_us, value, number "
        "FROM waiting WHERE try_at_s <= ? ORDER BY try_at_s, id LIMIT ?",
        (now_s, at_most),
    )
    return [
        Waiting(number, model, counted_s, Feedback(request, row, kind, Word(*word)))
        for number, model, counted_s, request, row, kind, *word in rows.fetchall()
    ]


def all_joined(db: sqlite3.Connection, before_s: float) -> bool:
    """Tell whether all feedback that came before a time, and is counted, has met its fate."""
    waits = db.execute("SELECT 1 FROM waiting WHERE arrived_us < ? LIMIT 1", (before_s * 1e6,))
    return waits.fetchone() is None


def add_sums(
    db: sqlite3.Connection, key: StreamKey, place: tuple[int, int, Metric], sums: Moments
) -> None:
    """Add to a window's sums; ``place`` is its level, its start and the metric."""
    where = (key.model, key.version, key.variant, *place)
    known = db.execute(
        f"SELECT {', '.join(SUMS)} FROM outcomes WHERE model = ? AND version = ? AND variant = ? "  # noqa: S608  own names
        "AND level_s = ? AND start_s = ? AND metric = ?",
        where,
    ).fetchone()
    total = map(int.__add__, map(int, known), map(int, sums_in(sums))) if known else sums_in(sums)
    db.execute(
        f"INSERT OR REPLACE INTO outcomes VALUES ({', '.join('?' * (6 + len(SUMS)))})",  # noqa: S608
        (*where, *map(_kept, total)),
    )


def _kept(total: float) -> int | bytes:
    """Digits as a blob, which SQLite leaves alone, where a number is longer than its own."""
    whole = int(total)
    return whole if -(2**63) <= whole < 2**63 else str(whole).encode()


def sums_of(
    db: sqlite3.Connection, key: StreamKey, level_s: int, start_s: float, end_s: float
) -> list[tuple[int, Metric, Moments]]:
    """Read a level's sums of the windows that begin in a span, in order of time, in units.

    Without a single click about the model nobody sends any, and there is no click rate.
    """
    clicked = db.execute(
        "SELECT 1 FROM said WHERE model = ? AND kind = 'click' UNION ALL "
        "SELECT 1 FROM outcomes WHERE model = ? AND metric = 'click' AND x > 0",
        (key.model, key.model),
    )
    without = "" if clicked.fetchone() else "click"
    rows = db.execute(
        f"SELECT start_s, metric, {', '.join(SUMS)} FROM outcomes "  # noqa: S608  own names
        "WHERE model = ? AND version = ? AND variant = ? AND level_s = ? "
        "AND start_s >= ? AND start_s < ? AND metric != ? ORDER BY start_s, metric",
        (key.model, key.version, key.variant, level_s, start_s, end_s, without),
    )
    return [(start, metric, _read(metric, sums)) for start, metric, *sums in rows]


def _read(metric: Metric, sums: list[int | bytes]) -> Moments:
    return in_units(metric, with_sums(map(int, sums)))


def settle(db: sqlite3.Connection, day_s: int, start_s: int, min_units: int, kept: int) -> None:
    """Keep the sums of all streams' day as they stand now, unless they are kept already.

    A stream's first day is a part of one and is left out; of clicks so is the first day on whose
    answers anybody clicked, and what was before, when nobody sent any. The first day of each
    weekday stays, and those of the newest ``kept``.
    """
    names = "model, version, variant, metric, start_s"
    db.execute(
        f"INSERT OR IGNORE INTO settled SELECT {names}, {', '.join(SUMS)} FROM outcomes AS o "  # noqa: S608  own names
        "WHERE level_s = ? AND start_s = ? AND units >= ? AND EXISTS (SELECT 1 FROM outcomes "
        "WHERE model = o.model AND version = o.version AND variant = o.variant "
        "AND level_s = o.level_s AND start_s < o.start_s) "
        "AND (metric != 'click' OR EXISTS (SELECT 1 FROM outcomes WHERE model = o.model "
        "AND metric = 'click' AND level_s = o.level_s AND start_s < o.start_s AND x > 0))",
        (day_s, start_s, min_units),
    )
    by = "PARTITION BY model, version, variant, metric"
    db.execute(
        f"DELETE FROM settled WHERE ({names}) IN (SELECT {names} FROM (SELECT {names}, "  # noqa: S608
        f"row_number() OVER ({by}, start_s / ? % 7 ORDER BY start_s) AS nth, "
        f"max(start_s) OVER ({by}) AS newest_s "
        "FROM settled) WHERE nth > 1 AND start_s <= newest_s - ?)",
        (day_s, kept * day_s),
    )


def settled_days(
    db: sqlite3.Connection, key: StreamKey, metric: Metric
) -> list[tuple[int, Moments]]:
    """Read a figure's settled days, in order of time."""
    rows = db.execute(
        f"SELECT start_s, {', '.join(SUMS)} FROM settled "  # noqa: S608  own names
        "WHERE model = ? AND version = ? AND variant = ? AND metric = ? ORDER BY start_s",
        (key.model, key.version, key.variant, metric),
    )
    return [(start_s, _read(metric, sums)) for start_s, *sums in rows]


def words_about(db: sqlite3.Connection, model: str, request: int, kind: str) -> dict[int, Word]:
    rows = db.execute(
        "SELECT row, when_us, arrived_us, value, number FROM said "
        "WHERE model = ? AND request = ? AND kind = ?",
        (model, request, kind),
    )
    return {row: Word(*word) for row, *word in rows}


def keep_word(
    db: sqlite3.Connection, model: str, said: Feedback, row: int, newest_answer: int
) -> None:
    word = said.word
    db.execute(
        "INSERT OR REPLACE INTO said VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(model, said.request, said.kind, row, word.when_us, word.arrived_us),
            *(word.value, word.number, newest_answer),
        ),
    )


def note(db: sqlite3.Connection, model: str, fate: str) -> None:
    db.execute(
        "INSERT INTO feedback VALUES (?, ?, 1) ON CONFLICT DO UPDATE SET events = events + 1",
        (model, fate),
    )


def fates(db: sqlite3.Connection) -> dict[str, dict[str, int]]:
    """Say by model what has become of its feedback so far; ``waiting`` is what has to be joined."""
    found: dict[str, dict[str, int]] = {}
    for model, fate, events in db.execute("SELECT model, fate, events FROM feedback"):
        found.setdefault(model, {})[fate] = events
    for model, events in db.execute("SELECT model, count(*) FROM waiting GROUP BY model"):
        found.setdefault(model, {})["waiting"] = events
    return found


def forget_answers(db: sqlite3.Connection, kept: int) -> int:
    """Delete the oldest answers beyond ``kept`` requests, and what was said about them.

    A request counts as ``REQUEST_BYTES``: those of many rows, whose labels take more, count for
    more. Return the number of the last chunk that is gone, 0 where none is.
    """
    oldest = db.execute(
        "SELECT id FROM "
        "(SELECT id, sum(length(data)) OVER (ORDER BY id DESC) AS newer FROM answers) "
        "WHERE newer > ? ORDER BY id DESC LIMIT 1",
        (kept * REQUEST_BYTES,),
    ).fetchone()
    if oldest is None:
        return 0
    db.execute("DELETE FROM answers WHERE id <= ?", oldest)
    db.execute("DELETE FROM said WHERE newest_answer <= ?", oldest)
    return int(oldest[0])
