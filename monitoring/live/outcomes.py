"""How one request's feedback moves the sums of its window. Pure, whole numbers.

A window's figure is a mean over rows whose interval counts requests: sums of a request's hits
``x`` and rows ``n``, and of their products (``Moments``). A word of feedback takes the request's
old part out and puts its new one in, so late, repeated and corrected words leave what the last word
alone would have left, in whatever order they came.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any, Final, Literal

import numpy as np

from monitoring.analysis.compare.moments import Moments
from monitoring.live.answers import Answer, Ints

Metric = Literal["accuracy", "click"]

SUMS: Final = tuple(field.name for field in fields(Moments))
# In the order of ``SUMS``; ``dataclasses.astuple`` takes ten times as long.
sums_in: Final[Callable[[Moments], tuple[float, ...]]] = attrgetter(*SUMS)
METRICS: Final[dict[str, Metric]] = {"label": "accuracy", "click": "click"}  # by kind of feedback


@dataclass(frozen=True, slots=True, order=True)
class Word:
    """What was said about a row; the greatest counts: by its own time, else by its arrival."""

    when_us: int
    arrived_us: int
    value: str
    number: float | None = None


def part_of(answer: Answer, metric: Metric, words: Mapping[int, Word]) -> Moments:
    """Return a request's part of its window's sums, given the last words about its rows.

    Accuracy looks at the rows that have a label; for clicks silence is an answer too. Of two
    answers under one id one may have fewer rows than were spoken about.
    """
    rows = len(answer.labels)
    words = {row: word for row, word in words.items() if row < rows}
    if metric == "click":
        if answer.key.variant == "shadow":
            return Moments()  # nobody saw it
        hits = sum(1 for word in words.values() if (word.number or 0.0) > 0.0)
        return moments_of(hits, rows)
    judged = [row for row in words if answer.labels[row] is not None]
    right = sum(1 for row in judged if answer.labels[row] == words[row].value)
    return moments_of(right, len(judged))


def moments_of(x: int, n: int) -> Moments:
    """Sums of a single request with ``x`` hits among ``n`` rows."""
    if n == 0:
        return Moments()
    return Moments(
        **{"units": 1, "rows": n, "x": x, "n": n, "xx": x * x, "xn": x * n, "nn": n * n},
        **{"xxx": x**3, "xxn": x * x * n, "xnn": x * n * n, "nnn": n**3},
    )


def change(before: Moments, after: Moments) -> Moments | None:
    """Return what has to be added to the sums; None where that is nothing."""
    old, new = sums_in(before), sums_in(after)
    return None if old == new else with_sums([b - a for a, b in zip(old, new, strict=True)])


def with_sums(sums: Iterable[float]) -> Moments:
    """Make moments of their sums in the order of ``SUMS``."""
    named: dict[str, Any] = dict(zip(SUMS, sums, strict=True))
    return Moments(**named)


def unclicked(rows: Ints) -> Moments:
    """Sums of requests with so many rows each before anybody has clicked."""
    n = rows.astype(np.float64)
    return Moments(
        units=len(rows),
        rows=int(n.sum()),
        n=float(n.sum()),
        nn=float(n @ n),
        nnn=float(n @ (n * n)),
    )
