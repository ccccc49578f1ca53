"""What versions can be compared on: each metric gives every row a value, or none."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from monitoring.analysis.compare.judge import Better
from monitoring.analysis.feedback import NUMBER, OUTCOME

Floats = NDArray[np.float64]

LABEL: Final = "label"
CLICK: Final = "click"
FEEDBACK_PREFIX: Final = "feedback:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """``values`` gives one number per row, NaN where the row has no say.

    ``outcome`` names the kind of feedback that has to be joined first. ``shown_only`` metrics need
    an answer that somebody saw: a shadow has none.
    """

    name: str
    better: Better
    values: Callable[[pa.Table], Floats]
    outcome: str | None = None
    shown_only: bool = False


def metric_named(name: str) -> Metric:
    """Find a metric, or make one of ``feedback:<kind>``. Raises ValueError with what there is."""
    if name in METRICS:
        return METRICS[name]
    kind = name.removeprefix(FEEDBACK_PREFIX)
    if kind not in ("", name):
        return Metric(name=name, better="neither", values=_said, outcome=kind, shown_only=True)
    known = ", ".join(METRICS)
    raise ValueError(f"metric is {name!r}; allowed: {known}, {FEEDBACK_PREFIX}<kind>")


def _floats(column: pa.ChunkedArray) -> Floats:
    values: Floats = pc.fill_null(pc.cast(column, pa.float64()), np.nan).to_numpy()
    return values


def _per_request(rows: pa.Table, values: Floats) -> Floats:
    """Leave a request's value with its first row alone."""
    return np.where(rows["row"].to_numpy() == 0, values, np.nan)


def _failed(rows: pa.Table) -> Floats:
    return _per_request(rows, _floats(pc.greater_equal(rows["status"], 500)))


def _latency(rows: pa.Table) -> Floats:
    return _per_request(rows, _floats(rows["latency_ms"]))


def _score(rows: pa.Table) -> Floats:
    return _floats(rows["score"])


def _correct(rows: pa.Table) -> Floats:
    return _floats(pc.equal(rows["label"], rows[OUTCOME]))


def _squared_error(rows: pa.Table) -> Floats:
    return (_floats(rows["score"]) - _floats(rows[NUMBER])) ** 2


def _said(rows: pa.Table) -> Floats:
    return _floats(rows[NUMBER])


def _clicked(rows: pa.Table) -> Floats:
    """Return 1 for a click, 0 without one: silence is an answer here."""
    return (np.nan_to_num(_floats(rows[NUMBER])) > 0.0).astype(float)


METRICS: Final = {
    metric.name: metric
    for metric in (
        Metric(name="accuracy", better="higher", values=_correct, outcome=LABEL),
        Metric(name="squared_error", better="lower", values=_squared_error, outcome=LABEL),
        Metric(name="click", better="higher", values=_clicked, outcome=CLICK, shown_only=True),
        Metric(name="error_rate", better="lower", values=_failed),
        # A shadow's is the time of its scoring alone: nobody waited for it.
        Metric(name="latency_ms", better="lower", values=_latency, shown_only=True),
        Metric(name="score", better="neither", values=_score),
    )
}
