"""A scorer that may hold up the event loop only as long as it was measured to.

How long a forest takes is a matter of its trees, its kernel and the machine, so it is not guessed
from the rows but measured, copy by copy, wherever they are scored. Measured in processor time: on
a busy machine the time on the wall is mostly the neighbours', above all in a thread, where a forest
of 100 trees would look slow in one copy of ten.
"""

import time
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from serve_app.model.preprocessing import Unforeseen
from serve_app.prediction import Scorer

AT_ONCE_S: Final = 100e-6  # what it takes from the event loop to hand a copy to a thread instead
WEIGHT: Final = 1 / 8  # of the latest time in the moving average
# A time counts as at most so much: one slow copy turns nothing, two in a row do, and a dozen quick
# ones turn it back.
MOST_S: Final = 4 * AT_ONCE_S


class TimedScorer:
    """``scorer``, but ``score_at_once`` refuses what is not known to take below ``AT_ONCE_S``.

    Known is a moving average of the processor times, failures' included, for each number of rows
    up to ``max_rows``; the first of a size is refused. Calls must not overlap.
    """

    def __init__(
        self, scorer: Scorer, *, max_rows: int, clock: Callable[[], float] = time.thread_time
    ) -> None:
        self._scorer = scorer
        self._max_rows = max_rows
        self._clock = clock
        self._average_s: dict[int, float] = {}

    def score(self, rows: Sequence[Sequence[object]]) -> NDArray[np.float64]:
        """Score in any time; what ``score_at_once`` refused as slow is measured again."""
        if self._is_quick(len(rows)) or len(rows) > self._max_rows:
            return self._scorer.score(rows)
        try:
            return self._timed(rows)
        except Unforeseen:
            return self._scorer.score(rows)

    def score_at_once(self, rows: Sequence[Sequence[object]]) -> NDArray[np.float64]:
        """The same, or Unforeseen for what may take longer."""
        if not self._is_quick(len(rows)):
            raise Unforeseen
        return self._timed(rows)

    def _is_quick(self, rows: int) -> bool:
        return self._average_s.get(rows, AT_ONCE_S) < AT_ONCE_S

    def _timed(self, rows: Sequence[Sequence[object]]) -> NDArray[np.float64]:
        started_s = self._clock()
        try:
            scores = self._scorer.score_at_once(rows)
        except Unforeseen:
            raise  # its time says nothing about what is scored
        except Exception:
            self._learn(len(rows), self._clock() - started_s)
            raise
        self._learn(len(rows), self._clock() - started_s)
        return scores

    def _learn(self, rows: int, took_s: float) -> None:
        took_s = min(took_s, MOST_S)
        before_s = self._average_s.get(rows, took_s)
        self._average_s[rows] = before_s + WEIGHT * (took_s - before_s)
