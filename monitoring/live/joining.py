"""Feedback joined to the answers it is about, by the one judge of a state folder.

Counting puts feedback into a waiting room, in the transaction that counts its segment further; here
it is taken out and moves the sums, in one transaction again. So each feedback counts once, whoever
dies when.
"""

import sqlite3
from collections.abc import Callable
from typing import Final

from monitoring.agent.settings import LiveSettings
from monitoring.analysis.compare.moments import Moments
from monitoring.live import outcome_tables as tables
from monitoring.live.answers import Answer, AnswerIndex
from monitoring.live.outcome_tables import Waiting
from monitoring.live.outcomes import Metric, change, metrics_of, part_of
from monitoring.live.store import Store
from monitoring.live.window import StreamKey

RETRY_S: Final = 10.0
UNKNOWN_AFTER_S: Final = 60.0
FORGET_EVERY_S: Final = 60.0
AT_ONCE: Final = 1_000  # in one transaction, for which counting waits: some 60 ms


class Joining:
    """Belongs to one thread, as does its store. Answers are read once feedback is due."""

    def __init__(self, store: Store, settings: LiveSettings, clock: Callable[[], float]) -> None:
        self._store = store
        self._settings = settings
        self._clock = clock
        self._index = AnswerIndex()
        self._forget_at_s = 0.0

    def join_due(self) -> int:
        """Join what has waited long enough; return how many feedbacks were looked at."""
        now_s = self._clock()
        if now_s >= self._forget_at_s:
            with self._store.transaction() as db:
                gone = tables.forget_answers(db, self._settings.feedback_requests)
            self._index.forget(gone)
            self._forget_at_s = now_s + FORGET_EVERY_S
        looked_at = 0
        while batch := tables.due(self._store.connection, now_s, AT_ONCE):
            for chunk in tables.answers_after(self._store.connection, self._index.newest):
                self._index.add(*chunk)
            with self._store.transaction() as db:
                moved = _Moved()
                for waiting in batch:
                    self._join(db, waiting, moved, now_s)
                self._move(db, moved, now_s)
            looked_at += len(batch)
        return looked_at

    def _join(
        self, db: sqlite3.Connection, waiting: Waiting, moved: "_Moved", now_s: float
    ) -> None:
        said = waiting.feedback
        answers = list(self._index.find(waiting.model, said.request))
        if not answers and now_s < waiting.counted_s + UNKNOWN_AFTER_S:
            again_s = now_s + RETRY_S
            db.execute("UPDATE waiting SET try_at_s = ? WHERE id = ?", (again_s, waiting.id))
            return
        db.execute("DELETE FROM waiting WHERE id = ?", (waiting.id,))
        rows = max((len(answer.outputs) for answer in answers), default=0)
        if said.row is None and rows > 1:
            tables.note(db, waiting.model, "ambiguous")
        elif (said.row or 0) >= rows:
            tables.note(db, waiting.model, "unknown")
        else:
            self._use(db, waiting, answers, moved)

    def _use(
        self, db: sqlite3.Connection, waiting: Waiting, answers: list[Answer], moved: "_Moved"
    ) -> None:
        """Let the last word about a row count, in the windows of all answers it is about."""
        said, model = waiting.feedback, waiting.model
        row, word = said.row or 0, said.word
        before = tables.words_about(db, model, said.request, said.kind)
        known = before.get(row)
        if known is None:
            tables.note(db, model, "used")
            if min(map(self._closed_s, answers)) * 1e6 < word.arrived_us:
                tables.note(db, model, "late")
        else:
            tables.note(db, model, "duplicate" if known.value == word.value else "corrected")
            if word < known:
                return
        newest = max(answer.chunk for answer in answers)
        tables.keep_word(db, model, said, row, newest)
        for answer in answers:
            for metric in metrics_of(said.kind, answer):
                old, new = (part_of(answer, metric, w) for w in (before, before | {row: word}))
                moved.add(answer, metric, change(old, new))

    def _move(self, db: sqlite3.Connection, moved: "_Moved", now_s: float) -> None:
        """Add to the windows of all levels what a batch of feedback has moved."""
        for (key, finest_s, metric), sums in moved.sums.items():
            for level_s, start_s in self._store.kept_windows(finest_s, now_s):
                tables.add_sums(db, key, (level_s, start_s, metric), sums)

    def _closed_s(self, answer: Answer) -> float:
        """Return when the drift window of an answer was closed."""
        length_s = self._settings.drift_window_s
        return answer.start_s // length_s * length_s + length_s + self._settings.late_s


class _Moved:
    """Changes of sums by stream, window of the finest level and metric."""

    def __init__(self) -> None:
        self.sums: dict[tuple[StreamKey, int, Metric], Moments] = {}

    def add(self, answer: Answer, metric: Metric, moved: Moments | None) -> None:
        if moved is not None:
            place = (answer.key, answer.start_s, metric)
            known = self.sums.get(place)
            self.sums[place] = moved if known is None else known + moved
