"""How one request's feedback moves the sums of its window. Pure, whole numbers.

A window's figure is a mean over rows whose interval counts requests: sums of a request's value
``x`` and rows ``n``, and of their products (``Moments``). A word of feedback takes the request's
old part out and puts its new one in, so late, repeated and corrected words leave what the last word
alone would have left, in whatever order they came. That takes exact sums: errors of regressions are
counted in steps of ``2**-STEP_BITS``, as whole numbers of any length.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any, Final, Literal

import numpy as np

from monitoring.analysis.compare.moments import Moments
from monitoring.live.answers import Answer, Ints

Metric = Literal["accuracy", "click", "rmse", "mae", "bias"]

SUMS: Final = tuple(field.name for field in fields(Moments))
# In the order of ``SUMS``; ``dataclasses.astuple`` takes ten times as long.
sums_in: Final[Callable[[Moments], tuple[float, ...]]] = attrgetter(*SUMS)
KINDS: Final = ("label", "click")  # of feedback, each with one figure that asks for retraining
ERRORS: Final[tuple[Metric, ...]] = ("rmse", "mae", "bias")
STEP_BITS: Final = 64
MAX_ERROR: Final = 1e40  # what is further off counts as this, so that no sum leaves the floats
# How many factors of a step are in a request's value: squared errors have two.
STEPS: Final[Mapping[Metric, int]] = {"accuracy": 0, "click": 0, "rmse": 2, "mae": 1, "bias": 1}


@dataclass(frozen=True, slots=True, order=True)
class Word:
    """What was said about a row; the greatest counts: by its own time, else by its arrival."""

    when_us: int
    arrived_us: int
    value: str
    number: float | None = None


def metrics_of(kind: str, answer: Answer) -> tuple[Metric, ...]:
    """Name the figures of an answer that feedback of a kind moves."""
    if kind == "click":
        return ("click",)
    if kind != "label":
        return ()
    return ("accuracy",) if any(isinstance(o, str) for o in answer.outputs) else ERRORS


def part_of(answer: Answer, metric: Metric, words: Mapping[int, Word]) -> Moments:
    """Return a request's part of its window's sums, given the last words about its rows.

    Accuracy and errors look at the rows that have a label; for clicks silence is an answer too. Of
    two answers under one id one may have fewer rows than were spoken about.
    """
    rows = len(answer.outputs)
    words = {row: word for row, word in words.items() if row < rows}
    if metric == "click":
        if answer.key.variant == "shadow":
            return Moments()  # nobody saw it
        hits = sum(1 for word in words.values() if (word.number or 0.0) > 0.0)
        return moments_of(hits, rows)
    said = [(answer.outputs[row], word) for row, word in words.items()]
    if metric == "accuracy":
        judged = [output == word.value for output, word in said if isinstance(output, str)]
        return moments_of(sum(judged), len(judged))
    steps = [
        _steps(output - word.number)
        for output, word in said
        if isinstance(output, float) and math.isfinite(output) and word.number is not None
    ]
    match metric:
        case "rmse":
            return moments_of(sum(error * error for error in steps), len(steps))
        case "mae":
            return moments_of(sum(map(abs, steps)), len(steps))
        case "bias":
            return moments_of(sum(steps), len(steps))


def _steps(error: float) -> int:
    return round(math.ldexp(min(max(error, -MAX_ERROR), MAX_ERROR), STEP_BITS))


def in_units(metric: Metric, sums: Moments) -> Moments:
    """Turn sums of whole steps into sums in the label's units (of squared errors: squared)."""
    bits = STEP_BITS * STEPS[metric]
    if not bits:
        return sums
    # ``xxn`` has two factors of the value. Whole numbers divide exactly, however long they are.
    return with_sums(
        value / 2 ** (bits * name.count("x")) if "x" in name else value
        for name, value in zip(SUMS, sums_in(sums), strict=True)
    )


def moments_of(x: int, n: int) -> Moments:
    """Sums of a single request with ``n`` rows, over which ``x`` is a sum."""
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
